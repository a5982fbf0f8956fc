"""Refusals of parameters, as servers and proxies word them."""

import json
from typing import Any

import pytest

from datagen.llm.parameters import Parameters

PROMPT = [{"role": "user", "content": "x" * 100}]
LONG = [{"role": "user", "content": "x" * 100_000}]
SENT = {"max_tokens": 4096, "temperature": 0.7, "top_p": 0.9, "seed": 3}


def wrapped(message: str, **fields: Any) -> str:
    return json.dumps({"error": {"message": message, **fields}})


@pytest.mark.parametrize(
    ("body", "left"),
    [
        (wrapped("Unsupported parameter: 'seed'. Supported: temperature, top_p.", param="seed"), "seed"),
        (wrapped("OpenAIException - Unsupported value: 'temperature' does not support 0.7", param=None), "temperature"),
        (json.dumps({"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}),
         "seed"),
        (json.dumps([{"error": {"code": 400, "message": 'Unknown name "seed": Cannot find field.'}}]), "seed"),
        (json.dumps({"object": "error", "message": "top_p is not supported by this backend", "code": 400}), "top_p"),
        ("Bad request: unexpected keyword argument 'seed'", "seed"),
        (wrapped("`temperature` and `top_p` cannot both be specified for this model. Please use only one."), "top_p"),
    ],
)  # fmt: skip
def test_a_refused_parameter_is_left_out(body: str, left: str) -> None:
    model = Parameters("m at URL")
    assert model.learn(body, SENT, PROMPT)
    assert model.adapted(SENT, PROMPT) == {name: value for name, value in SENT.items() if name != left}
    assert list(model.notes) == [f"m at URL: {left} is refused and was left out"]
    model.learn(body, SENT, PROMPT)
    assert len(model.notes) == 1, "said once"


def test_max_tokens_is_sent_under_its_new_name() -> None:
    model = Parameters("m at URL")
    assert model.learn(wrapped("'max_tokens' is not supported. Use 'max_completion_tokens' instead."), SENT, PROMPT)
    sent = model.adapted(SENT, PROMPT)
    assert "max_tokens" not in sent and sent["max_completion_tokens"] == 4096


@pytest.mark.parametrize(
    "words",
    [
        "Your prompt was flagged: the temperature of the reactor is no topic here.",
        "The response was filtered.",
        "'tools' is not supported with this model.",
        "Unsupported characters in the prompt.",
        '{"not": "words"}',
        "",
    ],
)
def test_other_refusals_stand(words: str) -> None:
    model = Parameters("m at URL")
    sent = {**SENT, "tools": []}
    assert not model.learn(wrapped(words), sent, PROMPT) and not model.learn(words, sent, PROMPT)
    assert model.adapted(sent, PROMPT) == sent


@pytest.mark.parametrize(
    ("words", "fits"),
    [
        ("This model's maximum context length is 2048 tokens. However, you requested 4116 tokens (20 in the messages, "
         "4096 in the completion).", 2026),
        ("This model's maximum context length is 2048 tokens. However, you requested 4116 tokens.", 2026),
        ("'max_tokens' is too large: 4096. This model's maximum context length is 2,048 tokens and your request has 20 "
         "input tokens (4096 > 2048 - 20).", 2026),
        ("max_tokens: 4096 > 1024, which is the maximum allowed number of output tokens for m", 1024),
        ("max_tokens is too large: 4096. This model supports at most 1024 completion tokens", 1024),
        ("Range of max_tokens should be [1, 1024]", 1024),
    ],
)  # fmt: skip
def test_the_length_limit_is_lowered_to_what_fits(words: str, fits: int) -> None:
    model = Parameters("m at URL")
    assert model.learn(wrapped(words), SENT, PROMPT)
    assert model.adapted(SENT, PROMPT) == {**SENT, "max_tokens": fits}
    assert model.adapted({"max_tokens": 10}, PROMPT) == {"max_tokens": 10}


def test_a_prompt_that_fills_the_context_is_refused() -> None:
    model = Parameters("m at URL")
    model.learn(
        wrapped("maximum context length is 2048 tokens, you requested 4116 tokens (20 in the messages)"), SENT, PROMPT
    )
    assert model.adapted(SENT, LONG) == SENT, "nothing fits: the words of the server are the answer"
