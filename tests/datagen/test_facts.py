"""What a run learns about a server is used by the next runs, and forgotten where it proves wrong."""

import asyncio
import json
import sqlite3
import ssl
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from datagen.llm import facts as facts_module
from datagen.llm.budget import Stop
from datagen.llm.call import Call, Reply
from datagen.llm.facts import Facts
from datagen.llm.limiter import Limiter
from datagen.llm.names import is_same_model
from datagen.llm.pace import Pace
from datagen.llm.parameters import Parameters
from tests.jobs import digest, respond, write_seeds
from tests.server import Server, running

Refuse = Callable[[dict[str, Any]], tuple[int, dict[str, Any]] | None]
PROMPT = [{"role": "user", "content": "x" * 100}]


@pytest.fixture(autouse=True)
def one_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most of the time to open an endpoint is that of reading all certificates."""
    if known := ssl.create_default_context().get_ca_certs(binary_form=True):
        Path("one.pem").write_text(ssl.DER_cert_to_PEM_cert(known[0]))
        monkeypatch.setenv("SSL_CERT_FILE", "one.pem")


def refusal(message: str) -> tuple[int, dict[str, Any]]:
    return 400, {"error": {"message": message}}


def refuse_names(*names: str) -> Refuse:
    """Refuse parameters, as reasoning models do."""

    def refuse(request: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        name = next((name for name in names if name in request), None)
        return refusal(f"Unsupported parameter: '{name}' is not supported with this model.") if name else None

    return refuse


def refuse_longer_than(most: int) -> Refuse:
    def refuse(request: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        is_longer = request.get("max_tokens", 0) > most
        return refusal(f"max_tokens is too large. This model supports at most {most} tokens.") if is_longer else None

    return refuse


def run(server: Server, first: int, output: str, **options: Any) -> list[str]:
    """Answer five prompts that no other run has; return what is said."""
    rows = ({"prompt": f"Name thing {first + i}."} for i in range(5))
    Path("prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    server.requests = 0
    settings = {"param": ["seed=3"], "temperature": 0.5, "max_tokens": 400, "concurrency": "2", **options}
    outcome = respond(Path("prompts.jsonl"), f"m@{server.url}", output, **settings)
    assert outcome.result["funnel"]["kept"] == 5
    return [note.partition("/v1: ")[2] for note in outcome.notes]


def stored() -> list[tuple[str, float, str]]:
    with closing(sqlite3.connect(".datagen/journal.sqlite3")) as database:
        return database.execute("SELECT place, learned, facts FROM facts").fetchall()


def change(statement: str, *values: object) -> None:
    with closing(sqlite3.connect(".datagen/journal.sqlite3")) as database, database:
        database.execute(statement, values)


def test_the_next_run_sends_no_request_that_is_refused() -> None:
    with running(Server(refuse=refuse_names("max_tokens", "temperature"))) as server:
        first = run(server, 0, "a.jsonl")
        assert server.requests > 5
        assert len(first) == 2 and all("is refused" in note for note in first)
        second = run(server, 100, "b.jsonl")
        assert server.requests == 5
        assert second == ["remembered: temperature left out; max_tokens sent as max_completion_tokens"]
        ((place, _, text),) = stored()
        assert place == f"m at {server.url}"
        assert json.loads(text) == {"left out": ["temperature"], "renamed": True}


def test_rows_and_keys_are_those_of_a_run_that_learns_it_anew() -> None:
    with running(Server(refuse=refuse_names("temperature"))) as server:
        run(server, 0, "other.jsonl")
        run(server, 100, "a.jsonl")
        Path("elsewhere").mkdir()
        run(server, 100, "elsewhere/b.jsonl")
    assert digest("a.jsonl") == digest("elsewhere/b.jsonl")


def test_a_run_that_asks_for_nothing_says_nothing_of_it() -> None:
    with running(Server(refuse=refuse_names("temperature"))) as server:
        run(server, 0, "a.jsonl")
        assert run(server, 0, "b.jsonl") == []
        assert server.requests == 0


def test_facts_of_a_week_ago_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with running(Server(refuse=refuse_names("temperature"))) as server:
        run(server, 0, "a.jsonl")
        change("UPDATE facts SET learned = learned - ?", facts_module.KEPT_SECONDS - 60)
        run(server, 100, "b.jsonl")
        assert server.requests == 5, "a minute before"
        change("UPDATE facts SET learned = learned - 120")
        run(server, 200, "c.jsonl")
        assert server.requests > 5
        change("UPDATE facts SET learned = learned + 1e6")
        run(server, 300, "d.jsonl")
        assert server.requests > 5, "a date in the future"


@pytest.mark.parametrize(
    "damage",
    [
        "DROP TABLE facts",
        "UPDATE facts SET facts = 'no json'",
        "UPDATE facts SET facts = '[1]', learned = 'x'",
        """UPDATE facts SET facts = '{"left out": ["messages", 5, "tools"], "longest": "x", "context": [0, -1]}'""",
        "UPDATE facts SET facts = x'ff00ff'",
    ],
)
def test_facts_that_cannot_be_read_are_learned_anew(damage: str) -> None:
    with running(Server(refuse=refuse_names("temperature"))) as server:
        run(server, 0, "a.jsonl")
        change(damage)
        assert run(server, 100, "b.jsonl") == ["temperature is refused and was left out"]
        run(server, 200, "c.jsonl")
        assert server.requests == 5


def test_a_table_of_another_form_loses_no_answer() -> None:
    with running(Server()) as server:
        run(server, 0, "a.jsonl")
        change("DROP TABLE facts")
        change("CREATE TABLE facts (other TEXT)")
        run(server, 0, "b.jsonl")
        assert server.requests == 0


def test_a_parameter_that_is_asked_for_again_is_sent_again() -> None:
    with running(Server(refuse=refuse_names("temperature"))) as server:
        run(server, 0, "a.jsonl")
        server.refuse = lambda request: None if "temperature" in request else refusal("temperature: field required")
        notes = run(server, 100, "b.jsonl")
        assert any("holds no longer and was forgotten: left out" in note for note in notes)
        run(server, 200, "c.jsonl")
        assert server.requests == 5 and stored() == []


def test_the_old_name_of_the_length_is_sent_again_where_the_new_one_is_refused() -> None:
    with running(Server(refuse=refuse_names("max_tokens"))) as server:
        run(server, 0, "a.jsonl")
        server.refuse = refuse_names("max_completion_tokens")
        run(server, 100, "b.jsonl")
        run(server, 200, "c.jsonl")
        assert server.requests == 5 and stored() == []
        server.refuse = refuse_names("max_tokens", "max_completion_tokens")
        run(server, 300, "d.jsonl")
        run(server, 400, "e.jsonl")
        assert server.requests == 5, "neither is sent"


def long_answer(*_: object) -> str:
    return "word " * 30


def test_a_length_that_may_have_cut_an_answer_is_forgotten() -> None:
    sent: list[int] = []

    def watch(refuse: Refuse) -> Refuse:
        def watched(request: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
            sent.append(request["max_tokens"])
            return refuse(request)

        return watched

    with running(Server(answer=long_answer, refuse=watch(refuse_longer_than(100)))) as server:
        run(server, 0, "a.jsonl")
        sent.clear()
        run(server, 100, "b.jsonl")
        assert set(sent) == {100}
        server.refuse = watch(lambda _: None)
        sent.clear()
        model = Parameters("m at URL")
        ((_, learned, text),) = stored()
        model.recall(Facts(json.loads(text), learned))
        params = {"max_tokens": 400}
        model.check(answer("length", 100), params, model.adapted(params, PROMPT))
        assert model.adapted(params, PROMPT) == params


def answer(finish: str, tokens: int) -> Reply:
    choice = {"message": {"content": "word"}, "finish_reason": finish}
    return Reply(200, json.dumps({"choices": [choice], "usage": {"prompt_tokens": 0, "completion_tokens": tokens}}))


def remembered(**values: Any) -> Parameters:
    model = Parameters("m at URL")
    model.recall(Facts(values, 1.0))
    return model


def test_lengths_stand_until_an_answer_shows_something_else() -> None:
    model, params = remembered(longest=100, context=[1000, 0.5]), {"max_tokens": 400}
    sent = model.adapted(params, PROMPT)
    assert sent == {"max_tokens": 100}
    model.check(answer("stop", 100), params, sent)
    model.check(answer("length", 50), {"max_tokens": 50}, {"max_tokens": 50})
    assert model.values == {"longest": 100, "context": [1000, 0.5]}, "whole, or cut at the limit of the call itself"
    model.check(answer("stop", 1001), params, sent)
    assert model.values == {"longest": 100}, "longer than the context"
    model.check(answer("length", 100), params, sent)
    assert model.values == {} and model.adapted(params, PROMPT) == params


def test_the_date_is_that_of_the_oldest_fact() -> None:
    model = remembered(longest=100)
    model.learn('{"error": "Unsupported parameter: seed"}', {"seed": 1}, PROMPT)
    assert model.facts == Facts({"left out": ["seed"], "longest": 100}, 1.0)
    model.learn('{"error": "max_tokens: at most 90"}', {"max_tokens": 100}, PROMPT)
    assert model.facts.learned > 1e9, "all of it was learned in this run"


def test_a_refusal_of_something_else_forgets_nothing() -> None:
    model = remembered(**{"left out": ["seed"]})
    assert not model.learn('{"error": "Your prompt was flagged."}', {"temperature": 1}, PROMPT)
    assert model.values == {"left out": ["seed"]}


class Clocked:
    """A layer that answers at once and keeps the times."""

    def __init__(self) -> None:
        self.times: list[float] = []

    async def send(self, call: Call) -> Reply:
        self.times.append(asyncio.get_running_loop().time())
        return answer("stop", 1)


def test_a_remembered_rate_spaces_requests_out_from_the_first_one_on() -> None:
    async def send_all(pace: Pace) -> float:
        layer = Clocked()
        limiter = Limiter({"m": layer}, Stop(), 8, pace=pace)
        calls = [Call(bytes([i]) * 32, "m", [], {}, 0, 1, "", {}) for i in range(6)]
        await asyncio.gather(*map(limiter.send, calls))
        return layer.times[-1] - layer.times[0]

    pace = Pace("URL")
    pace.recall(Facts({"rate": 20.0}, 1.0))
    assert pace.notes == [], "nothing was sent yet"
    assert asyncio.run(send_all(pace)) > 0.2
    assert pace.notes == ["URL: remembered: about 20 requests a second"]
    assert pace.facts.learned == 1.0 and pace.facts.values["rate"] >= 20, "no server has said so in this run"


def test_a_measured_rate_is_kept_with_its_time() -> None:
    pace = Pace()
    assert pace.facts.values == {}
    for i in range(20):
        pace.send(i / 10)
        pace.answer(i / 10)
    pace.refuse(2.0, is_wait_named=True)
    assert 5 < pace.facts.values["rate"] < 12 and pace.facts.learned > 1e9
    for value in ("fast", True, float("nan"), 1e9, -1):
        other = Pace()
        other.recall(Facts({"rate": value}, 1.0))
        assert other.rate == float("inf")


# The name of the model


def test_a_server_that_names_another_model_is_told_once() -> None:
    with running(Server(answer=lambda *_: "Fine.")) as server:
        rows = write_seeds(3)
        for requested, named, is_told in (("gpt-4o", "gpt-4o-2024-08-06", False), ("m", "other\x1b[2J", True)):
            server.model = named
            notes = respond(rows, f"{requested}@{server.url}", f"{requested}.jsonl").notes
            assert len(notes) == is_told
            assert not is_told or notes[0].endswith(f"the server names another model in its answers: {named}")


@pytest.mark.parametrize(
    ("requested", "named", "same"),
    [
        ("gpt-4o", "gpt-4o-2024-08-06", True),
        ("gpt-4o", "gpt-4o-mini", False),
        ("gpt-4", "gpt-4-0613", True),
        ("gpt-4", "gpt-4.1", False),
        ("gpt-4", "gpt-5", False),
        ("claude-opus-4", "claude-opus-4-1", False),
        ("claude-3-5-sonnet-latest", "claude-3-5-sonnet-20241022", True),
        ("gemini-2.5-pro", "models/gemini-2.5-pro", True),
        ("openai/gpt-4o", "gpt-4o", True),
        ("qwen3", "qwen3:latest", True),
        ("llama3:8b", "llama3:70b", False),
        ("Qwen/Qwen3-8B", "/models/Qwen3-8B-Q4_K_M.gguf", True),
        ("deepseek-chat", "deepseek-reasoner", False),
        ("模型", "模型二", False),
        ("m", "", False),
    ],
)
def test_names_of_one_model(requested: str, named: str, same: bool) -> None:
    assert is_same_model(requested, named) == same
    assert is_same_model(named, requested) == same
