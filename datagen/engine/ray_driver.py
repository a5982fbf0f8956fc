"""The driver of `--ray`: hands records to workers, records the segments that they ship, and lets the engine follow.

The engine of the command replays the records in their order, as without workers. Each record waits until a worker has
asked for its answers, which are then recorded here. So all that is decided is decided by the same fold: rows, rejected
rows, `-n`, and where a cap ends the run. What the workers could not get, the engine asks for itself.

What is handed out is what one machine would begin. With `-n`: while the pending records are expected to yield too few
rows. With `--max-calls`: while the cap covers the most calls of all records before and of this one. With `--max-cost`
each worker has a lease of dollars. A worker that is lost is replaced, and its records are handed out again; what it may
have paid for without a record counts towards the caps, and is noted in the journal before it is sent, so that it counts
if the driver is lost.
"""

import asyncio
from collections import deque
from collections.abc import Iterator, Mapping
from decimal import ROUND_DOWN, Decimal
from heapq import heappop, heappush

import datagen
from datagen.engine.job import Job
from datagen.engine.ray_crew import Crew, Entry, Recorded, Seat, State
from datagen.engine.ray_worker import UNSETTLED_PER_SLOT, Assignment, Order, Report, Worker
from datagen.engine.scheduler import OPEN_PER_SLOT, Engine, most_records
from datagen.errors import DatagenError, InputError, Outage, Stopped
from datagen.llm.budget import Stop
from datagen.llm.call import Reply
from datagen.llm.claims import Name
from datagen.llm.limiter import ADAPTIVE_START
from datagen.llm.model import ATTEMPTS, Model, Roles
from datagen.llm.purse import Purse
from datagen.llm.stack import Stack
from datagen.records.record import BadLine, Record
from datagen.text import count_of

START_TIMEOUT = 300.0
"""Seconds that a worker may take to start."""
MOST_LOSSES = 5
"""Times in a row that a worker is lost before it has shipped anything, after which its place stays empty."""
CENT = Decimal("1e-12")
"""Dollars are leased in whole numbers of so many."""


