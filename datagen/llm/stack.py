"""Puts the layers together: Model, Budget, Journal, Limiter, then Endpoint, Local or Sim.

One journal, one budget and one stop for a run; one limiter for each address, since what is limited is a server.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from datagen.errors import InputError
from datagen.llm.budget import Budget
from datagen.llm.call import Backend
from datagen.llm.journal import Journal
from datagen.llm.limiter import ADAPTIVE_CEILING, Limiter
from datagen.llm.model import Model
from datagen.llm.spec import Spec
from datagen.llm.stop import Stop


@dataclass(frozen=True)
class Stack:
    """The layers of a run."""

    models: Mapping[str, Sequence[Model]]
    """Role to the models that take turns in it."""
    budget: Budget
    journal: Journal
    limiters: Sequence[Limiter]
    backends: Sequence[Backend]
    stop: Stop

    @property
    def limit(self) -> int:
        """How many requests may be in flight now."""
        return sum(int(limiter.limit) for limiter in self.limiters)

    @property
    def in_flight(self) -> int:
        return sum(limiter.in_flight for limiter in self.limiters)

    @property
    def sent(self) -> int:
        """Requests sent, transport retries included."""
        return sum(limiter.sent for limiter in self.limiters)

    @property
    def peak(self) -> int:
        """The most requests that were in flight at once."""
        return sum(limiter.peak for limiter in self.limiters)

    async def close(self) -> None:
        for backend in self.backends:
            await backend.close()
        self.journal.close()


@dataclass(frozen=True)
class StackOptions:
    """How to reach the models."""

    folder: Path
    """Where the journal lies."""
    max_calls: int | None
    concurrency: int | None
    """None adapts."""
    timeout: float
    """Seconds, for one whole request."""


def build_stack(roles: Mapping[str, Sequence[Spec]], options: StackOptions) -> Stack:
    """Build the layers for the models in their roles."""
    stop = Stop()
    check_addresses(roles)
    specs = {spec.identity: spec for specs in roles.values() for spec in specs}
    backends = {name: open_backend(spec, options) for name, spec in specs.items()}
    limiters = {spec.url: Limiter(backends, stop, options.concurrency) for spec in specs.values()}
    journal = Journal(options.folder, {name: limiters[spec.url] for name, spec in specs.items()})
    budget = Budget(journal, stop, options.max_calls)
    models = {role: [Model(spec.identity, budget) for spec in chosen] for role, chosen in roles.items()}
    return Stack(models, budget, journal, list(limiters.values()), list(backends.values()), stop)


def check_addresses(roles: Mapping[str, Sequence[Spec]]) -> None:
    """Refuse one name at two addresses: the journal could not tell their answers apart."""
    urls: dict[str, str | None] = {}
    for spec in (spec for specs in roles.values() for spec in specs):
        if urls.setdefault(spec.identity, spec.url) != spec.url:
            raise InputError(f"model {spec.name} has two addresses; tell them apart by a tag: {spec.name}#a@URL")


def open_backend(spec: Spec, options: StackOptions) -> Backend:
    """Open what answers a model's calls; nothing is sent."""
    if spec.url is None and spec.name.startswith("hf:"):
        from datagen.llm.local.weights import need_libraries

        need_libraries()
        from datagen.llm.local.model import Local

        return Local(spec.name)
    if spec.url is None and spec.name.startswith("replay:"):
        from datagen.llm.replay import load_replay

        return load_replay(Path(spec.name.removeprefix("replay:")))
    if spec.url is None:
        from datagen.llm.sim import parse_sim

        return parse_sim(spec.name)
    from datagen.llm.endpoint import Endpoint

    return Endpoint(spec.url, spec.name, timeout=options.timeout, connections=options.concurrency or ADAPTIVE_CEILING)
