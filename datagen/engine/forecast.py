"""What a run would do, before anything is sent: its first request, and the calls, tokens and dollars to expect.

The calls follow from what the method says of each record. Prompts and length limits are those of a few records that are
worked on with `sim` in the place of every model: all stages of the method are rendered, the judge's too. Tokens are
not counted but bounded, since every model has its own tokenizer.
"""

import asyncio
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import ceil
from typing import NamedTuple, cast

from datagen.engine.job import Job
from datagen.engine.method import GrowingMemory, Method
from datagen.engine.scheduler import most_records, read_passes
from datagen.llm.batches.comparison import comparison
from datagen.llm.call import Call, Layer, Reply
from datagen.llm.model import ATTEMPTS, Model, Roles
from datagen.llm.prices import FREE, LONGEST_CONTEXT, Price, answer_limit, prompt_bound
from datagen.records.record import BadLine, Record, Row

SAMPLE = 8
"""Records that are worked on, from all over the input."""
BYTES_OF_LONG_TOKENS = 10
"""Bytes of a token where a prompt has as few as it can: twice those of English."""
EARLIER_ANSWERS = 4
"""The most earlier answers that a prompt holds; sim's are short, so they are counted at the length limit."""


class Range(NamedTuple):
    """From half as many calls as sim needs, with answers of one token (a search may find early what it looks for), over
    the usual calls with answers as long as they may be, to the most calls with such answers."""

    least: float
    usual: float
    most: float


@dataclass(frozen=True)
class DryRun:
    """What a run would do."""

    request: Row | None
    """The first request, as it would be sent."""
    records: int
    unreadable: int
    calls: int
    """Expected, if every answer is good: for one pass, or with -n for as many rows if every candidate is kept."""
    most_calls: int
    """Whatever the answers are."""
    tokens: Range
    cost: Range | None
    """Dollars; None if a price is unknown."""
    unpriced: list[str]
    """The models whose price is unknown."""
    sources: list[str]
    """Where the prices come from; empty if every model runs here."""
    comparisons: list[str]
    """Of each model at an address: whether a batch is cheaper. An unknown price is named with --batch only."""


class Walk:
    """A layer that keeps all calls of a model, and answers them as `sim` does."""

    def __init__(self, sim: Layer, calls: list[tuple[int, Call]]) -> None:
        self._sim, self._calls = sim, calls
        self.earlier = 0
        """Calls of the record before this one."""

    async def send(self, call: Call) -> Reply:
        self._calls.append((self.earlier, call))
        self.earlier += 1
        return await self._sim.send(call)


