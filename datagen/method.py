"""What a generator's file says about itself: one METHOD constant, which the table of commands names."""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from datagen.llm.chat import Roles
from datagen.prompts import Prompts
from datagen.rows import Candidate, Record

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


@dataclass(frozen=True, slots=True)
class Method:
    """A way to make rows."""

    name: str
    generate: Generate
    """Yields a record's candidates in a fixed order, whatever order its calls end in."""
    options: type
    """A frozen dataclass: its annotated fields are the command's options."""
    roles: Mapping[str, str]
    """Role to what it does."""
    templates: tuple[str, ...]
    """The prompts it uses."""
    candidates: Callable[[Any], int]
    """The most candidates that one record yields, given the options."""
    calls: Callable[[Any], int]
    """The most calls that one record makes if every answer is good."""
    unique: tuple[str, ...]
    """The fields that no two rows may share."""
    table: Callable[[], Table]
    next_command: str
    """What to do with the output; {} stands for its name."""
