"""Puts the layers together: Roles, Budget, Journal, Paying, Limiter, then Endpoint, Local, Replay, Sim or a
function.

A run has one journal, one budget and one stop, and one limiter for each address, since servers limit requests. A model
with several addresses has one more layer above their limiters (`replicas.py`).
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from datagen.errors import InputError
from datagen.libraries import import_extra
from datagen.llm.batches.options import BatchOptions
from datagen.llm.budget import Budget, Cap, Stop
from datagen.llm.call import ClosableLayer, GeneratingLayer, Layer, LearningLayer
from datagen.llm.facts import Learner
from datagen.llm.journal import Journal
from datagen.llm.limiter import ADAPTIVE_CEILING, PATIENCE, Limiter
from datagen.llm.model import Model
from datagen.llm.models_file import MODELS_FILE
from datagen.llm.pace import Pace
from datagen.llm.prices import PriceTag
from datagen.llm.purse import Paying, Purse
from datagen.llm.replicas import Address, Breaker, Replicas, Unreachable
from datagen.llm.spec import Spec

if TYPE_CHECKING:
    from datagen.llm.batches.layer import Batches


class Traffic(NamedTuple):
    """The requests of a run."""

    in_flight: int
    peak: int
    """The most that were in flight at once, summed over the addresses."""
    sent: int
    """Retries included."""
    answered: int
    """The requests that were answered, refusals included."""
    tokens: int
    """Tokens that the models generated, also those of answers that are not complete yet, where they can be counted."""
    limit: int
    """How many may be in flight now."""


@dataclass(frozen=True)
class Stack:
    """The layers of a run."""

    models: Mapping[str, Sequence[Model]]
    """Role to the models that take turns in it."""
    budget: Budget
    purse: Purse
    journal: Journal
    limiters: Sequence[Limiter]
    breakers: Sequence[Breaker]
    backends: Sequence[Layer]
    stop: Stop
    learners: Mapping[str, Learner]
    """What learns about a server, by place: an address, or a model at an address."""
    batches: Sequence["Batches"] = ()
    """Of each model whose calls, or whose answers, are in batches."""
    elsewhere: dict[str, Traffic] = field(default_factory=dict)
    """The requests of each worker on other machines."""

    @property
    def limit(self) -> int:
        """How many requests may be in flight now."""
        return sum(int(limiter.limit) for limiter in self.limiters)

    @property
    def notes(self) -> list[str]:
        """What is to be told to the user: about the journal, and about requests that a server made us change."""
        places = (*self.breakers, *self.learners.values(), *self.backends, *self.batches)
        return self.journal.notes + [note for place in places for note in getattr(place, "notes", ())]

    @property
    def resumes_at(self) -> float:
        """When busy servers are asked again, by the clock of the event loop; in the past where nothing waits."""
        return max(limiter.resumes_at for limiter in self.limiters) if self.limiters else 0.0

    @property
    def rate_allows_at(self) -> float:
        """When a limit of the rate lets the next request go, in the same way."""
        return max(limiter.rate_allows_at for limiter in self.limiters) if self.limiters else 0.0

    @property
    def traffic(self) -> Traffic:
        """The requests of the run so far."""
        limiters = self.limiters
        here = Traffic(
            sum(limiter.in_flight for limiter in limiters),
            sum(limiter.peak for limiter in limiters),
            sum(limiter.sent for limiter in limiters),
            sum(limiter.answered for limiter in limiters),
            sum(limiter.tokens for limiter in limiters)
            + sum(backend.unanswered_tokens for backend in self.backends if isinstance(backend, GeneratingLayer)),
            self.limit,
        )
        return Traffic(*map(sum, zip(here, *self.elsewhere.values(), strict=True)))

    async def close(self, *, drained: bool = True, ended: bool = True) -> None:
        """Release connections, threads and the journal.

        Args:
            drained: No request is in flight any more.
            ended: The run came to its end; the next one is another.
        """
        for backend in self.backends:
            if isinstance(backend, ClosableLayer):
                await backend.close()
        for batches in self.batches:
            batches.close(ended=drained and ended)
        if drained:
            self.journal.end_run(ended=ended)
            for place, learner in self.learners.items():
                self.journal.keep_facts(place, learner.facts)
        self.journal.close()


def ungated(layer: Layer) -> Layer:
    """Put nothing between the journal and the layer that sends the calls of a model."""
    return layer


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
    patience: float = PATIENCE
    """Seconds that a busy server is waited for."""
    output: str | None = None
    """The name of the output that the run writes, for the journal's note of what is in flight."""
    tags: Mapping[str, PriceTag] = field(default_factory=dict)
    """The price of each model, where somebody asks for it."""
    max_cost: Decimal | None = None
    """Dollars; with it all prices must be known."""
    job: str = ""
    """The digest of the command, under which the journal notes what has been paid for it."""
    batch: BatchOptions = BatchOptions()
    """Whether calls are collected for batches."""
    gate: Callable[[Layer], Layer] = ungated
    """Returns what stands between the journal and the layer that sends the calls of a model."""


