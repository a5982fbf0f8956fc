"""A worker of `--ray`: it asks for the answers of records, ships them to the driver, and decides nothing.

It runs the generator of each record that it is given and throws the candidates away: what counts is its journal, a file
of its own in a temporary folder. New replies go to the driver in segments; the driver records them, and says so with
its next order. At most `unsettled` requests may be without that, in flight or answered, so this is the most that a lost
worker has paid for in vain.
"""

import asyncio
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from pathlib import Path

import datagen
from datagen.engine.job import tune_garbage_collector
from datagen.engine.method import Method
from datagen.engine.options import RunOptions
from datagen.engine.scheduler import OPEN_PER_SLOT
from datagen.errors import DatagenError, InputError, Outage, Stopped
from datagen.llm.budget import Stop, StopReason
from datagen.llm.call import Call, Layer, Reply
from datagen.llm.claims import Name
from datagen.llm.journal import COMMIT_EVERY
from datagen.llm.model import Model, Roles
from datagen.llm.prices import PriceTag
from datagen.llm.purse import Purse
from datagen.llm.salvage import SavedRow
from datagen.llm.spec import Spec
from datagen.llm.stack import StackOptions, Traffic, build_stack
from datagen.records.record import Record

SEGMENT_EVERY = 0.5
"""Seconds between two segments at most; one also goes when as many replies wait as requests may be in flight."""
UNSETTLED_PER_SLOT = 3
"""Requests that may be sent before the driver has recorded their replies, for each that may be in flight: those in
flight, those of the next segment, and those of the segment on its way."""


@dataclass(frozen=True)
class Plan:
    """What a worker needs to know: the command as the driver has checked it, and its share of the limits."""

    method: Method
    run: RunOptions
    roles: Mapping[str, Sequence[Spec]]
    tags: Mapping[str, PriceTag]
    concurrency: int | None
    environment: Mapping[str, str]
    """Variables that hold keys, and the like."""


@dataclass(frozen=True)
class Assignment:
    """A record whose answers are asked for."""

    number: int
    record: Record
    seeds: Mapping[Name, Reply]
    """Replies of this record that the driver has."""
    places: int
    """The most calls that it makes; counted where there is a cap."""


@dataclass(frozen=True)
class Order:
    """What the driver says to a worker."""

    assignments: Sequence[Assignment]
    settled: int
    """The number of the last row of the worker's journal that the driver has recorded."""
    unsettled: int
    """The most requests whose replies are not recorded by the driver."""
    dollars: Decimal | None
    """The most that it may spend in all; None where there is no cap."""
    is_last: bool
    """Send nothing any more, and ship what is in flight."""


@dataclass(frozen=True)
class Report:
    """What a worker says to the driver."""

    rows: Sequence[SavedRow]
    """The segment: new replies, in the order of their numbers."""
    done: Sequence[tuple[int, int, int]]
    """Numbers of records that are done, each with the calls that it used, and those of them that were not seeds."""
    traffic: Traffic
    paid: Decimal
    """Dollars so far."""
    unpriced: int
    unanswered: int
    """Replies so far that are paid for and hold no answer."""
    end: StopReason | None
    """Why it stopped, once it has; it holds no record then."""
    error: str = ""
    """The words of an outage."""


@dataclass(eq=False)
class Gate:
    """A layer that holds a call back while the driver has not recorded enough of what was sent before."""

    places: "Places"
    below: Layer

    async def send(self, call: Call) -> Reply:
        await self.places.take()
        try:
            reply = await self.below.send(call)
        except BaseException:
            self.places.in_flight -= 1
            self.places.changed.set()
            raise
        self.places.in_flight -= 1
        self.places.answered += 1
        self.places.wake.set()
        return reply


