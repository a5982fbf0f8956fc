"""The engine: scheduling decides what is paid and when, a fold in input order decides what is written.

Every record's candidates come from a task of its own, in whatever order the model answers. One function folds them in
the order (pass, record, place), and whatever remembers lives in that fold (fold.py): what is kept so far, duplicates,
`-n`, stops, the funnel. So the rows do not depend on concurrency, crashes or what the journal already held.

Three numbers bound the work: requests in flight (the limiter), records open (begun and not finished), and the window
(begun and not written).
"""

import asyncio
import gc
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, cast

from datagen.engine.fold import Fold
from datagen.engine.method import Growing, Method
from datagen.errors import InputError, Outage, Stopped
from datagen.llm.model import ATTEMPTS, Roles
from datagen.llm.stack import Stack
from datagen.records.record import BadLine, Candidate, Record, Status, Usage

OPEN_PER_SLOT = 4
SLOTS_UNASKED = 64
"""Stand for the requests in flight where no model is asked: enough records open to work on many together."""
WINDOW_PER_SLOT, LEAST_WINDOW = 16, 1_000
MARGIN = 1.2
"""Under `-n`, begin records while those pending are expected to yield less than this share of what is missing."""


COLLECT_AFTER = 50_000, 20, 100
"""The collector's thresholds: thousands of open calls are no garbage, and going through them took a fifth of a run."""


def tune_collector() -> None:
    """Tell the garbage collector, once before a run, what it need not look at: all that start-up made."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)


@dataclass(eq=False, slots=True)
class Slot:
    """A place in the order of the output: a record under way, or a bad line."""

    item: Record | BadLine
    ready: deque[Candidate] = field(default_factory=deque)
    done: bool = False
    roles: Roles | None = None
    bound: int = 0
    """The most calls that the record makes, each with all its attempts."""
    counted: Usage = Usage()


class Engine:
    """Runs one method over records."""

    def __init__(self, method: Method, stack: Stack, fold: Fold, params: dict[str, Any]) -> None:
        """`params` are the user's sampling parameters."""
        self._method, self._params = method, params
        self.stack, self.fold, self.stop = stack, fold, stack.stop
        self.per_record = method.candidates()
        self._slots: deque[Slot] = deque()
        self._open: set[Slot] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self.stop.call(self._changed.set)
        self._lag = method.lag()
        self._grown: list[int] = []
        """How long the growing memory was, after so many records were folded."""
        self.records = 0
        self.produced = Counter[Status]()
        self.answered = Usage()
        """What was used so far, by records that are not finished, too."""

    @property
    def surplus(self) -> int:
        """Candidates made and not written: beyond `-n`, or behind one that a stop left unfinished."""
        return sum(len(slot.ready) for slot in self._slots)

    def check(self) -> None:
        """Nothing disappears: what was made was written or is surplus."""
        if self.produced.total() != self.fold.funnel.asked + self.surplus:
            raise AssertionError(f"{self.produced} candidates made, {self.fold.funnel} written, {self.surplus} surplus")

    async def run(self, items: Iterator[Record | BadLine]) -> None:
        """Go through the items until they or the run end; every request in flight is waited for."""
        try:
            await self._begin_all(items)
        except InputError as error:
            self.stop.now("error", error)
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _begin_all(self, items: Iterator[Record | BadLine]) -> None:
        bound = 0
        for item in items:
            if isinstance(item, Record):  # a bad line waits as the record before it would
                bound = self._method.bound(item) * ATTEMPTS
            while not self.stop.reason and not self._may_begin(bound):
                if not self._open:
                    self.stop.now("cap")
                    break
                self._changed.clear()
                await self._changed.wait()
            if self.stop.reason:
                break
            self._begin(item, bound)

    def _may_begin(self, bound: int) -> bool:
        if not self._open:  # under -n one more is wanted; under a cap the first gets its chance, however low the cap
            return self.records == 0 or self._is_covered(bound)
        if self._lag is not None and len(self._slots) >= self._lag:
            return False
        slots = self.stack.limit or SLOTS_UNASKED
        if len(self._open) >= OPEN_PER_SLOT * slots:
            return False
        if len(self._slots) >= max(WINDOW_PER_SLOT * slots, LEAST_WINDOW):
            return False
        return self._is_wanted() and self._is_covered(bound)

    def _is_wanted(self) -> bool:
        """Under `-n`: are the pending records expected to yield too little?"""
        funnel = self.fold.funnel
        rate = (funnel.kept + 1) / (funnel.asked + 1)
        return len(self._slots) * self.per_record * rate < MARGIN * self.fold.missing

    def _is_covered(self, bound: int) -> bool:
        """Under a cap: does it cover the bound of every record begun, and of one more?"""
        left = self.stack.budget.left()
        if left == float("inf"):
            return True
        promised = sum(max(0, slot.bound - slot.roles.used.calls) for slot in self._open if slot.roles)
        return left - promised >= bound

    def _begin(self, item: Record | BadLine, bound: int) -> None:
        slot = Slot(item, bound=bound)
        self._slots.append(slot)
        if isinstance(item, BadLine):
            slot.done = True
            self._advance()
            return
        if self._lag is not None:
            item = replace(item, view=self._view(self._lag))
        self.records += 1
        slot.roles = Roles(self.stack.models, item, self._params, self._count)
        self._open.add(slot)
        task = asyncio.get_running_loop().create_task(self._drive(slot, item, slot.roles))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _count(self, usage: Usage) -> None:
        self.answered += usage

    def _view(self, lag: int) -> Any:
        """Return the growing memory as it stood when the record `lag` before the next one was folded."""
        memory = cast(Growing, self.fold.memory[0])
        if not self._grown:
            self._grown.append(len(memory))
        return memory.view(self._grown[max(0, self.records + 1 - lag)])

    async def _drive(self, slot: Slot, record: Record, roles: Roles) -> None:
        """Make one record's candidates."""
        try:
            async for candidate in self._method.generate(record, roles):
                candidate.usage, slot.counted = roles.used - slot.counted, roles.used
                self.produced[candidate.status] += 1
                slot.ready.append(candidate)
                self._advance()
            slot.done = True
            self._advance()
        except Stopped:
            pass  # what is recorded is free next time; the order of the output ends before this record's rest
        except Outage as error:
            self.stop.now("outage", error)
        except BaseException as error:
            self.stop.now("error", error)
        finally:
            self._open.discard(slot)
            self._changed.set()

    def _advance(self) -> None:
        """Fold what is next in order."""
        while self._slots and not self.fold.end:
            slot = self._slots[0]
            while slot.ready and not self.fold.end:
                self.fold.add(slot.ready.popleft())
            if not slot.done or slot.ready:
                break
            if isinstance(slot.item, BadLine):
                self.fold.add_bad_line(slot.item)
            elif self._lag is not None:
                self._grown.append(len(cast(Growing, self.fold.memory[0])))
            self._slots.popleft()
        if self.fold.end:
            self.stop.now(self.fold.end)


def passes(
    read: Callable[[], Iterator[Record | BadLine]], *, seed: int, limit: int | None, again: bool, strict: bool
) -> Iterator[Record | BadLine]:
    """Go through the input once, or (`again`) over and over; bad lines come up in the first pass alone."""
    pass_no, count = 0, 1
    while count and (again or pass_no == 0):
        count = 0
        for item in read():
            if isinstance(item, BadLine):
                if strict:
                    raise InputError(str(item))
                if pass_no == 0:
                    yield item
            elif limit is not None and count >= limit:
                break
            else:
                count += 1
                yield item.for_pass(pass_no, seed)
        pass_no += 1
