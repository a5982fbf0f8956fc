"""What an answer costs: the price of a model at its address, in dollars.

A price comes from `--price`, from models.toml, or from the list of the library `genai-prices`, for the provider that
serves the address. A model that runs here (`sim`, hf:, replay:) is free. Any other price is unknown, and never 0: a
model on a server of one's own does not cost what OpenAI asks for the model of this name.

Costs are exact decimals, so their sum does not depend on the order in which answers come. Where a provider asks less
at some hours, the dearest hour counts: a row must not depend on when it was made.
"""

import asyncio
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from importlib.metadata import version
from typing import Any, NamedTuple

from datagen.errors import InputError
from datagen.llm.call import Call, Reply
from datagen.llm.dialects import Tokens
from datagen.llm.keys import provider_of
from datagen.llm.models_file import MODELS_FILE
from datagen.llm.parameters import length_limit
from datagen.llm.spec import Spec
from datagen.records.usage import Usage

MILLION = Decimal(1_000_000)
PRICE = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)/(\d{1,9}(?:\.\d{1,9})?)(?:/(\d{1,9}(?:\.\d{1,9})?))?")
"""IN/OUT or IN/OUT/CACHED, in dollars per million tokens."""
CALL_MARGIN, MESSAGE_MARGIN = 256, 16
"""Tokens that a chat template may add to a call, and to each of its messages."""
LONGEST_CONTEXT = 1_000_000
"""Tokens of an answer without any limit, if the context of the model is not known."""
BYTES_PER_TOKEN = 3
"""For an estimate: about 4 in English, 3 to 6 in Chinese."""
BATCH_SHARE = Decimal("0.5")
"""Of the price, for a request in a batch: "50% cost discount", https://platform.openai.com/docs/guides/batch. It is the
same at Anthropic and Google; `batch` among the prices of models.toml replaces it."""
PROMPT_PARAMS = ("tools", "response_format", "tool_choice", "chat_template_kwargs")
"""Parameters that a server may write into the prompt."""


class Rate(NamedTuple):
    """Dollars per million tokens of one kind; longer prompts may have a higher rate for all of their tokens."""

    base: Decimal
    tiers: tuple[tuple[int, Decimal], ...] = ()
    """Prompt tokens above which a rate holds, in ascending order."""

    def at(self, prompt_tokens: int) -> Decimal:
        """Return the rate for a prompt of this length."""
        rate = self.base
        for start, dearer in self.tiers:
            if prompt_tokens > start:
                rate = dearer
        return rate


@dataclass(frozen=True, slots=True)
class Price:
    """The price of a model."""

    input: Rate
    output: Rate
    cached: Rate | None = None
    """Of prompt tokens that the server had read before; None if these cost the same."""
    written: Rate | None = None
    """Of prompt tokens that it keeps for later."""
    reasoning: Rate | None = None
    """Of tokens of the reasoning, where they do not cost what those of the answer do."""
    request: Decimal = Decimal(0)
    """Dollars for each request."""
    source: str = ""
    """Where the price comes from."""
    context: int | None = None
    """The most tokens of prompt and answer."""
    batch: Decimal = BATCH_SHARE
    """The share of all of it that a request in a batch costs."""

    def cost(self, tokens: Tokens) -> Decimal:
        """Return what an answer costs, in dollars."""
        prompt = tokens.prompt or 0
        plain, answer = prompt, tokens.completion or 0
        total = self.request * MILLION if prompt or answer else Decimal(0)  # a refusal is free
        for rate, number in ((self.cached, tokens.cached), (self.written, tokens.written)):
            if rate is not None and number:
                part = min(number, plain)
                total, plain = total + rate.at(prompt) * part, plain - part
        if self.reasoning is not None and tokens.reasoning:
            part = min(tokens.reasoning, answer)
            total, answer = total + self.reasoning.at(prompt) * part, answer - part
        return (total + self.input.at(prompt) * plain + self.output.at(prompt) * answer) / MILLION

    def most(self, prompt: int, completion: int) -> Decimal:
        """Return the most that an answer of so many tokens can cost, however they are counted."""
        prompts = (0, 0), (prompt, 0), (0, prompt)  # some providers ask more for what they had read before
        ways = [Tokens(prompt, completion, *parts, thought) for parts in prompts for thought in (0, completion)]
        return max(map(self.cost, ways))

    def as_row(self) -> dict[str, Any]:
        """Return the price for x.meta.json: dollars per million tokens, and where it comes from."""
        rates = {"input": self.input, "output": self.output, "cached": self.cached}
        known = {name: float(rate.base) for name, rate in rates.items() if rate is not None}
        return {**known, "source": self.source}


