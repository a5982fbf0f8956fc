"""The fold: takes candidates in input order and decides what becomes of each. Everything that remembers is here.

Nothing in it waits and nothing in it looks at the clock, so the same candidates in the same order give the same files.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from datagen.engine.method import Memory, Table
from datagen.engine.output import Output
from datagen.records.record import BadLine, Candidate, Row, Usage, reject

CANDIDATES_PER_ROW = 10
"""Under `-n`, the most candidates per row asked for."""
STALL = 200
"""Under `-n`, candidates in a row without a kept one."""
FoldEnd = Literal["enough", "stall", "failures"]


@dataclass
class Funnel:
    """Where every candidate ended."""

    asked: int = 0
    kept: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    """By rule."""
    failed: Counter[str] = field(default_factory=Counter)
    """By error."""
    unreadable: int = 0
    """Input lines, counted apart."""

    def check(self, rows: int, dropped: int) -> None:
        """Nothing disappears: what was asked for is accounted for, and lies in the files."""
        told = self.rejected.total() + self.failed.total()
        if self.asked != self.kept + told or rows != self.kept or dropped != told + self.unreadable:
            raise AssertionError(f"the funnel does not add up: {self}, {rows} rows and {dropped} dropped written")

    def as_dict(self) -> Row:
        return {
            "asked": self.asked,
            "kept": self.kept,
            "rejected": dict(sorted(self.rejected.items())),
            "failed": dict(sorted(self.failed.items())),
            "unreadable": self.unreadable,
        }


class Listener(Protocol):
    """Whoever wants to know what goes wrong while it does."""

    def bad_line(self, bad: BadLine) -> None: ...

    def failed(self, candidate: Candidate) -> None: ...


class Fold:
    """Counts, writes, and says when the run has what it wants or never will."""

    def __init__(
        self,
        output: Output,
        table: Table,
        *,
        memory: Sequence[Memory],
        n: int | None,
        max_failed: int,
        listener: Listener,
    ) -> None:
        self.funnel, self.table, self.used = Funnel(), table, Usage()
        self.end: FoldEnd | None = None
        self._output, self.memory, self._n, self._max_failed = output, memory, n, max_failed
        self._listener = listener
        self._since_kept = 0

    @property
    def missing(self) -> float:
        """How many rows are still wanted."""
        return float("inf") if self._n is None else self._n - self.funnel.kept

    def add(self, candidate: Candidate) -> None:
        """Decide what a candidate becomes, write it, and see whether it was the last one."""
        if candidate.status == "kept" and (reason := self._drops(candidate.row)):
            candidate = _dropped(candidate, reason)
        self._count(candidate)
        if candidate.status == "kept":
            self._output.kept(candidate.row)
        else:
            self._output.dropped(candidate.row)
        if candidate.status == "failed":
            self._listener.failed(candidate)
        self.table.add(candidate)
        self.end = self._ending()

    def add_bad_line(self, bad: BadLine) -> None:
        """Keep an input line that cannot be used, with its reason."""
        self.funnel.unreadable += 1
        record = {"source": bad.source, "line": bad.line, "raw": bad.raw}
        self._output.dropped(reject(bad.reason, stage="read", record=record, reply=None, meta={}).row)
        self._listener.bad_line(bad)

    def _drops(self, row: Row) -> str | None:
        return next((reason for rule in self.memory if (reason := rule.drops(row))), None)

    def _count(self, candidate: Candidate) -> None:
        funnel = self.funnel
        funnel.asked += 1
        if candidate.status == "kept":
            funnel.kept += 1
            self._since_kept = 0
        else:
            (funnel.rejected if candidate.status == "rejected" else funnel.failed)[candidate.reason] += 1
            self._since_kept += 1
        self.used += candidate.usage

    def _ending(self) -> FoldEnd | None:
        if self.funnel.failed.total() > self._max_failed:
            return "failures"
        if self._n is None:
            return None
        if self.missing <= 0:
            return "enough"
        exhausted = self.funnel.asked >= CANDIDATES_PER_ROW * self._n or self._since_kept >= STALL
        return "stall" if exhausted else None


def _dropped(candidate: Candidate, reason: str) -> Candidate:
    row = candidate.row
    record = {"id": row["id"], "prompt": row.get("prompt")}
    dropped = reject(reason, stage="fold", record=record, reply=row.get("response"), meta=row["meta"])
    dropped.usage = candidate.usage
    return dropped
