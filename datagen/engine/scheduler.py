"""The engine: scheduling decides what is paid for and when; a fold in input order decides what is written.

Each record's candidates come from a task of its own, in whatever order the model answers. The fold (fold.py) takes them
in the order (pass, record, place) and holds all state between records: accepted rows, duplicates, `-n`, stops, the
funnel. So the rows do not depend on concurrency, crashes or what the journal already held.

Three numbers bound the work: requests in flight (the limiter), open records (begun and not finished), and the window
(begun and not written).
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, cast

from datagen.engine.ahead import Ahead
from datagen.engine.fold import CANDIDATES_PER_ROW, Fold, RunObserver
from datagen.engine.method import GrowingMemory, Method
from datagen.engine.options import RunOptions
from datagen.engine.output import Output
from datagen.engine.reasoning import KEEP, apply_reasoning
from datagen.errors import InputError, Outage, Queued, Stopped
from datagen.llm.model import ATTEMPTS, Roles
from datagen.llm.stack import Stack
from datagen.records.files import dump_line
from datagen.records.record import BadLine, Candidate, Record, Status
from datagen.records.usage import Usage

OPEN_PER_SLOT = 4
"""Open records for each request that may be in flight."""
WINDOW_PER_SLOT, LEAST_WINDOW = 16, 1_000
SLOTS_WITHOUT_MODEL = 64
"""Requests in flight assumed for a method that calls no model, so that many records are open together."""
MARGIN = 1.2
"""With `-n`, records are begun while the pending ones are expected to yield less than this times the missing rows."""


@dataclass(eq=False, slots=True)
class Slot:
    """A place in the order of the output: a record being worked on, or a bad line."""

    item: Record | BadLine | None
    """None once it waits for a batch: nothing of it is written in this run."""
    bound: int
    """The most calls that the record makes, attempts included."""
    usual: int = 0
    """The calls that it makes if every answer is good."""
    candidates: deque[Candidate] = field(default_factory=deque)
    """Yielded and not folded yet."""
    complete: bool = False
    """Whether all candidates have been yielded."""
    roles: Roles | None = None
    usage: Usage = Usage()
    """The part of `roles.used` that is assigned to candidates."""

    @property
    def bound_left(self) -> int:
        """The most calls that are still to come."""
        return max(0, self.bound - self.roles.used.calls) if self.roles else 0

    @property
    def usual_left(self) -> int:
        """The calls that are still to come if every answer is good."""
        return max(0, self.usual - self.roles.used.calls) if self.roles else 0


@dataclass(slots=True)
class QueuedRecords:
    """The records that wait for the answers of batches: they go on in a later run."""

    records: int = 0
    bound: int = 0
    """The most calls that they still make."""
    usual: int = 0
    """The calls that they still make if every answer is good."""

    def add(self, slot: Slot) -> None:
        self.records += 1
        self.bound += slot.bound_left
        self.usual += slot.usual_left


class Engine:
    """Runs one method over records.

    Args:
        method: Yields the candidates of each record.
        run: The options of the run.
        stack: The models.
        output: Where the rows go; open for writing.
        observer: Hears of failures and of bad lines.
        source: The name of the input, for bad lines.
    """

    ahead: "Ahead | None" = None
    """What workers elsewhere ask for, ahead of this engine."""

    def __init__(
        self, method: Method, run: RunOptions, stack: Stack, output: Output, observer: RunObserver, source: str = ""
    ) -> None:
        self.stack, self.stop = stack, stack.stop
        self._method, self._params, self._lag = method, (run.params, run.judge_params), method.lag
        self._reasoning = getattr(method.options, "reasoning", KEEP)
        self._capped = run.max_calls is not None
        self._source, self._strict = source, run.strict
        self._n, self._most_records = run.n, most_records(run.n)
        self.per_record = method.candidates
        """The most candidates of a record."""
        self.fold = Fold(
            output,
            method.table(),
            memory=method.memory(),
            late=method.late_rule(),
            n=run.n,
            max_failed=run.failure_limit if self._lag is None else 0,
            needs=method.needs,
            observer=observer,
        )
        self._slots: deque[Slot] = deque()
        self._open: set[Slot] = set()
        self.queued = QueuedRecords()
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self.stop.callbacks.append(self._changed.set)
        self._lengths: list[int] = []
        """The length of the growing memory after each number of folded records."""
        self.records = self.surplus = 0
        """Records begun; candidates yielded and not written: beyond `-n`, or after one that a stop left unfinished."""
        self.status_counts = Counter[Status]()
        """Candidates yielded so far, written or not, by status."""
        self._usage = self._candidate_usage = Usage()
        """Of the records that are not open any more; and of the candidates so far."""
        self._usual_calls = 0
        """Of all records so far, if every answer is good."""

    @property
    def usage(self) -> Usage:
        """Calls and tokens used so far, unfinished records included."""
        return sum((slot.roles.used for slot in self._open if slot.roles), self._usage)

    @property
    def cap(self) -> Literal["max_calls", "max_cost"]:
        """The cap that has stopped the run, if one has."""
        return "max_calls" if self.stack.purse.refused is None else "max_cost"

    def _end_before(self, usual: int) -> None:
        """End the run before another record: a cap does not cover it, or enough of them wait for batches."""
        if self.queued.records:
            self.stop.now("batch")
        elif self._is_affordable(usual):
            self.stop.now("cap")
        else:
            self.stack.purse.end(self.stack.purse.expected(usual))

    @property
    def waiting(self) -> int:
        """The number of candidates that are generated and not written yet: others come before them."""
        return self.status_counts.total() - self.fold.funnel.candidates

    def expected_calls(self, records: int | None) -> float | None:
        """Estimate the calls of the whole run; None if the number of records is not known.

        The mean over finished records, or with -n over rows; the usual number of calls counts as one more of these, so
        that there is an estimate from the start.

        Args:
            records: The number of input rows. With -n it is not used.
        """
        usual, calls = self._usual_calls / max(self.records, 1), self.usage.calls
        if self._n is not None:
            kept, per_candidate = self.status_counts["kept"] - self.fold.repeated, usual / self.per_record
            per_row = (self._candidate_usage.calls + per_candidate) / (kept + 1)
            return max(calls, self._n * per_row)
        if records is None:
            return None
        finished = self.records - len(self._open)
        per_record = (self._usage.calls + usual) / (finished + 1)
        return max(calls, records * per_record)

    async def run(self, items: Iterator[Record | BadLine]) -> None:
        """Work through the items until they or the run end; wait for every request in flight."""
        bound, usual, roles = 0, 0, None
        try:
            for item in items:
                if isinstance(item, Record):  # a bad line waits as the record before it would
                    if self.records == self._most_records:
                        break
                    roles = Roles(self.stack.models, item, *self._params)
                    bound, usual = self._method.bound(item, roles) * ATTEMPTS, self._method.usual_calls(item, roles)
                places = await self.ahead.wait() if self.ahead else None
                most = bound if places is None else places
                while not self.stop.reason and not self._may_begin(most, usual, is_covered=places is not None):
                    if not self._open:
                        self._end_before(usual)
                        break
                    self._changed.clear()
                    await self._changed.wait()
                if self.stop.reason:
                    break
                self._begin(item, most, usual, roles)
        except InputError as error:
            self.stop.now("error", error)
        while self._tasks:
            await asyncio.wait(self._tasks)
        self.fold.finish()
        if self.queued.records:
            self.stop.now("batch")
        elif self.records == self._most_records and self.fold.missing:
            self.stop.now("stall")  # a record without a candidate
        self.surplus = sum(len(slot.candidates) for slot in self._slots)
        if self.status_counts.total() != self.fold.funnel.candidates + self.surplus:
            raise AssertionError(f"{self.status_counts} candidates, {self.fold.funnel} written, {self.surplus} surplus")

    @property
    def pending(self) -> int:
        """The number of records and bad lines that are begun and not written."""
        return len(self._slots)

    @property
    def is_busy(self) -> bool:
        """Whether a record is open."""
        return bool(self._open)

    @property
    def reserved(self) -> int:
        """The most calls that the open records, and those in batches, still make."""
        return sum(slot.bound_left for slot in self._open) + self.queued.bound

    def wants(self, pending: int) -> bool:
        """Whether more records are to be begun, with -n: are so many pending ones expected to yield too few rows?"""
        funnel = self.fold.funnel
        rate = (funnel.kept + 1) / (funnel.candidates + 1)
        return pending * self.per_record * rate < MARGIN * self.fold.missing

    def window(self, slots: int) -> int:
        """Return how many records may be begun and not written, for so many requests in flight."""
        return max(WINDOW_PER_SLOT * slots, LEAST_WINDOW)

    def _may_begin(self, bound: int, usual: int, *, is_covered: bool = False) -> bool:
        """Whether a record that makes at most `bound` calls, and usually `usual`, may be begun now.

        Args:
            is_covered: The cap was found to cover it before a worker was asked for its answers, which are recorded.
        """
        waiting = len(self._slots)
        if self._open or self.queued.records:
            # Open records and window, in proportion to the requests in flight.
            if self._lag is not None and waiting >= self._lag:
                return False
            slots = self.stack.limit or SLOTS_WITHOUT_MODEL
            is_full = waiting >= self.window(slots) and not self.queued.records
            if len(self._open) >= OPEN_PER_SLOT * slots or is_full or not self.wants(waiting):
                return False
        elif self.records == 0:
            return True  # the first record is begun however low the cap is
        if is_covered:
            return True
        if not self._is_affordable(usual):
            return False
        if not self._capped:
            return True
        # With a cap: does it cover the bounds of all open records and of this one?
        cap = self.stack.budget.cap
        return cap.left() + cap.queued - self.reserved >= bound

    def _is_affordable(self, usual: int) -> bool:
        """Whether the cap in dollars covers what is expected of all open records and of one more.

        The bounds would leave most of the cap unused: few answers are as long as they may be, and few are asked for
        three times. So a record may be left unfinished where the run stops; what is recorded of it is free next time.
        """
        if self.stack.purse.most is None:
            return True
        rest = sum(slot.usual_left for slot in self._open) + self.queued.usual
        return self.stack.purse.covers(rest + usual)

    def _begin(self, item: Record | BadLine, bound: int, usual: int, roles: Roles | None) -> None:
        slot = Slot(item, bound, usual)
        self._slots.append(slot)
        if isinstance(item, BadLine):
            slot.complete = True
            self._advance()
            return
        if self._lag is not None:  # the record sees the memory as it stood when record i - lag was folded
            memory = cast(GrowingMemory, self.fold.memory[0])
            if not self._lengths:
                self._lengths.append(len(memory))
            item = replace(item, view=memory.view(self._lengths[max(0, self.records + 1 - self._lag)]))
        assert roles is not None
        self._usual_calls += usual
        self.records += 1
        slot.roles = roles
        self._open.add(slot)
        task = asyncio.get_running_loop().create_task(self._generate(slot, item, roles))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _generate(self, slot: Slot, record: Record, roles: Roles) -> None:
        """Collect one record's candidates."""
        try:
            async for generated in self._method.generate(record, roles):
                candidate = apply_reasoning(generated, self._reasoning)
                candidate.usage, slot.usage = roles.used - slot.usage, roles.used
                candidate.spending, roles.spending = roles.spending, {}
                self._candidate_usage += candidate.usage
                self.status_counts[candidate.status] += 1
                slot.candidates.append(candidate)
                self._advance()
            slot.complete = True
            self._advance()
        except Queued:
            self.queued.add(slot)
            slot.item = slot.roles = None  # so a million of them fit into the memory
        except Stopped:
            pass  # what is recorded is free next time; the order of the output ends before this record's rest
        except Outage as error:
            self.stop.now("outage", error)
        except InputError as error:
            self._refuse(slot, record, error)
        except BaseException as error:
            self.stop.now("error", error)
        finally:
            self._usage += roles.used
            self._open.discard(slot)
            self._changed.set()
            if self.ahead is not None:
                self.ahead.look()

    def _refuse(self, slot: Slot, record: Record, error: InputError) -> None:
        """Make a bad line of a record whose method cannot read it: the rows behind it are good."""
        if self._strict:
            self.stop.now("error", error)
            return
        slot.item = BadLine(self._source, record.line, str(error), dump_line(record.row).decode().rstrip())
        self.records -= 1
        slot.complete = True
        self._advance()

    def _advance(self) -> None:
        """Fold the candidates that are next in order."""
        fold = self.fold
        while self._slots and not fold.end:
            slot = self._slots[0]
            while slot.candidates and not fold.end:
                fold.add(slot.candidates[0])
                slot.candidates.popleft()  # behind it: one that ends the run by an error is surplus
            if not slot.complete or slot.candidates:
                break
            if isinstance(slot.item, BadLine):
                fold.add_bad_line(slot.item)
            elif self._lag is not None:
                self._lengths.append(len(cast(GrowingMemory, fold.memory[0])))
            self._slots.popleft()
        if fold.end:
            self.stop.now(fold.end)


def most_records(n: int | None) -> int | None:
    """Return how many records a run with -n may begin: each has a candidate or more, so no other would be written."""
    return None if n is None else CANDIDATES_PER_ROW * n


def read_passes(
    read: Callable[[], Iterator[Record | BadLine]], *, seed: int, limit: int | None, again: bool, strict: bool
) -> Iterator[Record | BadLine]:
    """Read the input once or, with `again`, over and over; bad lines are yielded in the first pass only."""
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