FREE = Price(Rate(Decimal(0)), Rate(Decimal(0)), source="runs here")
"""Of a model that runs in this process."""


class PriceTag:
    """The price of one model, looked up when it is first needed.

    Args:
        spec: The model. None: it runs here.
        given: From `--price`; None if that names none.
    """

    def __init__(self, spec: Spec | None = None, given: Price | None = None) -> None:
        self._spec, self._price = spec, given
        self._task: asyncio.Task[Price | None] | None = None
        self.is_known = given is not None
        """Whether `look_up` has an answer at once; its answer may be that there is no price."""
        if given is None and (spec is None or not spec.has_price):
            self._price, self.is_known = FREE, True
        elif given is None and spec is not None and (spec.price or not is_listed(spec)):
            self._price, self.is_known = file_price(spec), True

    @property
    def is_free(self) -> bool:
        """Whether the model runs here."""
        return self._price is FREE

    def look_up(self) -> Price | None:
        """Return the price, or None if it is unknown. The first time it may take half a second."""
        if not self.is_known and self._spec is not None:
            self._price, self.is_known = listed_price(self._spec), True
        return self._price

    async def get(self) -> Price | None:
        """Return the price as `look_up` does; the event loop goes on meanwhile."""
        if self.is_known:
            return self._price
        if self._task is None:
            self._task = asyncio.ensure_future(asyncio.to_thread(self.look_up))
        return await self._task


def price_tags(specs: Iterable[Spec], options: Sequence[str]) -> dict[str, PriceTag]:
    """Return the price of each model by its identity.

    Args:
        specs: The models of a run.
        options: The values of `--price`: IN/OUT[/CACHED], or NAME=IN/OUT[/CACHED].

    Raises:
        InputError: A value is no price, names no model, or could be that of several.
    """
    served = {spec.identity: spec for spec in specs}
    given: dict[str, Price] = {}
    for text in options:
        name, _, value = text.rpartition("=")
        price = parse_price(text, value)
        named = [
            spec for spec in served.values() if spec.has_price and name in ("", spec.identity, spec.name, spec.alias)
        ]
        if not name:  # it is that of the model without a price in models.toml
            named = [spec for spec in named if not spec.price] or named
        if len(named) != 1:
            names = ", ".join(spec.identity for spec in served.values() if spec.has_price) or "none"
            fault = "names no model of this run" if not named else "several models: write NAME=IN/OUT"
            raise InputError(f"--price {text}: {fault} (models with a price: {names})")
        given[named[0].identity] = price
    return {identity: PriceTag(spec, given.get(identity)) for identity, spec in served.items()}


def parse_price(text: str, value: str) -> Price:
    """Parse IN/OUT[/CACHED]; `text` is the whole value of the option, for the message."""
    match = PRICE.fullmatch(value)
    if match is None:
        raise InputError(
            f"--price {text}: expected dollars per million tokens, IN/OUT or IN/OUT/CACHED, such as 0.15/0.6; of one "
            "of several models NAME=0.15/0.6"
        )
    dollars = [Decimal(number) for number in match.groups() if number is not None]
    return flat_price(*dollars, source="--price")


def flat_price(into: Decimal, out: Decimal, cached: Decimal | None = None, *, source: str) -> Price:
    """Return a price that is the same for prompts of every length."""
    return Price(Rate(into), Rate(out), None if cached is None else Rate(cached), source=source)


def file_price(spec: Spec) -> Price | None:
    """Return the price in models.toml, or None if there is none."""
    if not spec.price:
        return None
    dollars = {name: Decimal(str(number)) for name, number in spec.price.items()}
    price = flat_price(dollars["input"], dollars["output"], dollars.get("cached"), source=MODELS_FILE)
    return replace(price, batch=dollars.get("batch", BATCH_SHARE))


def is_listed(spec: Spec) -> bool:
    """Check that all addresses of a model are those of one provider that is known by its host."""
    providers = {provider_of(url) for url in spec.urls}
    return len(providers) == 1 and None not in providers


