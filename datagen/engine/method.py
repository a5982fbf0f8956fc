"""The interface of a method: what a generator, a strategy or a judge declares to the engine.

The table of commands (commands/table.py) names the classes: one, or one for each variant of a command, as in
`respond --strategy`.
"""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, NamedTuple, Protocol

from datagen.llm.model import Roles
from datagen.plugins import OutsideFunction
from datagen.prompts import Prompts
from datagen.records.reader import PROMPTS, Kind, Reader
from datagen.records.record import ID_LENGTH, BadLine, Candidate, Record, Row
from datagen.records.seen import Numbered

HEX_DIGITS = frozenset("0123456789abcdef")


class Table:
    """A method's own counts over its candidates. This base class counts nothing beyond the funnel."""

    def add(self, candidate: Candidate) -> None:
        """Count a candidate. They come in input order, after the fold has decided about each."""

    def as_dict(self) -> dict[str, Any]:
        """Return the counts for x.meta.json."""
        return {}

    def warnings(self) -> list[str]:
        """Return what the counts say against the use of the rows, a sentence for each without its full stop."""
        return []

    def tables(self) -> list[list[list[str]]]:
        """Return the tables to print. A table is a list of rows of cells; its first row is the heading."""
        return []


class Memory(Protocol):
    """A rule about a row and all rows accepted before it. It lives in the fold, so it sees them in input order."""

    def drops(self, row: Row) -> str | None:
        """Return the reason to reject a row; None accepts it, and the rule remembers it."""
        ...


class Verdict(NamedTuple):
    """What a late rule decides about a row."""

    reason: str | None
    """Why it is rejected; None keeps it."""
    evidence: Row
    """What the rule has found; it stands beside the columns of the rejected row."""


PASSED = Verdict(None, {})


class LateRule(Protocol):
    """A rule about many rows at once, after all others. It lives in the fold, which holds rows until it decides."""

    def add(self, row: Any) -> None:
        """Take the next row. A DatagenError ends the run."""
        ...

    def decided(self, *, is_last: bool) -> Sequence[Verdict]:
        """Return what is decided about the next rows, in the order in which they came; at the end, about all."""
        ...


class GrowingMemory(Memory, Protocol):
    """A memory that records may read. It only grows, so its length identifies an earlier state."""

    def __len__(self) -> int: ...

    def view(self, length: int) -> Any:
        """Return its state as of the time when it had this length."""
        ...


class Unique:
    """Rejects a row whose values of some fields equal those of an earlier row, and knows which one that is."""

    def __init__(self, *fields: str) -> None:
        self._fields, self._seen = fields, Numbered()
        self.twin: str | None = None
        """The id of the row that the last rejected one repeats."""

    def drops(self, row: Row) -> str | None:
        number = self._seen.first([row.get(name) for name in self._fields], number_of(row["id"]))
        self.twin = f"{number:0{ID_LENGTH}x}" if number else None
        return None if number is None else "duplicate"


def number_of(name: str) -> int:
    """Return the number that an id of ours is, and 0 for an id of somebody else."""
    return int(name, 16) if len(name) == ID_LENGTH and set(name) <= HEX_DIGITS else 0


