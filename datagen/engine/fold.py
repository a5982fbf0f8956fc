"""The fold: takes candidates in input order and decides what becomes of each. All state between records is here.

It never waits and never reads the clock, so the same candidates in the same order give the same files.
"""

from collections import Counter, deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from datagen.engine.method import LateRule, Memory, Table, Unique, Verdict
from datagen.engine.output import Output
from datagen.records.layout import pack_rejected, pack_row
from datagen.records.record import BadLine, Candidate, Row, reject
from datagen.records.usage import Purpose, Usage

if TYPE_CHECKING:
    from datagen.engine.job import Job
    from datagen.engine.scheduler import Engine

CANDIDATES_PER_ROW = 10
"""With `-n`, the run ends after this many candidates per wanted row."""
STALL = 200
"""With `-n`, the run ends after this many candidates in a row of which none was accepted."""
FEW = 100
"""A share of failed candidates ends no run before it has as many candidates."""
IN_VAIN = 20
"""Of what a method cannot do without (`Method.needs`), so many are asked for; if none is obtained, the run ends."""
FoldEnd = Literal["enough", "stall", "failures", "in vain"]


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
    asks: Counter[str] = field(default_factory=Counter)
    """What was asked for beside the rows, by name."""
    missing: Counter[str] = field(default_factory=Counter)
    """What was not obtained of it."""

    def is_in_vain(self, name: str) -> bool:
        """Whether so much of something was asked for, and none of it obtained, that no more is to be expected."""
        return IN_VAIN <= self.asks[name] == self.missing[name]

    def add_asked(self, candidate: Candidate) -> None:
        """Count what was asked for on the way to a candidate."""
        for name, (total, missing) in candidate.asks.items():
            self.asks[name] += total
            self.missing[name] += missing

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
            "unobtained": {
                name: {"asked": self.asks[name], "missing": self.missing[name]} for name in sorted(self.asks)
            },
        }


def most_failed(limit: int | float, candidates: int) -> float:
    """Return how many of some candidates may fail; `limit` as in RunOptions.failure_limit."""
    return limit * candidates if isinstance(limit, float) else limit


