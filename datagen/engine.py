"""The engine: scheduling decides what is paid and when, a fold in input order decides what is written.

Every record's candidates come from a task of its own, in whatever order the model answers. One function folds them in
the order (pass, record, place), and whatever remembers lives in that fold: what is kept so far, duplicates, `-n`,
stops, the funnel. So the rows do not depend on concurrency, crashes or what the journal already held.

Three numbers bound the work: requests in flight (the limiter), records open (begun and not finished), and the window
(begun and not written).
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from datagen.errors import CallFailed, InputError, Outage, Stopped
from datagen.files import Output
from datagen.llm.budget import Budget
from datagen.llm.chat import Roles
from datagen.llm.limiter import Limiter
from datagen.llm.stop import Stop, StopReason
from datagen.method import Method, Table
from datagen.prompts import Prompts
from datagen.rows import BadLine, Candidate, Record, Row, Seen, failed, rejected, request_text

OPEN_PER_SLOT = 4
WINDOW_PER_SLOT, LEAST_WINDOW = 16, 1_000
MARGIN = 1.2
"""Under `-n`, begin records while those pending are expected to yield less than this share of what is missing."""
CANDIDATES_PER_ROW = 10
"""Under `-n`, the most candidates per row asked for."""
STALL = 200
"""Under `-n`, candidates in a row without a kept one."""
FoldEnd = Literal["enough", "stall", "failures"]


@dataclass
class Funnel:
    """Where every candidate ended."""

    kept: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    unreadable: int = 0
    """Input lines, counted apart."""

    @property
    def asked(self) -> int:
        return self.kept + self.rejected.total() + self.failed.total()

    def as_dict(self) -> Row:
        return {
            "asked": self.asked,
            "kept": self.kept,
            "rejected": dict(sorted(self.rejected.items())),
            "failed": dict(sorted(self.failed.items())),
            "unreadable": self.unreadable,
        }


class Fold:
    """Takes candidates in input order; everything that remembers is here."""

    def __init__(self, output: Output, table: Table, n: int | None, max_failed: int) -> None:
        self.funnel, self.table = Funnel(), table
        self.used = Counter[str]()
        """Calls and tokens of what was folded."""
        self.end: FoldEnd | None = None
        self._output, self._n, self._max_failed = output, n, max_failed
        self._prompts = Seen()
        self._since_kept = 0

    @property
    def missing(self) -> float:
        """How many rows are still wanted."""
        return float("inf") if self._n is None else self._n - self.funnel.kept

    def add(self, candidate: Candidate) -> None:
        """Decide what a candidate becomes, write it, and see whether it was the last one."""
        if candidate.status == "kept" and not self._prompts.add(candidate.row["prompt"]):
            candidate = _as_duplicate(candidate)
        self._count(candidate)
        if candidate.status == "kept":
            self._output.kept(candidate.row)
        else:
            self._output.dropped(candidate.row)
        self.table.add(candidate)
        self.end = self._ending()

    def add_bad_line(self, bad: BadLine) -> None:
        self.funnel.unreadable += 1
        record = {"source": bad.source, "line": bad.line, "raw": bad.raw}
        self._output.dropped(rejected(bad.reason, stage="read", record=record, reply=None, meta={}).row)

    def _count(self, candidate: Candidate) -> None:
        funnel = self.funnel
        if candidate.status == "kept":
            funnel.kept += 1
            self._since_kept = 0
        else:
            (funnel.rejected if candidate.status == "rejected" else funnel.failed)[candidate.reason] += 1
            self._since_kept += 1
        self.used["calls"] += candidate.calls
        self.used["prompt_tokens"] += candidate.prompt_tokens
        self.used["completion_tokens"] += candidate.completion_tokens

    def _ending(self) -> FoldEnd | None:
        if self.funnel.failed.total() > self._max_failed:
            return "failures"
        if self._n is None:
            return None
        if self.missing <= 0:
            return "enough"
        exhausted = self.funnel.asked >= CANDIDATES_PER_ROW * self._n or self._since_kept >= STALL
        return "stall" if exhausted else None


def _as_duplicate(candidate: Candidate) -> Candidate:
    row = candidate.row
    record = {"id": row["id"], "prompt": row["prompt"]}
    dropped = rejected("duplicate", stage="fold", record=record, reply=row.get("response"), meta=row["meta"])
    dropped.calls = candidate.calls
    dropped.prompt_tokens, dropped.completion_tokens = candidate.prompt_tokens, candidate.completion_tokens
    return dropped


@dataclass(eq=False)
class Slot:
    """A place in the order of the output: a record under way, or a bad line."""

    item: Record | BadLine
    ready: deque[Candidate] = field(default_factory=deque)
    done: bool = False
    roles: Roles | None = None


class Engine:
    """Runs one method over records."""

    def __init__(
        self,
        method: Method,
        options: Any,
        prompts: Prompts,
        roles: Callable[[Record], Roles],
        fold: Fold,
        stop: Stop,
        budget: Budget,
        limiters: Iterable[Limiter],
    ) -> None:
        self._method, self._options, self._prompts, self._roles = method, options, prompts, roles
        self.fold, self.stop, self.budget, self.limiters = fold, stop, budget, list(limiters)
        self._per_record, self._bound = method.candidates(options), method.calls(options)
        self._slots: deque[Slot] = deque()
        self._open: set[Slot] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        stop.call(self._changed.set)
        self.records = self.produced = 0

    @property
    def surplus(self) -> int:
        """Candidates made and not written: beyond `-n`, or behind one that a stop left unfinished."""
        return self.produced - self.fold.funnel.asked

    async def run(self, items: Iterator[Record | BadLine]) -> None:
        """Go through the items until they or the run end; every request in flight is waited for."""
        for item in items:
            while not self.stop.reason and not self._may_begin():
                self._changed.clear()
                await self._changed.wait()
            if self.stop.reason:
                break
            self._begin(item)
        while self._tasks:
            await asyncio.wait(self._tasks)
        self._advance()

    def _may_begin(self) -> bool:
        if not self._open:
            return True
        slots = sum(int(limiter.limit) for limiter in self.limiters)
        if len(self._open) >= OPEN_PER_SLOT * slots:
            return False
        if len(self._slots) >= max(WINDOW_PER_SLOT * slots, LEAST_WINDOW):
            return False
        return self._is_wanted() and self._is_covered()

    def _is_wanted(self) -> bool:
        """Under `-n`: are the pending records expected to yield too little?"""
        funnel = self.fold.funnel
        rate = (funnel.kept + 1) / (funnel.asked + 1)
        return len(self._slots) * self._per_record * rate < MARGIN * self.fold.missing

    def _is_covered(self) -> bool:
        """Under a cap: does it cover the bound of every record begun, and of one more?"""
        left = self.budget.left()
        if left == float("inf"):
            return True
        used = (slot.roles.tally.calls for slot in self._open if slot.roles)
        promised = sum(max(0, self._bound - calls) for calls in used)
        return left - promised >= self._bound

    def _begin(self, item: Record | BadLine) -> None:
        slot = Slot(item)
        self._slots.append(slot)
        if isinstance(item, BadLine):
            slot.done = True
            self._advance()
            return
        self.records += 1
        slot.roles = self._roles(item)
        self._open.add(slot)
        task = asyncio.get_running_loop().create_task(self._drive(slot, item, slot.roles))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _drive(self, slot: Slot, record: Record, roles: Roles) -> None:
        """Make one record's candidates."""
        try:
            async for candidate in self._method.generate(record, roles, self._prompts, self._options):
                self._take(slot, candidate)
            slot.done = True
        except Stopped:
            pass  # what is recorded is free next time; the order of the output ends before this record's rest
        except CallFailed as error:
            self._take(slot, _failure(error, record))
            slot.done = True
        except Outage as error:
            self.stop.now("outage", error)
        except BaseException as error:
            self.stop.now("error", error)
        finally:
            self._open.discard(slot)
            self._advance()
            self._changed.set()

    def _take(self, slot: Slot, candidate: Candidate) -> None:
        """Receive a candidate, with what was used since the one before it."""
        if slot.roles:
            tally = slot.roles.tally
            candidate.calls, candidate.prompt_tokens = tally.calls, tally.prompt_tokens
            candidate.completion_tokens = tally.completion_tokens
            for earlier in (slot.roles.counted,):
                candidate.calls -= earlier.calls
                candidate.prompt_tokens -= earlier.prompt_tokens
                candidate.completion_tokens -= earlier.completion_tokens
        self.produced += 1
        slot.ready.append(candidate)
        self._advance()

    def _advance(self) -> None:
        """Fold what is next in order."""
        while self._slots and not self.fold.end:
            slot = self._slots[0]
            while slot.ready and not self.fold.end:
                self.fold.add(slot.ready.popleft())
            if isinstance(slot.item, BadLine):
                self.fold.add_bad_line(slot.item)
            if not slot.done or slot.ready:
                break
            self._slots.popleft()
        if self.fold.end:
            self.stop.now(self.fold.end)


def _failure(error: CallFailed, record: Record) -> Candidate:
    """A failure that the method itself did not place."""
    about = {"id": record.id, "prompt": request_text(record.prompt)}
    return failed(error.reason, stage=error.stage, record=about, reply=error.reply, meta={})


def passes(
    read: Callable[[], Iterator[Record | BadLine]], *, seed: int, limit: int | None, again: bool, strict: bool
) -> Iterator[Record | BadLine]:
    """Go through the input once, or (`again`) over and over; bad lines come up in the first pass alone."""
    pass_no = 0
    while True:
        count = 0
        for item in read():
            if limit is not None and count >= limit:
                break
            if isinstance(item, Record):
                count += 1
                yield item.asked(pass_no, seed)
            elif strict:
                raise InputError(str(item))
            elif pass_no == 0:
                yield item
        if not again or not count:
            return
        pass_no += 1


__all__ = ["Engine", "Fold", "Funnel", "StopReason", "passes"]