class Method:
    """One method to generate, select or judge rows: a generator, a strategy, a filter, a judge.

    This is the class that a contributor writes.

    A subclass sets the class attributes that differ from the defaults and writes `generate`; every other hook has a
    default. A property whose value does not depend on the options may be overridden by a plain class attribute.

    An instance belongs to one run: it holds the run's options and prompts. It knows nothing of files, progress or
    concurrency, and keeps no state between records (state lives in `memory`, which the fold owns).

    Args:
        options: The parsed command-line options, an `options_type`.
        prompts: The prompt templates, shipped ones and the user's replacements.
    """

    name: ClassVar[str]
    """The name of the command, as in `datagen NAME`."""
    origin: ClassVar[str] = ""
    """Where the class comes from and the digest of its file, if it is a plug-in; part of the fingerprint."""
    prompt_folder: ClassVar[Path | None] = None
    """Where a plug-in has prompt templates of its own, laid out as the shipped ones."""
    variant: ClassVar[str] = ""
    """The value that selects this method if the command has several, such as `cot` in `--strategy cot`."""
    options_type: ClassVar[type]
    """A frozen dataclass. Each field declared with `option()` becomes a flag."""
    roles: ClassVar[Mapping[str, str]] = {}
    """Role to the work of its model, for the help text. Empty for a method that calls no model."""
    stand_ins: ClassVar[Mapping[str, str]] = {}
    """Role to the role whose models play it where it has none of its own."""
    embeds: ClassVar[bool] = False
    """Whether its models give vectors and write no text: each is named for its role, and takes no sampling options."""
    speaks_as_user: ClassVar[Sequence[str]] = ()
    """Roles that speak as the user. An endpoint only answers, so these need local weights or `sim`."""
    templates: ClassVar[tuple[str, ...]] = ()
    """Names of the prompt templates in use; their digests are part of the fingerprint."""
    kind: ClassVar[Kind[Record]] = PROMPTS
    """The kind of input rows."""
    reads_input: ClassVar[bool] = True
    """Whether there is an input file. A method without one is `endless`."""
    endless: ClassVar[bool] = False
    """Whether records come from `draw`, without end, instead of row by row from the input. Needs `-n`."""
    unique: ClassVar[tuple[str, ...]] = ("prompt", "response")
    """Fields that together differ in all accepted rows."""
    table_type: ClassVar[type[Table]] = Table
    """The class of the method's own counts; override `table` where it takes arguments."""
    reasons: ClassVar[Mapping[str, str]] = {}
    """What the reasons of rejected rows mean, and the way out where there is one: a sentence for each."""
    asks: ClassVar[Mapping[str, str]] = {}
    """What is asked for beside the rows, such as verdicts, as the funnel names what is missing of it: why it may be
    missing, and the way out, a sentence for each. Candidates carry the counts (`ask` in engine/unobtained.py)."""
    needs: ClassVar[Sequence[str]] = ()
    """Those of `asks` without which a run is in vain: if none of the first is obtained, it ends (engine/fold.py)."""
    judges_input: ClassVar[bool] = False
    """Whether a model judges the answers of the input rows."""

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
        """Return what decides the rows beyond the options, such as digests of files named inside an option.

        The keys and values go into the fingerprint, so they are JSON values.
        """
        return {}

    @property
    def plugins(self) -> Sequence[OutsideFunction]:
        """The functions of others that these options name; their digests are part of the fingerprint."""
        return ()

    @property
    def roles_in_use(self) -> Mapping[str, str]:
        """Those of `roles` that these options need."""
        return self.roles

    @property
    def next_step(self) -> str | None:
        """The command that usually takes the output, such as "evolve". None: it follows from the kind of the rows; "":
        there is none."""
        return None

    def read_input(
        self, name: str, file: BinaryIO, shape: str | None, mapping: Mapping[str, str] | None
    ) -> Reader[Record]:
        """Return the reader of the input; the arguments are those of Reader. Override it to read several kinds."""
        return Reader(name, file, self.kind, shape, mapping)

    def conflict(self, record: Record, llm: Roles) -> str | None:
        """Return why the models or the options cannot work on this record, with the way out; None if they can.

        If no record of the input can be worked on, the command is refused before the first request.
        """
        return None

    def notice(self, reader: Reader[Record]) -> str | None:
        """Return what a user should know of a run over this input before it begins; None if there is nothing."""
        return None

    def generate(self, record: Record, llm: Roles) -> AsyncIterator[Candidate]:
        """Yield the candidates of one record, in an order that does not depend on when its calls end.

        Args:
            record: One input row, or one record from `draw`.
            llm: The models by role; `await llm.chat(role, prompt, ...)` returns a `Completion`.

        Yields:
            At most `candidates` candidates, by `keep`, `reject` or `fail`. A CallFailed must not leave this function:
            yield `fail(...)` for it.
        """
        raise NotImplementedError

    def row_meta(self, record: Record, op: str | None = None, details: Row | None = None, **fields: Any) -> Row:
        """Return the `meta` of a candidate: where it comes from, how it is made, and the method's own fields.

        Args:
            record: The record that it is made from.
            op: How it is made, where the variant does not say it.
            details: What `op` alone does not say, such as the number of the round. These keys stand behind it.
            fields: The same keys for every candidate of the method. What is not known yet is None, and filled in later.
                A field may replace one of the common ones, such as `parents`.

        Returns:
            `method`, `op`, `details`, `pass`, the lineage (`parents`, `seed_id`, `source_id`), `templates` (name and
            digest of each of `row_templates`), then `fields`.
        """
        origin = {"method": self.name, "op": op or self.variant, **(details or {})}
        return {**origin, "pass": record.pass_no, **record.lineage, **self._templates_of_rows, **fields}

    @cached_property
    def _templates_of_rows(self) -> Row:
        """The key `templates` of `meta`, the same in all rows; nothing for a method without templates."""
        if not self.templates or self.row_templates is None:
            return {}
        return {"templates": self.name_templates(self.row_templates)}

    def name_templates(self, names: Iterable[str]) -> list[Row]:
        """Return the entries of templates in the key `templates` of `meta`."""
        return [{"name": name, "digest": self.prompts[name].digest} for name in names]

    @property
    def row_templates(self) -> tuple[str, ...] | None:
        """The templates that `row_meta` names. None: the method itself says which one a row was made with."""
        return self.templates

    @property
    def candidates(self) -> int:
        """The most candidates that one record yields."""
        return 1

    def bound(self, record: Record, llm: Roles) -> int:
        """Return the most calls that `generate` makes for a record, whatever the answers are; a call counts once,
        however often it is sent.

        With --max-calls, a record is begun only if the cap covers this number, times the attempts of a call.

        Args:
            record: One input row, or one record from `draw`.
            llm: The models by role, as `generate` gets them.
        """
        return 0

    def usual_calls(self, record: Record, llm: Roles) -> int:
        """Return the calls that `generate` makes for a record if every answer is good: for the time left and
        --dry-run."""
        return self.bound(record, llm)

    def memory(self) -> Sequence[Memory]:
        """Return the rules about a row and those accepted before it. `draw` receives the first of them."""
        return [Unique(*self.unique)]

    def late_rule(self) -> LateRule | None:
        """Return the rule about many rows at once, if there is one. It has no place beside `-n` and `lag`."""
        return None

    def table(self) -> Table:
        """Return the method's own counts, printed at the end beside the funnel."""
        return self.table_type()

    def draw(self, rows: Iterator[Record | BadLine], pool: GrowingMemory, seed: int) -> Iterator[Record | BadLine]:
        """Yield records without end, for an `endless` method.

        Args:
            rows: The input rows, read once.
            pool: The first memory. Rows may be added to it before the first record.
            seed: The random seed of the run.
        """
        raise NotImplementedError

    def finish(self, result: Row) -> None:
        """Called once the files of a finished run are in place, with `result` of x.meta.json."""