class Items:
    """What a run begins with, read as often as it is wanted: in memory is one row at a time.

    Args:
        job: The command.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self.records = self.unreadable = 0
        """Of the last reading."""

    def read(self) -> Iterator[Record]:
        """Yield the records of one pass; of an endless method the first that it draws."""
        method, run = self._job.method, self._job.run
        items = self._counted()
        if not method.endless:
            yield from (item for item in items if isinstance(item, Record))
            return
        pool = cast(GrowingMemory, method.memory()[0])
        drawn = (item for item in method.draw(items, pool, run.seed) if isinstance(item, Record))
        for record in islice(drawn, 1):
            yield record if method.lag is None else replace(record, view=pool.view(len(pool)))

    def _counted(self) -> Iterator[Record | BadLine]:
        run, self.records, self.unreadable = self._job.run, 0, 0
        for item in read_passes(self._job.reader.read, seed=run.seed, limit=run.limit, again=False, strict=run.strict):
            self.records += isinstance(item, Record)
            self.unreadable += isinstance(item, BadLine)
            yield item


def dry_run(job: Job) -> DryRun:
    """Render the first request and say what to expect; open no journal and send nothing."""
    # 1. The calls of each record, and of the run. With -n the input is read over and over.
    method, run, items = job.method, job.run, Items(job)
    calls: list[tuple[int, Call]] = []
    walk = Walk(open_sim(), calls)
    models = {role: [Model(spec.identity, walk, spec.params) for spec in specs] for role, specs in job.roles.items()}
    usual, bounds = calls_of_records(job, items, models)
    most = most_records(run.n) or len(bounds)
    expected = len(usual) if run.n is None else ceil(run.n / method.candidates)
    cap = float("inf") if run.max_calls is None else run.max_calls
    most_calls = min(ATTEMPTS * sum_of_cycle(bounds, most), cap)
    usual_calls = min(sum_of_cycle(usual, expected), cap)

    # 2. The calls of a few records from all over the input, and of the first that makes any.
    step, worked_on = max(1, len(usual) // SAMPLE), 0
    for place, record in enumerate(items.read()):
        if place % step == 0 or not calls:
            walk.earlier, worked_on = 0, worked_on + 1
            asyncio.run(work(method, record, Roles(models, record, run.params, run.judge_params)))
    least_calls = min(usual_calls, len(calls) / max(worked_on, 1) * expected) / 2
    first = calls[0][1] if calls else None
    request = None if first is None else {"model": first.model, **first.content, **first.params}

    # 3. Tokens and dollars.
    tags = job.tags if job.roles else {}
    prices = {name: tag.look_up() for name, tag in tags.items()}
    unpriced = [name for name, price in prices.items() if price is None]
    costs = [cost_range(call, earlier, prices[call.model]) for earlier, call in calls]
    numbers = least_calls, usual_calls, most_calls
    total = None if unpriced else total_range(costs, numbers)
    if total is not None and run.max_cost is not None:
        total = Range(*(min(amount, run.max_cost) for amount in total))
    return DryRun(
        request,
        items.records,
        items.unreadable,
        int(usual_calls),
        int(most_calls),
        total_range([token_range(call, earlier) for earlier, call in calls], numbers),
        total,
        unpriced,
        sorted({price.source for price in prices.values() if price not in (None, FREE)}),
        [
            comparison(name, of_model, price)
            for name, price in prices.items()
            if price is not FREE
            and (price or run.batch)
            and (of_model := [call for _, call in calls if call.model == name])
        ],
    )


def calls_of_records(
    job: Job, items: Items, models: Mapping[str, Sequence[Model]]
) -> tuple[Sequence[int], Sequence[int]]:
    """Return the usual and the most calls of each record: 16 bytes in memory."""
    method, usual, bounds = job.method, array("Q"), array("Q")
    for record in items.read():
        llm = Roles(models, record, job.run.params, job.run.judge_params)
        usual.append(method.usual_calls(record, llm))
        bounds.append(method.bound(record, llm))
    return usual, bounds


def sum_of_cycle(numbers: Sequence[int], count: int) -> int:
    """Return the sum of the first numbers of an endless repetition of some; 0 if there are none."""
    whole, rest = divmod(count, max(len(numbers), 1))
    return whole * sum(numbers) + sum(numbers[:rest])


def open_sim() -> Layer:
    """Return the layer of `sim`."""
    from datagen.llm.sim.model import parse_sim

    return parse_sim("sim")


async def work(method: Method, record: Record, llm: Roles) -> None:
    """Generate all candidates of a record."""
    async for _ in method.generate(record, llm):
        pass


class Sizes(NamedTuple):
    """How many tokens a call may have."""

    least_prompt: int
    prompt: int
    most_prompt: int
    answer: int


def sizes_of(call: Call, earlier: int, context: int | None) -> Sizes:
    """Bound the tokens of a call.

    Args:
        call: As it was made with the answers of sim.
        earlier: Calls of its record before it.
        context: The most tokens of the model.
    """
    longest = context or LONGEST_CONTEXT
    limit, prompt = answer_limit(call, context), prompt_bound(call)
    characters = sum(len(str(message.get("content") or "")) for message in call.messages)
    return Sizes(
        characters // BYTES_OF_LONG_TOKENS, prompt, min(prompt + min(earlier, EARLIER_ANSWERS) * limit, longest), limit
    )


def token_range(call: Call, earlier: int) -> Range:
    """Return the tokens of a call, prompt and answer."""
    sizes = sizes_of(call, earlier, None)
    return Range(sizes.least_prompt + 1, sizes.prompt + sizes.answer, sizes.most_prompt + sizes.answer)


def cost_range(call: Call, earlier: int, price: Price | None) -> Range:
    """Return the dollars of a call."""
    if price is None:
        return Range(0, 0, 0)
    sizes = sizes_of(call, earlier, price.context)
    prompts = (sizes.least_prompt, 1), (sizes.prompt, sizes.answer), (sizes.most_prompt, sizes.answer)
    return Range(*(float(price.most(prompt, answer)) for prompt, answer in prompts))


def total_range(parts: Sequence[Range], calls: Sequence[float]) -> Range:
    """Return the range of a run from that of some of its calls: the mean of them, and the dearest for the most.

    Args:
        parts: Of a call each.
        calls: The calls of the run: the least, the usual number, the most.
    """
    if not parts:
        return Range(0, 0, 0)
    least, usual = (sum(part[place] for part in parts) / len(parts) * calls[place] for place in (0, 1))
    return Range(least, usual, max(part.most for part in parts) * calls[2])
