"""Puts the layers together: Roles, Budget, Journal, Limiter, then Endpoint, Local, Replay or Sim.

A run has one journal, one budget and one stop, and one limiter for each address, since servers limit requests.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from datagen.errors import InputError
from datagen.llm.budget import Budget, Stop
from datagen.llm.call import ClosableLayer, Layer
from datagen.llm.journal import Journal
from datagen.llm.limiter import ADAPTIVE_CEILING, Limiter
from datagen.llm.model import Model
from datagen.llm.spec import Spec


class Traffic(NamedTuple):
    """The requests of a run."""

    in_flight: int
    peak: int
    """The most that were in flight at once, summed over the addresses."""
    sent: int
    """Retries included."""


@dataclass(frozen=True)
class Stack:
    """The layers of a run."""

    models: Mapping[str, Sequence[Model]]
    """Role to the models that take turns in it."""
    budget: Budget
    journal: Journal
    limiters: Sequence[Limiter]
    backends: Sequence[Layer]
    stop: Stop

    @property
    def limit(self) -> int:
        """How many requests may be in flight now."""
        return sum(int(limiter.limit) for limiter in self.limiters)

    @property
    def traffic(self) -> Traffic:
        """The requests of the run so far."""
        limiters = self.limiters
        return Traffic(
            sum(limiter.in_flight for limiter in limiters),
            sum(limiter.peak for limiter in limiters),
            sum(limiter.sent for limiter in limiters),
        )

    async def close(self, *, drained: bool = True) -> None:
        """Release connections, threads and the journal; `drained` means that no request is in flight any more."""
        for backend in self.backends:
            if isinstance(backend, ClosableLayer):
                await backend.close()
        if drained:
            self.journal.end_run()
        self.journal.close()


@dataclass(frozen=True)
class StackOptions:
    """How to reach the models."""

    folder: Path
    """Holds the journal."""
    max_calls: int | None
    concurrency: int | None
    """None adapts."""
    timeout: float
    """Seconds, for one whole request."""
    output: str | None = None
    """The name of the output that the run writes, for the journal's note of what is in flight."""


def build_stack(roles: Mapping[str, Sequence[Spec]], options: StackOptions) -> Stack:
    """Build the layers for the models in their roles. Nothing is sent.

    Raises:
        InputError: One model name has two addresses, or a model cannot be opened.
        DatagenError: The journal cannot be opened.
    """
    specs: dict[str, Spec] = {}
    for spec in (spec for specs_of_role in roles.values() for spec in specs_of_role):
        if specs.setdefault(spec.identity, spec).url != spec.url:  # the journal could not tell their answers apart
            raise InputError(f"model {spec.name} has two addresses; give each a tag: {spec.name}#a@URL")
    backends = {identity: open_backend(spec, options) for identity, spec in specs.items()}
    stop = Stop()
    limiters = {spec.url: Limiter(backends, stop, options.concurrency) for spec in specs.values()}
    journal = Journal(options.folder, {identity: limiters[spec.url] for identity, spec in specs.items()})
    if options.output is not None:
        journal.begin_run(options.output, lambda: sum(limiter.peak for limiter in limiters.values()))
    budget = Budget(journal, stop, options.max_calls)
    models = {role: [Model(spec.identity, budget) for spec in specs_of_role] for role, specs_of_role in roles.items()}
    return Stack(models, budget, journal, list(limiters.values()), list(backends.values()), stop)


def open_backend(spec: Spec, options: StackOptions) -> Layer:
    """Open the innermost layer of a model. Its modules are imported here, so that a run loads only what it uses."""
    if spec.url is not None:
        from datagen.llm.endpoint import Endpoint

        connections = options.concurrency or ADAPTIVE_CEILING
        return Endpoint(spec.url, spec.name, timeout=options.timeout, connections=connections)
    if spec.name.startswith("hf:"):
        if any(find_spec(name) is None for name in ("torch", "transformers")):
            raise InputError("hf: models need the train extra: pip install 'datagen-train[train]'")
        from datagen.llm.local.model import Local

        return Local(spec.name)
    if spec.name.startswith("replay:"):
        from datagen.llm.replay import load_replay

        return load_replay(Path(spec.name.removeprefix("replay:")))
    from datagen.llm.sim.model import parse_sim

    return parse_sim(spec.name)
