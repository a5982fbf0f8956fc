"""The fold: takes candidates in input order and decides what becomes of each. All state between records is here.

It never waits and never reads the clock, so the same candidates in the same order give the same files.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from datagen.engine.method import Memory, Table
from datagen.engine.output import Output
from datagen.records.record import BadLine, Candidate, Row, Usage, reject

if TYPE_CHECKING:
    from datagen.engine.job import Job
    from datagen.engine.scheduler import Engine

CANDIDATES_PER_ROW = 10
"""With `-n`, the run ends after this many candidates per wanted row."""
STALL = 200
"""With `-n`, the run ends after this many candidates in a row of which none was accepted."""
FoldEnd = Literal["enough", "stall", "failures"]


class RunObserver(Protocol):
    """Callbacks of a run."""

    def begin(self, job: "Job", engine: "Engine") -> None:
        """The run begins, within its event loop."""

    def bad_line(self, bad: BadLine) -> None:
        """An input line could not be used."""

    def failure(self, candidate: Candidate) -> None:
        """A candidate failed."""


@dataclass
class Funnel:
    """The number of candidates by their outcome."""

    candidates: int = 0
    kept: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    """By rule."""
    failed: Counter[str] = field(default_factory=Counter)
    """By error."""
    unreadable: int = 0
    """Unusable input lines; they are no candidates."""

    def check(self, rows: int, rejected_rows: int) -> None:
        """Check that nothing was lost: each candidate has one outcome and was written.

        Args:
            rows: Lines in the file of rows.
            rejected_rows: Lines in the file of rejected rows.
        """
        dropped = self.rejected.total() + self.failed.total()
        if self.candidates != self.kept + dropped or rows != self.kept or rejected_rows != dropped + self.unreadable:
            raise AssertionError(f"the funnel does not add up: {self}, {rows} and {rejected_rows} lines written")

    def as_dict(self) -> Row:
        return {
            "asked": self.candidates,
            "kept": self.kept,
            "rejected": dict(sorted(self.rejected.items())),
            "failed": dict(sorted(self.failed.items())),
            "unreadable": self.unreadable,
        }


class Fold:
    """Counts and writes candidates, and says when the run has enough rows or will not get them.

    Args:
        output: Where rows go; open for writing.
        table: The method's own counts.
        memory: Rules about a row and all accepted before it; the first that names a reason rejects the row.
        n: The number of rows wanted, or None for all.
        max_failed: The most failed candidates.
        observer: Hears of failures and of bad lines.
    """

    def __init__(
        self,
        output: Output,
        table: Table,
        *,
        memory: Sequence[Memory],
        n: int | None,
        max_failed: int,
        observer: RunObserver,
    ) -> None:
        self.funnel, self.table, self.usage, self.memory = Funnel(), table, Usage(), memory
        self.end: FoldEnd | None = None
        """Why the run is to end."""
        self._output, self._observer, self._n, self._max_failed = output, observer, n, max_failed
        self._since_kept = 0

    @property
    def missing(self) -> float:
        """The number of rows still wanted."""
        return float("inf") if self._n is None else self._n - self.funnel.kept

    def add(self, candidate: Candidate) -> None:
        """Take the next candidate in order: decide, count, write, and decide whether the run ends with it."""
        funnel, row = self.funnel, candidate.row

        # 1. An accepted row may be rejected for what was accepted before it: a duplicate, a near-duplicate.
        if candidate.status == "kept":
            reason = next((reason for rule in self.memory if (reason := rule.drops(row))), None)
            if reason:
                usage, record = candidate.usage, {"id": row["id"], "prompt": row.get("prompt")}
                candidate = reject(reason, stage="fold", record=record, reply=row.get("response"), meta=row["meta"])
                candidate.usage = usage

        # 2. Count it and write it.
        funnel.candidates += 1
        self.usage += candidate.usage
        if candidate.status == "kept":
            funnel.kept += 1
            self._since_kept = 0
            self._output.write_row(candidate.row)
        else:
            (funnel.rejected if candidate.status == "rejected" else funnel.failed)[candidate.reason] += 1
            self._since_kept += 1
            self._output.write_rejected(candidate.row)
            if candidate.status == "failed":
                self._observer.failure(candidate)
        self.table.add(candidate)

        # 3. Decide whether the run ends here.
        if funnel.failed.total() > self._max_failed:
            self.end = "failures"
        elif self._n is not None:
            if funnel.kept >= self._n:
                self.end = "enough"
            elif funnel.candidates >= CANDIDATES_PER_ROW * self._n or self._since_kept >= STALL:
                self.end = "stall"

    def add_bad_line(self, bad: BadLine) -> None:
        """Write an unusable input line to the rejected rows, with its reason."""
        self.funnel.unreadable += 1
        record = {"source": bad.source, "line": bad.line, "raw": bad.raw}
        self._output.write_rejected(reject(bad.reason, stage="read", record=record, reply=None, meta={}).row)
        self._observer.bad_line(bad)