@dataclass(eq=False)
class Places:
    """Counts the requests whose replies the driver has not recorded."""

    stop: Stop = field(default_factory=Stop)
    most: int = 0
    in_flight: int = 0
    answered: int = 0
    settled: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when there may be something to report."""

    async def take(self) -> None:
        """Take a place for a request. Raises Stopped if the run ends."""
        while self.in_flight + self.answered - self.settled >= self.most:
            if self.stop.reason:
                raise Stopped
            self.changed.clear()
            await self.changed.wait()
        self.in_flight += 1


@dataclass(frozen=True)
class Seeded:
    """A layer that answers with the replies that the driver has."""

    below: Layer
    seeds: Mapping[Name, Reply]

    async def send(self, call: Call) -> Reply:
        return self.seeds.get((call.key, call.attempt)) or await self.below.send(call)


class Worker:
    """An actor: one for each process that asks."""

    def open(self) -> tuple[str, int]:
        """Return the version of this package here, and the number of the process."""
        return datagen.__version__, os.getpid()

    async def begin(self, plan: Plan) -> None:
        """Open the models.

        Raises:
            InputError: One cannot be opened here.
        """
        os.environ.update(plan.environment)
        tune_garbage_collector()
        self._plan, self._folder, self._places = plan, tempfile.TemporaryDirectory(prefix="datagen-"), Places()
        run = plan.run
        options = StackOptions(
            Path(self._folder.name),
            None if run.max_calls is None else 0,
            plan.concurrency,
            run.timeout,
            60 * run.patience,
            tags=plan.tags,
            max_cost=None if run.max_cost is None else Decimal(0),
            gate=partial(Gate, self._places),
        )
        self._stack = build_stack(plan.roles, options)
        self._places.stop = self._stack.stop
        self._stack.stop.callbacks += [self._places.changed.set, self._places.wake.set]
        self._uses = Purse(Stop(), plan.tags)  # counts what records use, without a cap
        self._tasks: set[asyncio.Task[None]] = set()
        self._done: list[tuple[int, int, int]] = []
        self._shipped = 0

    async def exchange(self, order: Order) -> Report:
        """Take an order; return a report when there is something to say, or after SEGMENT_EVERY."""
        stack, places = self._stack, self._places
        places.settled, places.most = order.settled, order.unsettled
        places.changed.set()
        if order.dollars is not None:
            stack.purse.raise_cap(order.dollars)
        for assignment in order.assignments:
            stack.budget.cap.grow(assignment.places)
            task = asyncio.ensure_future(self._ask(assignment))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if order.is_last:
            stack.stop.now("interrupted")
        await self._wait_for_news()
        report = self._report()
        if report.end is not None:
            await stack.close()
            self._folder.cleanup()
        return report

    async def _ask(self, assignment: Assignment) -> None:
        """Ask for everything that a record needs."""
        plan, record = self._plan, assignment.record
        models = {
            role: [
                Model(model.identity, Seeded(model.below, assignment.seeds), model.params, self._uses)
                for model in of_role
            ]
            for role, of_role in self._stack.models.items()
        }
        roles = Roles(models, record, plan.run.params, plan.run.judge_params)
        try:
            async for _ in plan.method.generate(record, roles):
                pass
        except Stopped:
            return
        except Outage as error:
            self._stack.stop.now("outage", error)
            return
        except DatagenError as error:
            if not isinstance(error, InputError):  # of this record: the driver reads it too, and says so
                self._stack.stop.now("error", error)
                return
        calls = roles.used.calls
        self._done.append((assignment.number, calls, max(0, calls - len(assignment.seeds))))
        self._places.wake.set()

    async def _wait_for_news(self) -> None:
        """Wait until there is enough to report, or for SEGMENT_EVERY; where the run ends, for all that is in flight."""
        loop = asyncio.get_running_loop()
        end = loop.time() + (SEGMENT_EVERY if self._tasks else COMMIT_EVERY)
        while (left := end - loop.time()) > 0 and self._stack.stop.reason is None and not self._is_news():
            self._places.wake.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._places.wake.wait(), left)
        if self._stack.stop.reason is not None and self._tasks:
            await asyncio.wait(self._tasks)
        await asyncio.sleep(COMMIT_EVERY)  # for what was just answered

    def _is_news(self) -> bool:
        limit = self._stack.limit
        is_hungry = bool(self._done) and len(self._tasks) <= OPEN_PER_SLOT * limit // 2
        return is_hungry or self._places.answered - self._shipped >= limit

    def _report(self) -> Report:
        rows = self._stack.journal.rows_after(self._shipped)
        self._shipped = rows[-1].number if rows else self._shipped
        done, self._done = self._done, []
        stop, purse = self._stack.stop, self._stack.purse
        return Report(
            rows,
            done,
            self._stack.traffic,
            purse.paid,
            purse.unpriced,
            self._stack.budget.cap.unanswered,
            stop.reason if not self._tasks else None,
            str(stop.error or ""),
        )