def build_stack(roles: Mapping[str, Sequence[Spec]], options: StackOptions) -> Stack:
    """Build the layers for the models in their roles. Nothing is sent.

    Raises:
        InputError: One model name has different addresses, or a model cannot be opened.
        DatagenError: The journal cannot be opened.
    """
    # 1. The models, and the innermost layer of each at each of its addresses.
    specs: dict[str, Spec] = {}
    for spec in (spec for specs_of_role in roles.values() for spec in specs_of_role):
        refuse_other_place(specs.setdefault(spec.identity, spec), spec)
    backends = {
        (identity, url): open_backend(spec, url, options)
        for identity, spec in specs.items()
        for url in spec.urls or (None,)
    }

    # 2. What stops the run, and where a model has several addresses, what leaves one of them out.
    stop = Stop()
    cap = Cap(stop, options.max_calls)
    several = sorted({url for spec in specs.values() if len(spec.urls) > 1 for url in spec.urls})
    breakers = {url: Breaker(stop, url) for url in several}
    below = defaultdict[str | None, dict[str, Layer]](dict)
    for (identity, url), backend in backends.items():
        below[url][identity] = backend
        if url in breakers:
            breakers[url].groups.append([breakers[other] for other in specs[identity].urls])
            below[url][identity] = Unreachable(backend, breakers[url])

    # 3. The layers above.
    paces = {url: Pace(url or "") for url in below}
    purse = Purse(stop, options.tags, options.max_cost)
    limiters = {
        url: Limiter(
            layers,
            breakers.get(str(url), stop),
            most_at(url, specs, options),
            cap,
            options.patience,
            paces[url],
            {identity: specs[identity].limits for identity in layers},
            purse,
        )
        for url, layers in below.items()
    }
    addresses = {url: Address(limiters[url], breaker) for url, breaker in breakers.items()}
    sending: dict[str, Layer] = {
        identity: Replicas([addresses[url] for url in spec.urls], stop)
        if len(spec.urls) > 1
        else limiters[next(iter(spec.urls), None)]
        for identity, spec in specs.items()
    }
    layers = {identity: options.gate(Paying(layer, purse)) for identity, layer in sending.items()}
    journal = Journal(options.folder, layers)
    batches = open_batches(specs, options, journal, layers, backends, purse, cap)
    layers |= batches
    stop.callbacks.append(journal.stop_waiting)
    if options.max_cost is not None:
        journal.begin_payments(options.job, purse)
    if options.output is not None:
        journal.begin_run(options.output, lambda: sum(limiter.peak for limiter in limiters.values()))
    budget = Budget(journal, cap)
    models = {
        role: [Model(spec.identity, budget, spec.params, purse) for spec in specs_of_role]
        for role, specs_of_role in roles.items()
    }
    return Stack(
        models,
        budget,
        purse,
        journal,
        list(limiters.values()),
        list(breakers.values()),
        list(backends.values()),
        stop,
        recall_facts(journal, paces, backends),
        list(batches.values()),
    )


