"""Prices: where they come from, what an answer costs, and the numbers of tokens in every spelling."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import pytest

from datagen.commands.terminal import account_lines
from datagen.errors import InputError
from datagen.llm.call import Reply
from datagen.llm.dialects import Tokens, read_tokens
from datagen.llm.keys import PROVIDERS
from datagen.llm.prices import FREE, PriceTag, converted, dollars, flat_price, parse_price, price_tags
from datagen.llm.spec import parse_spec
from tests.jobs import evolve, respond, write_seeds
from tests.server import Server, http, running

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}, (9, 4, 0, 0, 0)),
        (
            {
                "prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 8},
                "completion_tokens_details": {"reasoning_tokens": 3},
            },
            (9, 4, 8, 0, 3),
        ),
        # Anthropic: what is cached stands beside the input.
        (
            {
                "input_tokens": 9, "output_tokens": 4, "cache_read_input_tokens": 100,
                "cache_creation_input_tokens": 50,
            },
            (159, 4, 100, 50, 0),
        ),
        # A proxy before it counts the cached ones in, as OpenAI does.
        ({"prompt_tokens": 109, "completion_tokens": 4, "cache_read_input_tokens": 100}, (109, 4, 100, 0, 0)),
        # The Responses API.
        (
            {
                "input_tokens": 9, "output_tokens": 4, "input_tokens_details": {"cached_tokens": 8},
                "output_tokens_details": {"reasoning_tokens": 2},
            },
            (9, 4, 8, 0, 2),
        ),
        # DeepSeek, Moonshot, OpenRouter.
        ({"prompt_tokens": 9, "completion_tokens": 4, "prompt_cache_hit_tokens": 7}, (9, 4, 7, 0, 0)),
        ({"prompt_tokens": 9, "completion_tokens": 4, "cached_tokens": 7}, (9, 4, 7, 0, 0)),
        (
            {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cache_write_tokens": 5}},
            (9, 4, 0, 5, 0),
        ),
        # Gemini and xAI: the reasoning is in the total alone.
        ({"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 113}, (9, 104, 0, 0, 0)),
        (
            {
                "prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 113,
                "completion_tokens_details": {"reasoning_tokens": 100},
            },
            (9, 104, 0, 0, 100),
        ),
        # What cannot be true is not known.
        ({"prompt_tokens": -1, "completion_tokens": True, "total_tokens": 1e9}, (None, None, 0, 0, 0)),
        ({"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": None}, (9, 4, 0, 0, 0)),
        (None, (None, None, 0, 0, 0)),
    ],
)  # fmt: skip
def test_tokens_in_every_spelling(usage: Any, tokens: tuple[int | None, ...]) -> None:
    assert read_tokens(usage) == tokens
    reply = Reply(200, json.dumps({"choices": [{"message": {"content": "a"}}], "usage": usage}))
    assert reply.tokens == tokens
    assert reply.usage == {"prompt_tokens": tokens[0], "completion_tokens": tokens[1]}


def listed_models() -> Iterator[tuple[Any, Any]]:
    """Yield provider and model of genai-prices for the providers that we know."""
    from genai_prices.data_snapshot import get_snapshot

    for ours in PROVIDERS:
        try:
            provider = get_snapshot().find_provider(None, None, ours.url)
        except LookupError:
            continue
        yield from ((provider, model) for model in provider.models)


def test_costs_are_those_that_genai_prices_calculates() -> None:
    """For every model of every provider, with prompts on both sides of the tiers."""
    from genai_prices import Usage

    dice, compared = Random(1), 0
    for provider, model in listed_models():
        has_hours = (
            any(hasattr(part.constraint, "start_time") for part in model.prices)
            if isinstance(model.prices, list)
            else False
        )
        hours = [NOON.replace(hour=hour, minute=30) for hour in (range(24) if has_hours else (12,))]
        price = converted(model, NOON)
        if price is None:
            continue
        sums = []
        for _ in range(2):
            prompt, completion = dice.randint(1, 400_000), dice.randint(1, 9_000)
            cached, reasoning = dice.randint(0, prompt), dice.randint(0, completion)
            usage = Usage(
                input_tokens=prompt, output_tokens=completion, cache_read_tokens=cached,
                output_reasoning_tokens=reasoning,
            )  # fmt: skip
            theirs = max(model.calc_price(usage, provider, genai_request_timestamp=hour).total_price for hour in hours)
            sums.append(abs(price.cost(Tokens(prompt, completion, cached, 0, reasoning)) - theirs))
            assert price.most(prompt, completion) >= theirs
        assert max(sums) < Decimal("1e-9"), (provider.id, model.id, price)
        compared += 1
    assert compared > 300


def tag(spec: str, *options: str) -> PriceTag:
    (price,) = price_tags([parse_spec(spec)], options).values()
    return price


def test_the_price_is_that_of_the_provider_at_the_address() -> None:
    price = tag("gpt-4o-mini@https://api.openai.com/v1").look_up()
    assert price is not None and price.source.startswith("genai-prices ")
    assert price.cost(Tokens(1_000_000, 0)) == Decimal("0.15")
    assert tag("gpt-4o-mini").look_up() == price
    for nobody in (
        "gpt-4o-mini@http://127.0.0.1:8000/v1", "gpt-4o-mini@https://api.openai.com.example.org/v1",
        "gpt-4o-mini@http://10.0.0.5:8000/v1", "gpt-4o-mini@https://proxy.example.org/v1", "no-such-model",
    ):  # fmt: skip
        assert tag(nobody).look_up() is None, nobody


def test_what_runs_here_is_free() -> None:
    assert tag("sim").look_up() is FREE and FREE.most(10**6, 10**6) == 0


def test_a_price_of_ones_own() -> None:
    price = tag("m@http://127.0.0.1:9/v1", "0.5/2").look_up()
    assert price == flat_price(Decimal("0.5"), Decimal(2), source="--price")
    assert price.cost(Tokens(1000, 100, cached=400)) == Decimal("0.0007")
    cached = tag("m@http://127.0.0.1:9/v1", "m=0.5/2/0.1").look_up()
    assert cached is not None and cached.cost(Tokens(1000, 100, cached=400)) == Decimal("0.00054")


def test_a_price_names_its_model() -> None:
    Path("models.toml").write_text(
        '[models.judge]\nname = "j"\nurl = "http://127.0.0.1:9/v1"\nprice = {input = 1, output = 2}\n'
    )
    specs = [parse_spec("m@http://127.0.0.1:9/v1"), parse_spec("judge"), parse_spec("sim")]
    for options in (["3/4"], ["m=3/4"]):  # the other model has its price in the file
        tags = price_tags(specs, options)
        assert [t.look_up().source for t in tags.values()] == ["--price", "models.toml", "runs here"]  # type: ignore[union-attr]
    both = price_tags(specs, ["m=3/4", "judge=5/6"])
    assert [t.look_up().output.base for t in both.values()] == [4, 6, 0]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1", "expected dollars per million tokens"), ("1/-2", "expected dollars"), ("a/b", "expected dollars"),
        ("x=1/2", "names no model of this run (models with a price: a, b)"), ("1/2", "several models"),
    ],
)  # fmt: skip
def test_a_wrong_price_is_one_line(text: str, says: str) -> None:
    specs = [parse_spec("a@http://127.0.0.1:9/v1"), parse_spec("b@http://127.0.0.1:9/v1")]
    with pytest.raises(InputError, match=r"--price") as raised:
        price_tags(specs, [text])
    assert says in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0, "$0.00"), (0.1, "$0.10"), (0.0123456, "$0.012"), (0.00000123, "$0.0000012"), (1234.567, "$1,234.57")],
)
def test_dollars_show_two_digits(amount: float, text: str) -> None:
    assert dollars(amount) == text


def test_the_account_says_what_the_rows_cost_and_for_what() -> None:
    with running(Server()) as server:
        outcome = evolve(write_seeds(4), f"m@{server.url}", rounds=2, price=["1000/2000"])
    usage, parts = outcome.result["usage"], outcome.result["spending"]
    cost = (usage["prompt_tokens"] * 1000 + usage["completion_tokens"] * 2000) / 1_000_000
    assert usage["cost"] == outcome.run["paid"] == pytest.approx(cost)
    assert sum(part["cost"] for part in parts) == pytest.approx(cost)
    assert {part["round"] for part in parts} == {1, 2}
    assert {"answer", "evolve/equal"} < {part["template"] for part in parts}
    text = "\n".join(account_lines(outcome.result, outcome.run))
    assert f"cost {dollars(cost)}, " in text and "a kept row" in text and "(prices: --price)" in text
    again = evolve(write_seeds(4), f"m@{server.url}", rounds=2, price=["1000/2000"], overwrite=True)
    assert again.result == outcome.result and again.run["paid"] == 0


def test_an_unknown_price_is_unknown_and_not_0() -> None:
    with running(Server()) as server:
        outcome = respond(write_seeds(2), f"m@{server.url}")
    assert outcome.result["usage"]["cost"] is None and outcome.run["paid"] is None
    assert outcome.result["usage"]["completion_tokens"] > 0
    assert "cost unknown: there is no price for m" in "\n".join(account_lines(outcome.result, outcome.run))


def test_an_answer_without_numbers_of_tokens_is_estimated_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def reply(self: Server, request: dict[str, Any], entry: Any) -> bytes:
        choice = {"message": {"role": "assistant", "content": "a " * 300}, "finish_reason": "stop"}
        return http(200, json.dumps({"choices": [choice]}).encode())

    monkeypatch.setattr(Server, "reply", reply)
    with running(Server()) as server:
        outcome = respond(write_seeds(2), f"m@{server.url}", price=["1/10"])
    assert outcome.result["usage"]["estimated"] == 2
    assert 300 < outcome.result["usage"]["completion_tokens"] < 600
    assert "theirs are estimated" in "\n".join(account_lines(outcome.result, outcome.run))
    row = json.loads(Path("out.jsonl").read_text().splitlines()[0])
    assert "null" in json.dumps(row["meta"]), "a row says what the server said"


def test_parsing_a_price_is_exact() -> None:
    assert parse_price("0.1/0.3", "0.1/0.3").cost(Tokens(3, 1)) == Decimal("0.0000006")
