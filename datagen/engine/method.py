"""What a generator's file says about itself: one METHOD constant, which the table of commands names.

A command that can go several ways (`respond --strategy`) has a table METHODS, one Method for each way.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from datagen.llm.model import Roles
from datagen.prompts import Prompts
from datagen.records.reader import PROMPTS, Kind
from datagen.records.record import BadLine, Candidate, Record, Row, Seen

Generate = Callable[[Record, Roles, Prompts, Any], AsyncIterator[Candidate]]


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


@dataclass(frozen=True, slots=True)
class Method:
    """A way to make rows."""

    name: str
    generate: Generate
    """Yields a record's candidates in a fixed order, whatever order its calls end in."""
    options: type
    """A frozen dataclass: its annotated fields are the command's options."""
    roles: Mapping[str, str]
    """Role to what it does; none for a method that asks no model."""
    templates: tuple[str, ...]
    """The prompts it uses."""
    candidates: Callable[[Any], int]
    """The most candidates that one record yields, given the options."""
    calls: Callable[[Any], int]
    """The most calls that one record makes if every answer is good."""
    memory: Callable[[Any], Sequence[Memory]]
    """What the fold remembers, given the options."""
    next_command: Callable[[Any], str]
    """What to do with the output; {} stands for its name."""
    table: Callable[[Any], Table] = lambda options: NoTable()
    kind: Kind[Record] = PROMPTS
    """What it reads."""
    reads: bool = True
    """Is there an input? A method without one has `draws`."""
    speaks: Sequence[str] = ()
    """Roles that speak as the user. An endpoint only answers, so it can play none of them."""
    draws: Callable[[Iterator[Record | BadLine], Growing, Any, int], Iterator[Record | BadLine]] | None = None
    """Makes the records, without end, of what it reads, a growing memory, the options and the seed. None: they are the
    rows of the input."""
    lag: Callable[[Any], int | None] = lambda options: None
    """A record opens when the one so many before it is folded, and sees the first memory as it stood then. None:
    records see nothing of each other."""
    way: str = ""
    """Which of a command's ways this is."""
    after: Callable[[Any, Row], None] = lambda options, result: None
    """Does what is left to do with the result of a finished run, given the options."""
    prepare: Callable[[Any], None] = lambda options: None
    """Raises InputError if the options do not fit, before anything is sent; reads the files that they name."""