def open_batches(
    specs: Mapping[str, Spec],
    options: StackOptions,
    journal: Journal,
    below: Mapping[str, Layer],
    backends: Mapping[tuple[str, str | None], Layer],
    purse: Purse,
    cap: Cap,
) -> dict[str, "Batches"]:
    """Return the batches of each model that has an address, by its identity: with --batch, or where batches of an
    earlier run have answers."""
    if not options.batch.is_on and not has_batches(journal):
        return {}
    from datagen.llm.batches.client import BatchClient
    from datagen.llm.batches.layer import Batches, Ways
    from datagen.llm.batches.store import BatchStore
    from datagen.llm.endpoint import Endpoint

    batches = {}
    for identity, spec in specs.items():
        endpoint = backends[identity, spec.urls[0]] if spec.urls else None
        if isinstance(endpoint, Endpoint):
            url = spec.urls[0]
            client = BatchClient(url, spec.access, endpoint.http, options.timeout)
            ways = Ways(endpoint, below[identity], client, BatchStore(journal, identity, url))
            batches[identity] = Batches(identity, ways, purse, cap, purse.stop, options.batch)
    return batches


def has_batches(journal: Journal) -> bool:
    """Check whether there are open batches, or answers of batches that no run has read."""
    query = "SELECT EXISTS (SELECT 1 FROM batches) OR EXISTS (SELECT 1 FROM answers)"
    return bool(journal.use(lambda database: database.execute(query).fetchone()[0]))


def recall_facts(
    journal: Journal, paces: Mapping[str | None, Pace], backends: Mapping[tuple[str, str | None], Layer]
) -> dict[str, Learner]:
    """Let all that learns about a server begin with what earlier runs have learned; return it by place."""
    learners: dict[str, Learner] = {url: pace for url, pace in paces.items() if url is not None}
    for (identity, url), backend in backends.items():
        if isinstance(backend, LearningLayer):
            place = f"{identity} at {url}"
            learners |= {f"{place} {name}".strip(): learner for name, learner in backend.learners.items()}
    for place, learner in learners.items():
        if facts := journal.facts(place):
            learner.recall(facts)
    return learners


def refuse_other_place(first: Spec, second: Spec) -> None:
    """Raise InputError if two models of one identity are at different places: the journal could not tell their answers
    apart."""
    if (set(first.urls), first.access) == (set(second.urls), second.access):
        return
    what = "two addresses" if set(first.urls) != set(second.urls) else "two keys, headers or queries"
    raise InputError(
        f'model {first.name} has {what}; give each a tag: {first.name}#a@URL (in {MODELS_FILE}: tag = "a"). If the '
        f"same model is at both, name them together: {first.name}@URL,URL"
    )


def most_at(url: str | None, specs: Mapping[str, Spec], options: StackOptions) -> int | None:
    """Return the number of requests that may be in flight at an address; None adapts it."""
    limits = [options.concurrency, *(spec.limits.get("concurrency") for spec in specs.values() if url in spec.urls)]
    return min((limit for limit in limits if limit is not None), default=None)


def open_backend(spec: Spec, url: str | None, options: StackOptions) -> Layer:
    """Open the innermost layer of a model at one of its addresses. Its modules are imported here, so that a run
    loads only what it uses."""
    if url is not None:
        from datagen.llm.embeddings import EmbeddingEndpoint
        from datagen.llm.endpoint import Endpoint

        connections, kind = options.concurrency or ADAPTIVE_CEILING, EmbeddingEndpoint if spec.embeds else Endpoint
        return kind(url, spec.name, timeout=options.timeout, connections=connections, access=spec.access)
    if spec.load is not None:
        from datagen.llm.functions import FunctionModel

        return FunctionModel(spec, options.timeout)
    if spec.name.startswith("hf:"):
        module, name = ("embedder", "Embedder") if spec.embeds else ("model", "Local")
        local: Layer = getattr(import_extra(f"datagen.llm.local.{module}", spec.name), name)(spec.name)
        return local
    if spec.name.startswith("replay:"):
        from datagen.llm.replay import load_replay

        return load_replay(Path(spec.name.removeprefix("replay:")))
    from datagen.llm.sim.model import parse_sim

    return parse_sim(spec.name)
