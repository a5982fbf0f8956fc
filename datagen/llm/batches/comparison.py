"""Which is cheaper for some calls: a batch, or one by one with the provider's prompt cache.

A batch costs a share of the price (`Price.batch`). Its requests share no cache. Requests that are sent one by one pay
less for the part of a prompt that others begin with. Answers are never cached, so the longer they are, the better is
the batch: the length at which both cost the same decides.
"""

from collections.abc import Sequence
from decimal import Decimal
from itertools import pairwise

from datagen.llm.call import Call
from datagen.llm.prices import BYTES_PER_TOKEN, Price

LEAST_CACHED, CACHE_STEP = 1024, 128
"""Tokens: "available for prompts containing 1024 tokens or more", "in increments of 128 tokens",
https://platform.openai.com/docs/guides/prompt-caching."""


def comparison(model: str, calls: Sequence[Call], price: Price | None) -> str:
    """Say which way is cheaper for the calls of a model.

    Args:
        model: Its identity.
        calls: All of them, or a sample.
        price: None if it is unknown.
    """
    what = f"Batch or one by one, for {model}"
    if price is None:
        return f"{what}: unknown, there is no price (--price IN/OUT/CACHED)"
    prompt, cached = prompt_tokens(calls)
    share = f"{100 * cached // max(prompt, 1)} % of the tokens of the prompts are a beginning that others share"
    answer = break_even(prompt, cached, len(calls), price)
    if answer < 1:
        why = share if price.cached is not None else "no price for cached tokens is known"
        return f"{what}: a batch is cheaper, at {100 * price.batch:.0f} % of the price ({why})"
    return (
        f"{what}: without --batch the prompt cache makes it cheaper, unless answers are longer than {answer:,.0f} "
        f"tokens on average ({share})"
    )


def break_even(prompt: int, cached: int, calls: int, price: Price) -> Decimal:
    """Return the tokens of an answer at which both ways cost the same; with longer ones the batch is cheaper.

    Args:
        prompt: Tokens of all prompts.
        cached: Those of them that a cache would serve.
        calls: Their number.
        price: Of the model.
    """
    into, out = price.input.base, price.output.base
    saved_by_cache = cached * (into - (into if price.cached is None else price.cached.base))
    saved_by_batch = (1 - price.batch) * into * prompt
    per_token = (1 - price.batch) * out * calls
    if saved_by_cache <= saved_by_batch:
        return Decimal(0)
    return (saved_by_cache - saved_by_batch) / per_token if per_token else Decimal("Infinity")


def prompt_tokens(calls: Sequence[Call]) -> tuple[int, int]:
    """Return the tokens of all prompts, and of these the ones that a cache would serve: the longest beginning that a
    prompt shares with another one. Both are estimated from the length of the texts."""
    texts = sorted(prompt_text(call) for call in calls)
    shared = [0, *(shared_length(first, second) for first, second in pairwise(texts)), 0]
    longest = (max(before, behind) // BYTES_PER_TOKEN for before, behind in pairwise(shared))
    cached = sum(tokens // CACHE_STEP * CACHE_STEP for tokens in longest if tokens >= LEAST_CACHED)
    return sum(map(len, texts)) // BYTES_PER_TOKEN, cached


def shared_length(first: bytes, second: bytes) -> int:
    """Return how many bytes two texts begin with in common."""
    least, most = 0, min(len(first), len(second))
    while least < most:
        middle = (least + most + 1) // 2
        least, most = (middle, most) if first[:middle] == second[:middle] else (least, middle - 1)
    return least


def prompt_text(call: Call) -> bytes:
    """Return the texts of a prompt, one behind the other."""
    return "\n".join(str(message.get("content") or "") for message in call.messages).encode(errors="replace")
