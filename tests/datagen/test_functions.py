"""A Python function as a model: FILE.py:NAME, or a callable in memory. Its answers are those of any other model."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from datagen.errors import CallFailed, InputError
from datagen.llm.call import Call, Reply, Transient
from datagen.llm.functions import FunctionModel, load_function
from datagen.llm.spec import parse_spec
from datagen.objects import remember
from tests.jobs import digest, respond, rows, write_seeds

ANSWER = """
calls = []

async def answer(messages, **params):
    calls.append(messages)
    return {"text": f"It is {messages[-1]['content']}", "reasoning": "Let me see.",
            "usage": {"prompt_tokens": 3, "completion_tokens": 4}}

def plain(messages, temperature=1.0):
    return f"{messages[-1]['content']} at {temperature}"
"""


def write_model(text: str = ANSWER, path: str = "mymodel.py") -> str:
    Path(path).write_text(text)
    return path


def ask(function: Any, *, timeout: float = 5.0, **params: Any) -> Reply:
    """Send one call to a function."""
    call = Call(b"", "f", [{"role": "user", "content": "Hi"}], params, 0, 1, "answer", {})
    return asyncio.run(FunctionModel(parse_spec(remember(function)), timeout).send(call))


def test_its_answers_become_rows_with_reasoning_usage_and_identity() -> None:
    file = write_model()
    respond(write_seeds(3), f"{file}:answer", reasoning="keep")
    row = rows("out.jsonl")[0]
    assert row["response"] == "It is Describe thing number 0 in a few words."
    assert row["reasoning"] == "Let me see."
    assert row["meta"]["usage"] == {"prompt_tokens": 3, "completion_tokens": 4}
    assert row["meta"]["model"] == parse_spec(f"{file}:answer").identity
    assert row["meta"]["model"].startswith("mymodel.py:answer/")


def test_a_second_run_calls_nothing_and_an_edited_file_is_another_model() -> None:
    file = write_model()
    respond(write_seeds(3), f"{file}:answer")
    assert respond(Path("seeds.jsonl"), f"{file}:answer", overwrite=True).run["requests"] == 0
    write_model(ANSWER.replace("It is", "It was"))
    assert respond(Path("seeds.jsonl"), f"{file}:answer", overwrite=True).run["requests"] == 3
    assert rows("out.jsonl")[0]["response"].startswith("It was")


def test_64_calls_run_at_once_also_in_threads_and_change_no_byte() -> None:
    write_model("import time\n\ndef slow(messages):\n    time.sleep(0.2)\n    return messages[-1]['content'].upper()\n")
    write_seeds(64)
    start = time.monotonic()
    respond(Path("seeds.jsonl"), "mymodel.py:slow", "a/out.jsonl", concurrency="64")
    assert time.monotonic() - start < 6, "one after the other they take 13 seconds"
    respond(Path("seeds.jsonl"), "mymodel.py:slow", "b/out.jsonl", concurrency="7")
    assert digest("a/out.jsonl") == digest("b/out.jsonl")


def test_a_function_gets_the_parameters_that_it_names() -> None:
    def plain(messages: Any, temperature: float = 1.0) -> str:
        return f"{temperature}"

    def every(messages: Any, **params: Any) -> str:
        return json.dumps(params)

    assert ask(plain, temperature=0.5, max_tokens=9).text == "0.5"
    assert ask(every, temperature=0.5, max_tokens=9).text == '{"temperature": 0.5, "max_tokens": 9}'


def test_a_function_cannot_change_the_request() -> None:
    def greedy(messages: list[dict[str, str]]) -> str:
        messages.clear()
        return "gone"

    call = Call(b"", "f", [{"role": "user", "content": "Hi"}], {}, 0, 1, "answer", {})
    asyncio.run(FunctionModel(parse_spec(remember(greedy)), 5).send(call))
    assert call.messages == [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (7, "TypeError: returned a value of type int; an answer is a text, or a dict with text"),
        (None, "returned a value of type NoneType"),
        ({"text": "x", "content": "y"}, "returned a dict with 'content'; it may have text, reasoning"),
        ({"text": ["x"]}, "returned a dict whose 'text' is a value of type list, not str"),
        ({"text": "x", "usage": {"cost": float("nan")}}, "ValueError: Out of range float values"),
        ({"text": "x", "usage": {"cost": object()}}, "TypeError: Object of type object is not JSON serializable"),
    ],
)
def test_what_is_no_answer_is_a_failed_call(value: object, problem: str) -> None:
    with pytest.raises(CallFailed, match="function error") as caught:
        ask(lambda messages: value)
    assert problem in caught.value.detail


@pytest.mark.parametrize("kind", ["async", "plain"])
@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (KeyError("nope\nand more"), CallFailed),
        (SystemExit(3), CallFailed),
        (StopIteration(), CallFailed),
        (asyncio.CancelledError(), CallFailed),
        (ConnectionResetError("gone"), Transient),
        (TimeoutError(), Transient),
    ],
    ids=repr,
)
def test_only_faults_of_a_connection_are_tried_again(kind: str, error: BaseException, failure: type[Exception]) -> None:
    def plain(messages: Any) -> str:
        raise error

    async def function(messages: Any) -> str:
        raise error

    with pytest.raises(failure) as caught:
        ask(plain if kind == "plain" else function)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("status", "busy"), [(429, True), (503, True), (500, False)])
def test_a_client_that_says_that_its_server_is_busy_is_believed(status: int, busy: bool) -> None:
    class ClientError(Exception):
        status_code = status

    async def function(messages: Any) -> str:
        raise ClientError

    with pytest.raises(Transient) as caught:
        ask(function)
    assert caught.value.rate_limited is busy


def test_a_failed_call_is_a_failed_row_that_names_the_line_and_is_called_again() -> None:
    write_model(
        "def answer(messages):\n    if '1' in str(messages):\n        raise KeyError('nope')\n    return 'ok'\n"
    )
    outcome = respond(write_seeds(3), "mymodel.py:answer")
    assert outcome.result["funnel"]["failed"] == {"function error": 1}
    assert rows("out.rejected.jsonl")[0]["record"]["error"] == "mymodel.py:answer: KeyError: 'nope'"
    assert [note for note in outcome.notes if note.endswith("mymodel.py:3 (1 time)")]
    assert respond(Path("seeds.jsonl"), "mymodel.py:answer").run["requests"] == 1


def test_a_price_counts_the_tokens_that_the_function_names() -> None:
    file = write_model()
    with pytest.raises(InputError, match=r"--max-cost: the price of mymodel.py:answer is unknown"):
        respond(write_seeds(2), f"{file}:answer", max_cost=1.0)
    outcome = respond(write_seeds(2), f"{file}:answer", price=["1/2"])
    assert outcome.run["usage"]["cost"] == pytest.approx(2 * (3 * 1 + 4 * 2) / 1e6)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("class answer: ...", "is the class answer; a model is a function of the messages"),
        ("answer = 3", "is a value of type int; a model is a function"),
        ("def answer(): ...", "takes no messages"),
        ("def answer(*, messages): ...", "takes no messages"),
        ("def answer(messages, key): ...", "its parameter key has no default"),
        ("def answers(messages): ...", "has no answer. Did you mean answers?"),
    ],
)
def test_what_is_no_model_is_refused_before_anything_is_sent(text: str, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        respond(write_seeds(1), f"{write_model(text)}:answer")
    assert problem in str(caught.value)


def test_what_a_function_cannot_do_is_refused() -> None:
    file = write_model()
    with pytest.raises(InputError, match=r"--ray: mymodel.py:answer is a function of this process"):
        respond(write_seeds(1), f"{file}:answer", ray="local:2")


def test_callables_in_memory_are_told_apart_by_what_they_close_over() -> None:
    def teacher_of(word: str) -> Any:
        return lambda messages: word

    assert remember(teacher_of("a")) == remember(teacher_of("a"))
    assert remember(teacher_of("a")) != remember(teacher_of("b"))
    two = [lambda messages: "a", lambda messages: "b"]
    assert remember(two[0]) != remember(two[1])
    assert remember(teacher_of("a"), "mine").startswith("mine/")


def test_an_object_with_call_and_a_bound_method_are_models() -> None:
    class Server:
        async def __call__(self, messages: Any) -> str:
            return "called"

        def answer(self, messages: Any) -> str:
            return "bound"

    assert ask(Server()).text == "called"
    assert ask(Server().answer).text == "bound"
    function, names = load_function(parse_spec(remember(Server())))
    assert callable(function)
    assert names == frozenset()


@pytest.mark.parametrize("kind", ["async", "plain"])
def test_a_function_that_never_returns_times_out(kind: str) -> None:
    def plain(messages: Any) -> str:
        time.sleep(2)
        return ""

    async def function(messages: Any) -> str:
        await asyncio.sleep(2)
        return ""

    with pytest.raises(Transient, match=r"no answer in 0.05 s") as caught:
        ask(plain if kind == "plain" else function, timeout=0.05)
    assert caught.value.timed_out


NEVER = """
import asyncio, time

async def never(messages):
    await asyncio.sleep(1000)

def never_in_a_thread(messages):
    time.sleep(1000)
"""


@pytest.fixture
def process() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for one in started:
        one.kill()
        one.communicate()


@pytest.mark.parametrize("name", ["never", "never_in_a_thread"])
def test_a_second_ctrl_c_ends_a_function_that_never_returns(name: str, process: list[subprocess.Popen[str]]) -> None:
    file = write_model(NEVER)
    write_seeds(2)
    command = [sys.executable, "-m", "datagen", "respond", "seeds.jsonl", "--model", f"{file}:{name}"]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    process.append(run)
    while not Path(".datagen/journal.sqlite3").exists():
        assert run.poll() is None
        time.sleep(0.05)
    time.sleep(0.5)
    run.send_signal(2)
    time.sleep(0.5)
    run.send_signal(2)
    assert run.wait(10) == 130
