"""The parts of the driver of `--ray`: what it knows of an item of the input, of a worker, and of Ray."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum
from typing import Any

from datagen.engine.job import Job
from datagen.engine.ray_cluster import count_workers, environment, joined, share, with_own_share, with_share
from datagen.engine.ray_worker import Assignment, Plan, Report
from datagen.errors import Stopped
from datagen.llm.call import Call, Reply
from datagen.llm.claims import Name
from datagen.llm.journal import Journal
from datagen.llm.spec import Spec
from datagen.records.record import BadLine, Record


class State(Enum):
    """Where an item of the input is."""

    WAITING, OUT, READY, OWN = range(4)
    """Not handed out; with a worker; recorded; left to the engine."""


@dataclass(eq=False)
class Entry:
    """An item of the input that the engine has not begun."""

    number: int
    item: Record | BadLine
    places: int
    """The most calls of its record, attempts included."""
    state: State = State.WAITING
    calls: int = 0
    """Of a record that is recorded: the calls that it makes with these answers."""
    fresh: int = 0
    """The part of them that a worker of this run has sent."""

    def __lt__(self, other: "Entry") -> bool:
        return self.number < other.number


@dataclass(eq=False)
class Seat:
    """The place of a worker. One that is lost is replaced by another."""

    number: int
    limit: int
    """Requests that its worker may have in flight now."""
    life: int = 0
    is_ready: bool = False
    out: dict[int, Entry] = field(default_factory=dict)
    waiting: list[Assignment] = field(default_factory=list)
    """Handed out, and not sent yet."""
    settled: int = 0
    unsettled: int = 0
    """The most requests whose replies need not be recorded, of all orders to this worker."""
    leased: Decimal = Decimal(0)
    """Dollars in all, those that are spent included."""
    report: Report | None = None
    """The last one."""
    losses: int = 0

    @property
    def at_risk(self) -> int:
        """The most calls that are paid for and not recorded, if the worker is lost now."""
        return min(self.unsettled, sum(entry.places for entry in self.out.values()))

    @property
    def rest(self) -> Decimal:
        """The dollars of its lease that are not known to be spent."""
        return self.leased - (self.report.paid if self.report else 0)


@dataclass(frozen=True)
class Crew:
    """Ray, and how many workers are to be there."""

    ray: Any
    workers: int
    devices: int
    """That each worker takes."""

    def own_roles(self, job: Job) -> Mapping[str, Sequence[Spec]]:
        """Return the models of a job with the limits of the driver."""
        return {role: [with_own_share(spec, self.workers) for spec in specs] for role, specs in job.roles.items()}

    def own_concurrency(self, job: Job) -> int | None:
        """Return how many requests the driver itself may have in flight."""
        total = job.run.in_flight
        return None if total is None else share(total, self.workers)[0]

    def plan(self, job: Job) -> Plan:
        """Return what each worker needs to know."""
        roles = {role: [with_share(spec, self.workers) for spec in specs] for role, specs in job.roles.items()}
        total, specs = job.run.in_flight, [spec for of_role in roles.values() for spec in of_role]
        each = None if total is None else share(total, self.workers)[1]
        return Plan(job.method, job.run, roles, job.tags, each, environment(specs))


@contextmanager
def crew_of(job: Job) -> Iterator[Crew | None]:
    """Start or join Ray while a job runs; None without --ray."""
    if job.ray is None:
        yield None
        return
    with joined(job.ray) as ray:
        yield Crew(ray, *count_workers(ray, job.ray, job.roles, job.run.in_flight))


class Recorded:
    """A layer that answers from the journal alone, and keeps what it has answered."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.replies: dict[Name, Reply] = {}

    async def send(self, call: Call) -> Reply:
        reply = self._journal.recorded(call.key, call.attempt)
        if reply is None:
            raise Stopped
        self.replies[call.key, call.attempt] = reply
        return reply
