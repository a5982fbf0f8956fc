"""What a server does to every request: a parameter that it refuses, a small context, a slow start, its way of writing
thoughts. The rows are those of a plain server, at every concurrency, in every later run and with the server down."""

import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from datagen.llm import limiter
from tests.permanent import error
from tests.reruns import run_three_times
from tests.spellings import SPELLINGS
from tests.wire import Pieces, http

PROMPTS = [f"ask {number}" for number in range(7)]
THOUGHT = "They ask for a number, and there is only one."
OPTIONS = ("--max-tokens", "900", "--param", "top_p=0.9", "--param", "seed=3", "--reasoning", "keep")
CONTEXT = 512
"""Tokens."""
COLD = 1.0
"""Seconds; a real server may take a minute, which is a tenth of the patience of a run."""
pytestmark = pytest.mark.usefixtures("one_certificate")
Answer = Callable[[bytes], Pieces]


def respond_to(request: dict[str, Any], spelling: str = "reasoning_content") -> Pieces:
    """Answer with a thought."""
    number = request["messages"][-1]["content"].split()[-1]
    message = {"role": "assistant", **SPELLINGS[spelling](THOUGHT, f"The answer to number {number} is plain.")}
    body = {
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 9},
    }
    return [http(200, json.dumps(body).encode())]


def refuses(parameter: str, wrap: Callable[[str], str]) -> Answer:
    """Refuse a parameter, in some wrapper."""

    def answer(body: bytes) -> Pieces:
        request = json.loads(body)
        is_limited = "max_tokens" in request or "max_completion_tokens" in request
        assert is_limited, "the length limit is renamed, and never left out"
        return [http(400, wrap(parameter).encode())] if parameter in request else respond_to(request)

    return answer


def spells(spelling: str) -> Answer:
    """Write thoughts in one way."""
    return lambda body: respond_to(json.loads(body), spelling)


def small_context(body: bytes) -> Pieces:
    """Take no more than CONTEXT tokens."""
    request = json.loads(body)
    if (total := request.get("max_tokens", 0) + 20) <= CONTEXT:
        return respond_to(request)
    words = f"This model's maximum context length is {CONTEXT} tokens. However, you requested {total} tokens"
    return error(400, f"{words} (20 in the messages, {total - 20} in the completion).")


def cold_start() -> Answer:
    """Load the model first."""
    begin = time.monotonic()

    def answer(body: bytes) -> Pieces:
        if time.monotonic() < begin + COLD:
            return error(503, "Model m is currently loading", estimated_time=20.0)
        return respond_to(json.loads(body))

    return answer


def as_openai(name: str) -> str:
    words = f"Unsupported parameter: '{name}' is not supported with this model."
    if name == "max_tokens":
        words += " Use 'max_completion_tokens' instead."
    fields = {"type": "invalid_request_error", "param": name, "code": "unsupported_parameter"}
    return json.dumps({"error": {"message": words, **fields}})


def as_pydantic(name: str) -> str:
    return json.dumps(
        {"detail": [{"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs are not permitted"}]}
    )


def as_google(name: str) -> str:
    words = f'Invalid JSON payload received. Unknown name "{name}": Cannot find field.'
    return json.dumps([{"error": {"code": 400, "message": words, "status": "INVALID_ARGUMENT"}}])


def as_proxy(name: str) -> str:
    words = f"litellm.BadRequestError: OpenAIException - Unknown parameter: '{name}'. Received Model Group=m"
    return json.dumps({"error": {"message": words, "type": None, "param": None, "code": "400"}})


def as_words(name: str) -> str:
    return f"TypeError: generate() got an unexpected keyword argument '{name}'"


WRAPPERS = (as_openai, as_pydantic, as_google, as_proxy, as_words)
REFUSED = ("max_tokens", "temperature", "top_p", "seed")
SPELLED = ("think", "mistral", "seed", "harmony", "opened", "reasoning", "thinking part", "details")
HABITS: dict[str, Callable[[], Answer]] = {
    **{f"{wrap.__name__} {name}": partial(refuses, name, wrap) for wrap in WRAPPERS for name in REFUSED},
    **{f"spelling {name}": partial(spells, name) for name in SPELLED},
    "small context": lambda: small_context,
    "cold start": cold_start,
}
QUICK = ("as_openai max_tokens", "as_google seed", "spelling opened", "small context", "cold start")


@pytest.fixture(autouse=True)
def quick_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limiter, "FIRST_BACKOFF", 0.05)


def check(name: str) -> None:
    """Run three times at both concurrencies, and look at the rows."""
    one, many = (
        run_three_times(f"{name}-{concurrency}", PROMPTS, HABITS[name](), concurrency, *OPTIONS, codes={0})
        for concurrency in (1, 64)
    )
    assert one == many
    for number, line in enumerate(one.splitlines()):
        row = json.loads(line)
        assert row["response"] == f"The answer to number {number} is plain."
        assert THOUGHT in json.dumps(row), f"{name}: the thought is lost"
    assert number == len(PROMPTS) - 1


@pytest.mark.parametrize("name", QUICK)
def test_the_rows_are_those_of_a_plain_server(name: str) -> None:
    check(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(HABITS.keys() - set(QUICK)))
def test_the_rows_are_those_of_a_plain_server_whatever_it_does(name: str) -> None:
    check(name)