class Fold:
    """Counts and writes candidates, and says when the run has enough rows or will not get them.

    Args:
        output: Where rows go; open for writing.
        table: The method's own counts.
        memory: Rules about a row and all accepted before it; the first that names a reason rejects the row.
        late: The rule about many accepted rows at once, if there is one.
        n: The number of rows wanted, or None for all.
        max_failed: The most failed candidates: a number, or as a float the share of all so far.
        needs: What the method cannot do without (`Method.needs`).
        observer: Hears of failures and of bad lines.
    """

    def __init__(
        self,
        output: Output,
        table: Table,
        *,
        memory: Sequence[Memory],
        late: LateRule | None = None,
        n: int | None,
        max_failed: int | float,
        needs: Collection[str] = (),
        observer: RunObserver,
    ) -> None:
        self.funnel, self.table, self.usage, self.memory = Funnel(), table, Usage(), memory
        self.spending: dict[tuple[int | None, Purpose], Usage] = {}
        """The parts of `usage`, by round and purpose."""
        self.repeated = 0
        """Candidates that passed their own rules and were rejected for an earlier row."""
        self.end: FoldEnd | None = None
        """Why the run is to end."""
        self._output, self._observer, self._n, self._max_failed = output, observer, n, max_failed
        self._needs, self._late = needs, late
        self._held: deque[Candidate] = deque()
        """Candidates that the late rule has not decided about."""
        self._twins: dict[str, str] = {}
        """Of the row being evolved: its versions that were duplicates, to the rows that they repeat."""
        self._since_kept = 0

    @property
    def missing(self) -> float:
        """The number of rows still wanted."""
        return float("inf") if self._n is None else self._n - self.funnel.kept

    def add(self, candidate: Candidate) -> None:
        """Take the next candidate in order: decide, count, write, and decide whether the run ends with it."""
        candidate.row = row = self._with_parents_that_exist(candidate.row)

        # 1. An accepted row may be rejected for what was accepted before it: a duplicate, a near-duplicate.
        if candidate.status == "kept":
            reason = next((reason for rule in self.memory if (reason := rule.drops(row))), None)
            if reason:
                self._remember_twin(row["id"])
                candidate = self._drop(candidate, Verdict(reason, {}))
            elif self._late is not None:
                self._late.add(row)
                self._held.append(candidate)
                self._settle(is_last=False)
                return
        self._take(candidate)

    def finish(self) -> None:
        """Decide about the rows that the late rule holds: there are no more."""
        if self._late is not None:
            self._settle(is_last=True)

    def _settle(self, *, is_last: bool) -> None:
        """Take the candidates that the late rule has decided about."""
        assert self._late is not None
        for verdict in self._late.decided(is_last=is_last):
            candidate = self._held.popleft()
            self._take(candidate if verdict.reason is None else self._drop(candidate, verdict))

    def _drop(self, candidate: Candidate, verdict: Verdict) -> Candidate:
        """Return an accepted candidate as one that is rejected for other rows."""
        row, reason = candidate.row, str(verdict.reason)
        record = {name: value for name, value in row.items() if name != "meta"} | verdict.evidence
        dropped = reject(reason, stage="fold", record=record, reply=row.get("response"), meta=row["meta"])
        dropped.usage, dropped.spending, dropped.asks = candidate.usage, candidate.spending, candidate.asks
        self.repeated += 1
        return dropped

    def _take(self, candidate: Candidate) -> None:
        """Count a candidate, write it, and decide whether the run ends with it."""
        # 2. Count it and write it.
        funnel = self.funnel
        funnel.candidates += 1
        funnel.add_asked(candidate)
        self._add_usage(candidate)
        if candidate.status == "kept":
            funnel.kept += 1
            self._since_kept = 0
            self._output.write_row(pack_row(candidate.row))
        else:
            (funnel.rejected if candidate.status == "rejected" else funnel.failed)[candidate.reason] += 1
            self._since_kept += 1
            self._output.write_rejected(pack_rejected(candidate.row))
            if candidate.status == "failed":
                self._observer.failure(candidate)
        self.table.add(candidate)

        # 3. Decide whether the run ends here.
        if funnel.failed.total() > most_failed(self._max_failed, max(funnel.candidates, FEW)):
            self.end = "failures"
        elif any(map(funnel.is_in_vain, self._needs)):
            self.end = "in vain"
        elif self._n is not None:
            if funnel.kept >= self._n:
                self.end = "enough"
            elif funnel.candidates >= CANDIDATES_PER_ROW * self._n or self._since_kept >= STALL:
                self.end = "stall"

    def _remember_twin(self, name: str) -> None:
        """Note which row a duplicate repeats: rows that are made from it get that one as their parent."""
        twin = next((rule.twin for rule in self.memory if isinstance(rule, Unique)), None)
        self._twins |= {name: twin} if twin else {}

    def _with_parents_that_exist(self, row: Row) -> Row:
        """Return a row whose parents are rows that were written. Versions of one row come one after another."""
        parents = row["meta"].get("parents") or []
        if self._twins.keys().isdisjoint(parents):
            self._twins = {}
            return row
        return row | {"meta": row["meta"] | {"parents": [self._twins.get(name, name) for name in parents]}}

    def _add_usage(self, candidate: Candidate) -> None:
        """Count the answers behind a candidate, by what they were for."""
        self.usage += candidate.usage
        number = candidate.row["meta"].get("round")
        for purpose, usage in candidate.spending.items():
            part = (number if isinstance(number, int) else None, purpose)
            self.spending[part] = self.spending.get(part, Usage()) + usage

    def spending_rows(self) -> list[Row]:
        """Return the parts of the usage for x.meta.json, in an order of their own."""
        return [
            {**purpose._asdict(), **({} if number is None else {"round": number}), **usage.as_row()}
            for (number, purpose), usage in sorted(
                self.spending.items(), key=lambda part: (part[0][1], -1 if part[0][0] is None else part[0][0])
            )
        ]

    def add_bad_line(self, bad: BadLine) -> None:
        """Write an unusable input line to the rejected rows, with its reason."""
        self.funnel.unreadable += 1
        record = {"source": bad.source, "line": bad.line, "raw": bad.raw}
        row = reject(bad.reason, stage="read", record=record, reply=None, meta={}).row
        self._output.write_rejected(pack_rejected(row))
        self._observer.bad_line(bad)