def listed_price(spec: Spec) -> Price | None:
    """Return the price in the list of genai-prices, or None if it has none for this model of this provider."""
    from genai_prices.data_snapshot import get_snapshot

    provider, snapshot = provider_of(spec.urls[0]), get_snapshot()
    for url in (spec.urls[0], provider.url if provider else ""):
        try:
            _, model = snapshot.find_provider_model(spec.name, None, None, url)
        except LookupError:
            continue
        return converted(model, datetime.now(UTC))
    return None


def converted(model: Any, day: datetime) -> Price | None:
    """Return the price of a model of genai-prices on a day, at its dearest hour; None if it is not one of tokens.

    Its own calculation takes 0.2 ms for each answer; a test compares the two.
    """
    hours = [model.get_prices(day.replace(hour=hour, minute=30)) for hour in range(24)]
    prices = [price for price in hours if price.input_mtok is not None and price.output_mtok is not None]
    if not prices:
        return None

    def dearness(price: Any) -> Decimal:
        return rate_of(price.output_mtok).base + rate_of(price.input_mtok).base

    price = max(prices, key=dearness)
    parts: dict[str, Any] = {
        "cached": price.cache_read_mtok,
        "written": price.cache_write_mtok,
        "reasoning": price.output_reasoning_mtok,
    }
    rates: dict[str, Any] = {name: rate_of(value) for name, value in parts.items() if value is not None}
    request = price.requests_kcount
    return Price(
        rate_of(price.input_mtok),
        rate_of(price.output_mtok),
        **rates,
        request=Decimal(0) if request is None else rate_of(request).base / 1000,
        source=f"genai-prices {version('genai-prices')}",
        context=model.context_window,
    )


def rate_of(value: Any) -> Rate:
    """Return a price of genai-prices as a rate."""
    if isinstance(value, Decimal):
        return Rate(value)
    return Rate(value.base, tuple((tier.start, tier.price) for tier in value.tiers))


def prompt_bound(call: Call) -> int:
    """Return the most tokens that the prompt of a call has: one for each byte, and what a chat template adds."""
    extra = {name: call.params[name] for name in PROMPT_PARAMS if name in call.params}
    texts = json.dumps([call.messages, extra] if extra else call.messages, ensure_ascii=False)
    return len(texts.encode(errors="surrogatepass")) + MESSAGE_MARGIN * len(call.messages) + CALL_MARGIN


def answer_limit(call: Call, context: int | None) -> int:
    """Return the most tokens that the answer to a call has; a vector has none.

    Args:
        call: The call.
        context: The most tokens of its model, where that is known.
    """
    return 0 if call.is_embedding else length_limit(call.params) or context or LONGEST_CONTEXT


def counted(call: Call, reply: Reply) -> tuple[Tokens, bool]:
    """Return the tokens of an answer, and whether some had to be estimated since the server does not count them."""
    tokens = reply.tokens
    if reply.status >= 400 or (tokens.prompt is not None and tokens.completion is not None):
        return tokens, False
    prompt = sum(len(str(message.get("content") or "").encode(errors="replace")) for message in call.messages)
    message = reply.parsed.get("choices", [{}])[0].get("message")
    answer = len(json.dumps(message, ensure_ascii=False).encode(errors="replace"))
    return replace_missing(tokens, prompt // BYTES_PER_TOKEN + 1, answer // BYTES_PER_TOKEN + 1), True


def replace_missing(tokens: Tokens, prompt: int, completion: int) -> Tokens:
    """Fill in the numbers that a server does not give."""
    return tokens._replace(
        prompt=prompt if tokens.prompt is None else tokens.prompt,
        completion=completion if tokens.completion is None else tokens.completion,
    )


def usage_of(call: Call, reply: Reply, price: Price | None) -> Usage:
    """Return the account of one answer; without a price it is one of unknown cost."""
    tokens, is_estimated = counted(call, reply)
    cost = Decimal(0) if price is None else price.cost(tokens) * share_of(reply, price)
    counts = tokens.prompt or 0, tokens.completion or 0, tokens.cached, tokens.reasoning
    return Usage(1, *counts, int(is_estimated), int(price is None), cost)


def share_of(reply: Reply, price: Price) -> Decimal:
    """Return the share of a price that an answer costs."""
    return price.batch if reply.is_batched else Decimal(1)


def dollars(amount: Decimal | float) -> str:
    """Format dollars: cents, and below ten cents two digits that are not 0."""
    value = Decimal(str(amount))
    if not value or value >= Decimal("0.1"):
        return f"${value:,.2f}"
    return f"${value:.{1 - value.adjusted()}f}"
