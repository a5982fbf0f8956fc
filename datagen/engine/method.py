"""The interface of a method: what a generator, a strategy or a way to judge tells the engine.

The table of commands (commands/main.py) names the class. A command with several variants (`respond --strategy`) names
one class for each.
"""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol

from datagen.llm.model import Roles
from datagen.prompts import Prompts
from datagen.records.reader import PROMPTS, Kind
from datagen.records.record import BadLine, Candidate, Record, Row, Seen


class Table(Protocol):
    """What a method counts over its candidates, fed in input order."""

    def add(self, candidate: Candidate) -> None: ...

    def as_dict(self) -> dict[str, Any]:
        """Return the counts for x.meta.json."""
        ...

    def tables(self) -> list[list[list[str]]]:
        """Return tables to print, rows of cells, the first row the heading."""
        ...


class NoTable:
    """A method that has nothing to count beyond the funnel."""

    def add(self, candidate: Candidate) -> None: ...

    def as_dict(self) -> dict[str, Any]:
        return {}

    def tables(self) -> list[list[list[str]]]:
        return []


class Memory(Protocol):
    """A rule about a row and all rows kept before it. It lives in the fold, so it sees them in input order."""

    def drops(self, row: Row) -> str | None:
        """Return why to drop a row; None keeps it, and it is remembered."""
        ...


class Growing(Memory, Protocol):
    """A memory that generators may look at: an append-only list, so a length is all it takes to see it as it was."""

    def __len__(self) -> int: ...

    def view(self, length: int) -> Any:
        """Return what it was when it had that length."""
        ...


class Unique:
    """No two rows share these fields."""

    def __init__(self, *fields: str) -> None:
        self._fields, self._seen = fields, Seen()

    def drops(self, row: Row) -> str | None:
        return None if self._seen.add([row.get(name) for name in self._fields]) else "duplicate"


class Method:
    """A way to make rows: one generator, one strategy or one way to judge. It is what a contributor writes.

    A subclass sets the class attributes that differ from the defaults and writes `generate`; every other hook has a
    default. A property whose value does not depend on the options may be overridden by a plain class attribute.

    An instance belongs to one run: it holds the run's options and prompts. It knows nothing of files, progress or
    concurrency, and keeps no state between records (state lives in `memory`, which the fold owns).

    Args:
        options: The parsed command-line options, an `options_type`.
        prompts: The prompt templates, shipped ones and the user's replacements.
    """

    name: ClassVar[str]
    """The command, as typed: `datagen NAME`."""
    variant: ClassVar[str] = ""
    """The value that selects this method where a command has several, such as `cot` in `--strategy cot`."""
    options_type: ClassVar[type]
    """A frozen dataclass. Each field declared with `option()` becomes a flag."""
    roles: ClassVar[Mapping[str, str]] = {}
    """Role to what its model does. Empty for a method that calls no model."""
    speaks: ClassVar[Sequence[str]] = ()
    """Roles that speak as the user. An endpoint only answers, so these need local weights or `sim`."""
    templates: ClassVar[tuple[str, ...]] = ()
    """Names of the prompt templates in use; their digests are part of the output's fingerprint."""
    kind: ClassVar[Kind[Record]] = PROMPTS
    """The kind of input rows."""
    reads: ClassVar[bool] = True
    """Whether there is an input file. A method without one is `endless`."""
    endless: ClassVar[bool] = False
    """Whether records come from `draw`, without end, and not from the input row by row. Needs `-n`."""
    unique: ClassVar[tuple[str, ...]] = ("prompt", "response")
    """Fields that no two kept rows share."""

    options: Any
    """The parsed options; a subclass narrows the type."""
    lag: int | None = None
    """After how many records an accepted row becomes visible: record i sees the pool as it stood when record i - lag
    was folded (`record.view`). None: records see nothing of each other."""

    def __init__(self, options: Any, prompts: Prompts) -> None:
        self.options, self.prompts = options, prompts

    def check(self) -> None:
        """Check the options and read the files they name, before anything is sent.

        Raises:
            InputError: An option has an unknown value, or a file cannot be used.
        """

    def identity(self) -> dict[str, Any]:
        """Return what the fingerprint needs beyond the options, such as digests of files named inside an option."""
        return {}

    def generate(self, record: Record, llm: Roles) -> AsyncIterator[Candidate]:
        """Yield the candidates of one record, in a fixed order whatever order its calls end in.

        Args:
            record: One input row, or one record made by `draw`.
            llm: The models by role; `await llm.chat(role, prompt, ...)` returns a `Completion`.

        Raises:
            CallFailed: Must not leave this function: yield `fail(...)` for it.
        """
        raise NotImplementedError

    @property
    def candidates(self) -> int:
        """The most candidates that one record yields."""
        return 1

    def bound(self, record: Record) -> int:
        """Return the most calls that one record makes if every answer is good. Caps reserve it."""
        return 0

    def memory(self) -> Sequence[Memory]:
        """Return what the fold remembers of kept rows, to drop later ones. `draw` sees the first of them."""
        return [Unique(*self.unique)]

    def table(self) -> Table:
        """Return the counts to print at the end beside the funnel."""
        return NoTable()

    def draw(self, rows: Iterator[Record | BadLine], pool: Growing, seed: int) -> Iterator[Record | BadLine]:
        """Yield records without end, for an `endless` method.

        Args:
            rows: The input rows, read once.
            pool: The first memory. It may be added to before the first record.
            seed: The run's `--seed`.
        """
        raise NotImplementedError

    @property
    def next_command(self) -> str:
        """The command to run on the output; `{}` stands for its name."""
        return "datagen train sft {}"

    def finish(self, result: Row) -> None:
        """Use the `result` of a run that finished."""