class Driver:
    """What runs ahead of an engine (`Ahead`).

    Args:
        job: The command.
        stack: The models of the driver.
        engine: Follows.
        crew: The workers.
        items: The input.
        job_name: The digest of the command, for the notes in the journal.
    """

    def __init__(
        self, job: Job, stack: Stack, engine: Engine, crew: Crew, items: Iterator[Record | BadLine], job_name: str
    ) -> None:
        self._job, self._stack, self._engine, self._crew, self._items = job, stack, engine, crew, items
        self._name, self._plan, self._capped = job_name, crew.plan(job), job.run.max_calls is not None
        self._queue: deque[Entry] = deque()
        self._todo: list[Entry] = []
        """Those that wait, in order (a heap)."""
        self._reads = self._records = self._last_places = 0
        self._error: InputError | None = None
        self._has_more = True
        self._is_awaited = self._closing = False
        """Whether the engine waits for the first entry; whether it has ended."""
        self.calls = 0
        """Of the records that are recorded and not begun."""
        self.shipped = 0
        """Answers that workers have shipped."""
        self.replayed = 0
        """Of what the engine has replayed, the answers that workers of this run have sent for."""
        limit = self._plan.concurrency or ADAPTIVE_START
        self._seats = [Seat(number, limit) for number in range(crew.workers)]
        self.notes: list[str] = []
        self.lost_before = self._lost = stack.journal.leased_calls(job_name)
        stack.budget.cap.used += self._lost
        self._look, self._moved = asyncio.Event(), asyncio.Event()
        engine.stop.callbacks += [self.look, self._moved.set]
        self._tasks = {asyncio.ensure_future(self._serve(seat)): seat for seat in self._seats}
        self._hand_out_task = asyncio.ensure_future(self._hand_out())
        for task in (*self._tasks, self._hand_out_task):
            task.add_done_callback(self._stop_at_error)

    def _stop_at_error(self, task: "asyncio.Task[None]") -> None:
        """End the run if a task of the driver has failed: nothing would be handed out or recorded any more."""
        if not task.cancelled() and (error := task.exception()):
            self._engine.stop.now("error", error)

    def look(self) -> None:
        """See whether more can be handed out."""
        self._look.set()

    def items(self) -> Iterator[Record | BadLine]:
        """Yield the items for the engine, which calls `wait` for each."""
        while self._queue or self._read():
            yield self._queue[0].item
        if self._error is not None:
            raise self._error

    async def wait(self) -> int | None:
        entry, self._is_awaited = self._queue[0], True
        self.look()
        while entry.state in (State.WAITING, State.OUT) and self._engine.stop.reason is None:
            self._moved.clear()
            await self._moved.wait()
        self._is_awaited = False
        self._queue.popleft()
        if entry.state is not State.READY:
            return None
        self._stack.budget.cap.elsewhere -= entry.calls
        self.calls -= entry.calls
        self.replayed += entry.fresh
        self.look()
        return entry.calls

    async def close(self, *, ended: bool) -> None:
        """Let the workers ship what is in flight, and end; `ended` says that no run continues this one."""
        self._closing = True
        self._hand_out_task.cancel()
        for task, seat in self._tasks.items():
            if not seat.is_ready:
                task.cancel()
        await asyncio.gather(*self._tasks, self._hand_out_task, return_exceptions=True)
        self._stack.journal.note_leases(self._name, 0 if ended or not self._capped else self._lost)

    # Records

    def _read(self) -> bool:
        """Read one more item; return whether there was one."""
        try:
            item = next(self._items, None) if self._has_more else None
            if isinstance(item, Record):
                self._records += 1
                roles = Roles(self._stack.models, item, self._job.run.params, self._job.run.judge_params)
                self._last_places = self._job.method.bound(item, roles) * ATTEMPTS
        except InputError as error:
            item, self._error = None, error
        self._has_more = item is not None
        if item is not None:
            entry = Entry(self._reads, item, self._last_places)
            self._reads += 1
            self._queue.append(entry)
            heappush(self._todo, entry)
        return item is not None

    async def _hand_out(self) -> None:
        """Hand records out whenever something has changed; leave one to the engine if nobody else can ask for it."""
        while True:
            await self._look.wait()
            self._look.clear()
            while self._engine.stop.reason is None and self._may_hand_out():
                await self._prepare(heappop(self._todo))
            is_starting = any(not seat.is_ready for seat in self._tasks.values())
            is_busy = is_starting or any(seat.out for seat in self._seats) or self._engine.is_busy
            if self._queue and self._is_awaited and not is_busy and self._queue[0].state is State.WAITING:
                self._todo.remove(self._queue[0])
                self._leave_to_engine(self._queue[0])

    def _may_hand_out(self) -> bool:
        """Whether the next entry may be handed out now; reads it if it is not there yet."""
        most, engine, cap = most_records(self._job.run.n), self._engine, self._stack.budget.cap
        if self._hungriest() is None:
            return False
        if not self._todo and (self._records == most or not self._read()):
            return False
        entry = self._todo[0]
        pending = len(self._queue) - len(self._todo) + engine.pending
        window = engine.window(sum(seat.limit for seat in self._seats))
        if pending and (pending >= window or not engine.wants(pending)):
            return False
        return not self._capped or cap.left() - engine.reserved >= entry.places

    def _hungriest(self) -> Seat | None:
        """Return the place of the worker that has the most room for records; None if there is no room."""
        rooms = ((OPEN_PER_SLOT * seat.limit - len(seat.out), seat) for seat in self._seats if seat.is_ready)
        room, seat = max(rooms, key=lambda pair: pair[0], default=(0, None))
        return seat if room > 0 else None

    async def _prepare(self, entry: Entry) -> None:
        """Hand an entry to a worker, unless all answers of its record are there."""
        if isinstance(entry.item, BadLine):
            self._set_ready(entry, 0)
            return
        recorded, uses = Recorded(self._stack.journal), Purse(Stop(), {})
        models = {
            role: [Model(model.identity, recorded, model.params, uses) for model in of_role]
            for role, of_role in self._stack.models.items()
        }
        roles = Roles(models, entry.item, self._job.run.params, self._job.run.judge_params)
        try:
            async for _ in self._job.method.generate(entry.item, roles):
                pass
            self._set_ready(entry, roles.used.calls)
        except Stopped:
            self._hand(entry, recorded.replies)
        except Exception:  # the engine meets the same, and says what it is
            self._leave_to_engine(entry)

    def _leave_to_engine(self, entry: Entry) -> None:
        entry.state = State.OWN
        self._moved.set()

    def _hand(self, entry: Entry, seeds: Mapping[Name, Reply]) -> None:
        seat = self._hungriest()
        if seat is None:
            heappush(self._todo, entry)
            return
        entry.state = State.OUT
        seat.out[entry.number] = entry
        self._stack.budget.cap.elsewhere += entry.places
        assert isinstance(entry.item, Record)
        seat.waiting.append(Assignment(entry.number, entry.item, seeds, entry.places - len(seeds)))

    def _set_ready(self, entry: Entry, calls: int) -> None:
        entry.state, entry.calls = State.READY, calls
        self._stack.budget.cap.elsewhere += calls
        self.calls += calls
        self._moved.set()

    def _take_back(self, seat: Seat) -> None:
        """Take the records of a worker back, to be handed out again."""
        for entry in seat.out.values():
            self._stack.budget.cap.elsewhere -= entry.places
            entry.state = State.WAITING
            heappush(self._todo, entry)
        seat.out, seat.waiting = {}, []
        self.look()

    # Workers

    async def _serve(self, seat: Seat) -> None:
        """Keep a worker in a place, until the run ends or it is lost too often."""
        errors = self._crew.ray.exceptions
        problem = ""
        while seat.losses < MOST_LOSSES and not self._closing:
            try:
                problem = await self._run_worker(seat)
                break
            except errors.RayActorError as error:
                problem = f"a worker was lost: {first_line(error)}"
                self._lose(seat)
            except errors.RayTaskError as error:  # what was raised in the worker
                problem = f"a worker failed: {first_line(error.cause)}"
                self._lose(seat)
                if isinstance(error.cause, DatagenError):
                    break
            except TimeoutError:
                problem = f"a worker did not start within {START_TIMEOUT:.0f} s"
                break
        seat.is_ready = False
        self._tasks.pop(next(task for task, other in self._tasks.items() if other is seat))
        if problem and not self._tasks and not self._closing:
            self._engine.stop.now("outage", Outage(f"--ray {self._job.ray}: {problem}. No worker is left"))
        self.look()

    async def _run_worker(self, seat: Seat) -> str:
        """Start a worker and exchange orders and reports with it to its end; return why it ended, "" if all is well."""
        ray = self._crew.ray
        actor = (
            ray.remote(Worker).options(num_cpus=1, num_gpus=self._crew.devices, scheduling_strategy="SPREAD").remote()
        )
        try:
            version, _ = await asyncio.wait_for(actor.open.remote(), START_TIMEOUT)
            if version != datagen.__version__:
                raise InputError(f"datagen {version} is installed on a node, and {datagen.__version__} here")
            await actor.begin.remote(self._plan)
            seat.is_ready = True
            self.look()
            while True:
                order = self._order(seat)
                report = await actor.exchange.remote(order)
                self._take(seat, report)
                if report.end is not None:
                    return self._retire(seat, report)
        finally:
            ray.kill(actor)

    def _order(self, seat: Seat) -> Order:
        unsettled = UNSETTLED_PER_SLOT * seat.limit
        seat.unsettled = max(seat.unsettled, unsettled)
        purse, is_last = self._stack.purse, self._closing or self._engine.stop.reason is not None
        if purse.most is not None and not is_last:
            part = (purse.left() / (2 * len(self._tasks))).quantize(CENT, ROUND_DOWN)
            if (more := part - seat.rest) > 0:
                seat.leased += more
                purse.change_lease(more)
        self._stack.journal.note_leases(self._name, self._lost + sum(other.at_risk for other in self._seats))
        assignments, seat.waiting = seat.waiting, []
        return Order(assignments, seat.settled, unsettled, None if purse.most is None else seat.leased, is_last)

    def _take(self, seat: Seat, report: Report) -> None:
        """Record a segment, and what else a worker says."""
        if report.rows:
            self.shipped += self._stack.journal.add_rows(report.rows).new
            seat.settled, seat.losses = report.rows[-1].number, 0
        for number, calls, fresh in report.done:
            entry = seat.out.pop(number)
            entry.fresh = fresh
            self._stack.budget.cap.elsewhere -= entry.places
            self._set_ready(entry, calls)
        before, cap, purse = seat.report, self._stack.budget.cap, self._stack.purse
        for _ in range(report.unanswered - (before.unanswered if before else 0)):
            cap.count_unanswered()
        spent = report.paid - (before.paid if before else 0)
        purse.change_lease(Decimal(0) if purse.most is None else -spent, spent)
        purse.unpriced += report.unpriced - (before.unpriced if before else 0)
        self._stack.elsewhere[f"{seat.number}.{seat.life}"] = report.traffic
        seat.limit, seat.report = report.traffic.limit, report
        self.look()

    def _retire(self, seat: Seat, report: Report) -> str:
        """Take back what a worker that has stopped was to do."""
        self._stack.purse.change_lease(-seat.rest if self._stack.purse.most is not None else Decimal(0))
        seat.leased, seat.unsettled = seat.leased - seat.rest, 0
        self._take_back(seat)
        return report.error if report.end in ("outage", "error") else ""

    def _lose(self, seat: Seat) -> None:
        """Count what a lost worker may have paid for without a record, and take its records back."""
        if lost := seat.at_risk:
            self.notes.append(f"A Ray worker was lost, with up to {count_of(lost, 'answer')} paid for and not recorded")
        self._lost += lost
        self._stack.budget.cap.used += lost
        if self._stack.purse.most is not None:
            self._stack.purse.change_lease(-seat.rest, seat.rest)
        name = f"{seat.number}.{seat.life}"
        if name in self._stack.elsewhere:
            self._stack.elsewhere[name] = self._stack.elsewhere[name]._replace(in_flight=0, limit=0)
        self._take_back(seat)
        seat.is_ready, seat.settled, seat.unsettled, seat.leased, seat.report = False, 0, 0, Decimal(0), None
        seat.life, seat.losses = seat.life + 1, seat.losses + 1


def first_line(error: BaseException) -> str:
    """Return what an error of Ray says in one line."""
    return str(error).strip().partition("\n")[0].rstrip(". ")
