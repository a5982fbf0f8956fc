"""`datagen doctor` against real local servers of several kinds, and against what is broken."""

import json
import re
import shutil
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from datagen.commands import doctor as doctor_module
from datagen.commands import machine
from datagen.commands.main import app
from datagen.llm import health
from datagen.llm.servers import LOCAL_SERVERS, clock_skew, read_list
from tests.directory import Directory, behind_key, model_list, serving
from tests.jobs import respond, write_seeds

SECRET = "key-SECRET-0123456789"


@pytest.fixture(autouse=True)
def no_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    """What listens at the usual ports of this machine is none of the tests' business."""
    for port in list(LOCAL_SERVERS):
        monkeypatch.delitem(LOCAL_SERVERS, port)


def doctor(*arguments: str, code: int = 0) -> str:
    """Run the command; return what it prints."""
    ran = CliRunner().invoke(app, ["doctor", *arguments], prog_name="datagen", catch_exceptions=False)
    assert ran.exit_code == code, ran.output
    assert SECRET not in ran.output
    return ran.output


def findings(*arguments: str, code: int = 0) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(doctor("--json", *arguments, code=code))
    return value


def look(*arguments: str, code: int = 0) -> dict[str, Any]:
    """Return what is found out about the only model."""
    (model,) = findings(*arguments, code=code)["models"]
    return dict(model)


# Nothing named


def test_where_nothing_is_here_it_says_so_at_once_and_offers_sim() -> None:
    began = time.monotonic()
    text = doctor()
    assert time.monotonic() - began < 3
    assert "none at the usual ports" in text and "keys: none set" in text and "journal: none yet" in text
    assert text.endswith("Next: datagen evolve seeds.jsonl --model sim\n")
    assert not list(Path().iterdir()), "nothing is written"


def test_local_servers_are_found_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    with (
        serving({"/v1/models": model_list("nomic-embed-text", "qwen3:8b", owned_by="library")}) as ollama,
        serving({"/v1/models": (401, {"error": "no key"})}) as closed,
        serving({"/v1/models": b"<html>A page of something else</html>"}) as page,
        serving({"/v1/models": (302, b"http://127.0.0.1:9/")}) as moved,
        serving({"/v1/models": model_list("m\x1b[2Jodel\nNext: rm -rf")}) as hostile,
    ):
        for server, name in ((ollama, "?"), (closed, "LiteLLM"), (page, "?"), (moved, "?"), (hostile, "SGLang")):
            monkeypatch.setitem(LOCAL_SERVERS, server.port, name)
        text = doctor()
        servers = (ollama, closed, page, moved, hostile)
        assert not any("authorization" in headers for server in servers for _, headers, _ in server.requests)
    assert f"{ollama.url}  Ollama: nomic-embed-text, qwen3:8b" in text
    assert f"{closed.url}  LiteLLM: asks for a key" in text
    assert page.url not in text and moved.url not in text
    assert f"{hostile.url}  SGLang: m\\x1b[2Jodel\\nNext: rm -rf\n" in text
    assert text.endswith(f"Next: datagen evolve seeds.jsonl --model qwen3:8b@{ollama.url}\n")


def test_a_local_server_that_does_not_answer_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*_: object) -> object:
        time.sleep(1.5)
        return model_list("late")

    with serving({"/v1/models": slow}) as server:
        monkeypatch.setitem(LOCAL_SERVERS, server.port, "vLLM")
        began = time.monotonic()
        assert findings()["servers"] == []
        assert time.monotonic() - began < 1.4


def test_keys_are_named_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROQ_API_KEY", SECRET)
    text = doctor()
    assert "keys: GROQ_API_KEY" in text
    assert "Next: datagen doctor --model NAME@https://api.groq.com/openai/v1" in text
    monkeypatch.setenv("GROQ_API_KEY", f"{SECRET} with a space")
    assert "problem: GROQ_API_KEY holds a space" in doctor(code=1)


# Models


KINDS: list[tuple[dict[str, Any], int | None, str]] = [
    ({"/v1/models": model_list("m", owned_by="vllm", max_model_len=4096)}, 4096, "vLLM"),
    ({"/v1/models": model_list("m", owned_by="organization_owner", max_context_length=8192)}, 8192, "LM Studio"),
    ({"/v1/models": model_list("m", owned_by="Alibaba", context_window=131072)}, 131072, ""),
    ({"/v1/models": model_list("m", context_length=32768)}, 32768, ""),
    ({"/v1/models": model_list("models/m")}, None, ""),
    ({"/v1/models": [{"id": "m", "context_length": 2048}]}, 2048, ""),
    (
        {
            "/v1/models": model_list("w.gguf", owned_by="llamacpp", meta={"n_ctx_train": 40960}),
            "/props": {"default_generation_settings": {"n_ctx": 2048}},
        },
        2048,
        "llama.cpp",
    ),
    ({"/v1/models": model_list("w.gguf", owned_by="llamacpp", meta={"n_ctx_train": 40960})}, 40960, "llama.cpp"),
    (
        {
            "/v1/models": model_list("m:latest", owned_by="library"),
            "/api/ps": {"models": [{"name": "m:latest", "context_length": 4096}]},
        },
        4096,
        "Ollama",
    ),
    ({"/v1/models": model_list("m", context_length="long", max_model_len=-1, n_ctx=1e300)}, None, ""),
]


@pytest.mark.parametrize(("pages", "context", "kind"), KINDS)
def test_what_servers_of_each_kind_say_of_a_model(pages: dict[str, Any], context: int | None, kind: str) -> None:
    with serving(pages) as server:
        model = look("--model", f"m@{server.url}")
    assert (model["answers"], model["listed"], model["key"]) == (True, True, "none needed")
    assert (model["context"], model["kind"], model["price"]) == (context, kind, None)
    assert not any("completions" in request for request, _, _ in server.requests), "nothing is generated"


def test_the_trap_of_ollamas_short_context_is_named() -> None:
    pages = {
        "/v1/models": model_list("qwen3:8b", owned_by="library"),
        "/api/ps": {"models": []},
        "/api/show": {"model_info": {"qwen3.context_length": 40960}},
    }
    with serving(pages) as server:
        text = doctor("--model", f"qwen3:8b@{server.url}")
    assert "can have a context of 40,960 tokens; Ollama takes less" in text
    assert ("POST /api/show", {"model": "qwen3:8b"}) in [(request, value) for request, _, value in server.requests]


def test_a_model_that_is_not_listed_is_broken_and_the_nearest_is_named() -> None:
    with serving({"/v1/models": model_list("qwen3:8b", "llama3.2:3b")}) as server:
        text = doctor("--model", f"qwen3-8b@{server.url}", code=1)
    assert "problem: qwen3-8b is none of the 2 models there; the nearest is qwen3:8b" in text
    assert text.endswith(f"Next: datagen doctor --model qwen3:8b@{server.url}\n")


def test_a_key_is_accepted_refused_or_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    with serving({"/v1/models": behind_key(SECRET, model_list("m"))}) as server:
        assert look("--model", f"m@{server.url}")["key"] == "accepted"
    with serving({"/v1/models": model_list("m")}) as server:
        assert look("--model", f"m@{server.url}")["key"].startswith("not checked")
    with serving({"/v1/models": behind_key("other", model_list("m"))}) as server:
        text = doctor("--model", f"m@{server.url}", code=1)
    assert "HTTP 401: Incorrect API key provided: otherx. The key in OPENAI_API_KEY is refused" in text
    with serving({"/v1/models": (403, {"error": f"{SECRET} is no key"})}) as server:
        assert "*** is no key" in doctor("--model", f"m@{server.url}", code=1)
    monkeypatch.delenv("OPENAI_API_KEY")
    with serving({"/v1/models": behind_key("other", model_list("m"))}) as server:
        text = doctor("--model", f"m@{server.url}", code=1)
    assert "key missing" in text and "No key was sent: OPENAI_API_KEY is not set" in text


def test_a_key_that_is_not_set_is_a_problem_of_the_model() -> None:
    model = look("--model", "gpt-4o-mini", code=1)
    assert model["key"] == "missing" and "OPENAI_API_KEY is not set" in model["problems"][0]
    assert model["price"]["source"].startswith("genai-prices") and model["price"]["output"] > 0


def test_an_address_without_its_end_is_named() -> None:
    with serving({"/v1/models": model_list("m")}) as server:
        root = server.url.removesuffix("/v1")
        assert f"the address ends in /v1: {server.url}" in doctor("--model", f"m@{root}", code=1)


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ((500, {"error": {"message": "out of memory"}}), "HTTP 500: out of memory. The server is there and does not"),
        ((302, b"https://elsewhere.example/"), "what answers there (HTTP 302) has no list of models"),
        (b"<html>Welcome!</html>", "what answers there (HTTP 200) has no list of models"),
        (b"[" * 100_000, "has no list of models: is the address right?"),
    ],
)
def test_what_is_no_list_of_models_is_a_problem(page: Any, words: str) -> None:
    with serving({"/v1/models": page}) as server:
        assert words in doctor("--model", f"m@{server.url}", code=1)


def test_a_server_without_a_list_is_no_problem() -> None:
    with serving({}) as server:
        assert "it has no list of models (HTTP 404: Not Found); --try sends requests" in doctor(
            "--model", f"m@{server.url}"
        )


def test_nothing_listens() -> None:
    with serving({}) as server:
        pass
    text = doctor("--model", f"m@{server.url}", code=1)
    assert "problem: nothing listens there. Start the server, or correct the address" in text


def test_an_endless_list_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datagen.llm.servers.MOST_BYTES", 10_000)
    with serving({"/v1/models": model_list(*map(str, range(1000)))}) as server:
        assert "its answer is longer than 10,000 bytes" in doctor("--model", f"m@{server.url}", code=1)


@pytest.mark.parametrize(
    ("ahead", "words"), [(-300, "ahead of that of the server"), (300, "behind that of the server")]
)
def test_a_clock_that_is_wrong_is_a_problem(ahead: float, words: str) -> None:
    with serving({"/v1/models": model_list("m")}, ahead=ahead) as server:
        text = doctor("--model", f"m@{server.url}", code=1)
    assert words in text and ("300 s" in text or "299 s" in text or "301 s" in text)
    with serving({"/v1/models": model_list("m")}, ahead=ahead / 10) as server:
        doctor("--model", f"m@{server.url}")
    assert clock_skew("no date") is None and clock_skew("") is None


def test_all_models_of_the_file_are_looked_at_and_a_broken_file_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving({"/v1/models": behind_key(SECRET, model_list("m"))}) as server:
        Path("models.toml").write_text(
            f'default = "a"\n[models.a]\nname = "m"\nurl = "{server.url}"\nkey = "MY_KEY"\n'
            "price = {input = 2, output = 8}\n"
            f'[models.b]\nname = "other"\nurl = "{server.url}"\nkey = "MY_KEY"\n'
        )
        monkeypatch.setenv("MY_KEY", SECRET)
        text = doctor(code=1)
    assert f"  a at {server.url}\n    answers; the model is listed; key accepted\n" in text
    assert "price: $2 input, $8 output per million tokens (models.toml)" in text
    assert "problem: other is none of the 1 model there" in text
    assert "keys: MY_KEY" in text and text.endswith("Next: datagen evolve seeds.jsonl --model a\n")
    Path("models.toml").write_text("[models")
    assert "problem: models.toml: cannot be read" in doctor(code=1)


def test_models_without_a_server() -> None:
    Path("replies.jsonl").write_text('{"prompt": "Why?", "response": "So."}\n')
    Path("empty").mkdir()
    assert "a rule-based teacher" in doctor("--model", "sim")
    assert "recorded replies" in doctor("--model", "replay:replies.jsonl")
    assert "no such file" in doctor("--model", "replay:none.jsonl", code=1)
    assert "empty holds no model" in doctor("--model", "hf:empty", code=1)


# --try


def chat(able: bool) -> Any:
    """Play a model that can do everything, or one whose server ignores or refuses what it does not know."""

    def answer(_: Mapping[str, str], request: dict[str, Any]) -> Any:
        form = request.get("response_format", {}).get("type")
        if not able and ("seed" in request or form == "json_schema"):
            name = "seed" if "seed" in request else "response_format"
            return 400, {"error": {"message": f"{name} is not supported"}}
        message: dict[str, Any] = {"role": "assistant", "content": "1 2 3 4 5 6" if not able else "1 2 3 4"}
        choice: dict[str, Any] = {"message": message, "finish_reason": "stop"}
        tokens = 12
        if able and form:
            message["content"] = '{"greeting": "Hello"}'
        if able and "tools" in request:
            call = {"id": "1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
            message |= {"content": None, "tool_calls": [call]}
        if able and request["max_tokens"] == 8:
            choice["finish_reason"], tokens = "length", 8
        if able and request.get("logprobs"):
            token = {"token": "a", "logprob": -0.1, "top_logprobs": [{"token": "a", "logprob": -0.1}]}
            choice["logprobs"] = {"content": [token]}
        if "Is water wet" in str(request["messages"]):
            message |= {"reasoning_content": "Hm."} if able else {"content": "<think>Hm.</think>Yes."}
        usage = {"prompt_tokens": 5, "completion_tokens": tokens} if able or request["max_tokens"] == 8 else {}
        return {"choices": [choice], "usage": usage}

    return answer


@pytest.fixture(scope="module")
def able() -> Iterator[Directory]:
    with serving({"/v1/models": model_list("m"), "/v1/chat/completions": chat(able=True)}) as server:
        yield server


def test_try_finds_out_what_a_model_can_do(able: Directory) -> None:
    able.requests.clear()
    model = look("--model", f"m@{able.url}", "--try")
    assert set(model["tried"].values()) == {"yes"}
    assert list(model["tried"]) == [
        *("json_schema", "json_object", "logprobs", "seed", "stop", "tools", "max_tokens"),
        *("reasoning apart", "tokens counted"),
    ]
    sent = [value for request, _, value in able.requests if request == "POST /v1/chat/completions"]
    assert model["requests"] == len(sent) == 8
    assert all(value["max_tokens"] <= 64 for value in sent)


def test_try_says_what_it_has_cost(able: Directory) -> None:
    Path("models.toml").write_text(f'[models.m]\nurl = "{able.url}"\nprice = {{input = 2.0, output = 10.0}}\n')
    free = f"other@{able.url}"
    line = next(line for line in doctor("--model", "m", "--try").splitlines() if "sent to the models" in line)
    assert re.fullmatch(r"8 requests sent to the models, for \$0\.00\d+\.", line)
    assert "16 requests sent to the models, for $0.00" in (both := doctor("--model", "m", "--model", free, "--try"))
    assert ", and more that is not known." in both


def test_nothing_is_sent_without_try(able: Directory) -> None:
    able.requests.clear()
    text = doctor("--model", f"m@{able.url}")
    assert not [request for request, _, _ in able.requests if "chat" in request]
    assert "sent to the models" not in text


def test_try_is_not_deceived_by_a_status() -> None:
    with serving({"/v1/models": model_list("m"), "/v1/chat/completions": chat(able=False)}) as server:
        text = doctor("--model", f"m@{server.url}", "--try")
    for line in (
        "json_schema: no: refused (HTTP 400): response_format is not supported",
        "json_object: no: the answer is no JSON object",
        "logprobs: no: accepted and ignored",
        "seed: no: refused",
        "stop: no: accepted and ignored",
        "tools: not known: accepted, and not called",
        "max_tokens: no: 12 tokens where 8 were the limit",
        "reasoning apart: no: it stands in the text",
        "tokens counted: no",
        "9 requests sent to the models, at a price that is not known.",
    ):
        assert line in text


def test_try_stops_at_a_model_that_answers_nothing() -> None:
    pages = {"/v1/models": model_list("m"), "/v1/chat/completions": (400, {"error": {"message": "Broken weights"}})}
    with serving(pages) as server:
        text = doctor("--model", f"m@{server.url}", "--try", code=1)
    assert "problem: refused (HTTP 400): Broken weights" in text and "1 request sent" in text


def test_a_model_that_answers_is_good_whatever_the_list_says(able: Directory) -> None:
    assert look("--model", f"alias@{able.url}", "--try")["problems"] == []
    assert look("--model", f"alias@{able.url}", code=1)["problems"]


def test_a_gateway_without_a_list_is_good_where_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    pages = {"/v1/models": b"<html>Welcome!</html>", "/v1/chat/completions": chat(able=True)}
    with serving(pages) as server:
        assert look("--model", f"m@{server.url}", code=1)["key"].startswith("not checked")
        model = look("--model", f"m@{server.url}", "--try")
    assert (
        model["tried"]
        and model["problems"] == []
        and model["key"] == "accepted"
        and "no list of models" in model["notes"][0]
    )


# The journal


def test_what_runs_remember_of_a_model_is_shown() -> None:
    def refuse(_: Mapping[str, str], request: dict[str, Any]) -> Any:
        refused = 400, {"error": {"message": "temperature is not supported"}}
        return refused if "temperature" in request else chat(able=True)({}, {"max_tokens": 5, **request})

    with serving({"/v1/models": model_list("m"), "/v1/chat/completions": refuse}) as server:
        respond(write_seeds(1), f"m@{server.url}", "x.jsonl", temperature=0.5, max_tokens=5)
        assert "remembered: temperature left out" in doctor("--model", f"m@{server.url}")
        assert "remembered" not in doctor("--model", f"m#other@{server.url}")


def journal() -> Path:
    respond(write_seeds(20), "sim", "x.jsonl")
    return Path(".datagen/journal.sqlite3")


def test_a_whole_journal_is_counted_and_left_as_it_is() -> None:
    path = journal()
    before = path.read_bytes()
    assert "journal: 20 answers," in doctor() and " kB, whole" in doctor()
    assert path.read_bytes() == before
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE replies SET body = 'no reply' WHERE rowid < 4")
        database.execute("DROP TABLE facts")  # a journal of before
    assert "whole, 3 rows without an answer (asked again)" in doctor()


@pytest.mark.parametrize("where", ["page", "header", "schema"])
def test_a_damaged_journal_is_a_problem_that_mend_removes(where: str) -> None:
    path = journal()
    data = bytearray(path.read_bytes())
    if where == "page":
        leaf = next(
            start for start in range(4096, len(data), 4096) if data[start] == 13 and data[start + 3] | data[start + 4]
        )
        data[leaf : leaf + 30] = b"\xff" * 30
    else:
        data[: 16 if where == "header" else 3000] = bytes(16 if where == "header" else 3000)
    path.write_bytes(data)
    text = doctor(code=1)
    assert "DAMAGED" in text and "datagen doctor --mend makes a new one with all answers that can be read" in text
    assert path.read_bytes() == data, "nothing is changed without --mend"
    text = doctor("--mend")
    assert "was damaged or of another form" in text and "whole" in text and "problem" not in text
    assert Path(".datagen/journal.damaged-1.sqlite3").read_bytes() == data
    assert "whole" in doctor("--mend") and not Path(".datagen/journal.damaged-2.sqlite3").exists()


def test_the_journal_of_another_folder() -> None:
    journal()
    Path("other").mkdir()
    shutil.move(".datagen", "other/.datagen")
    assert "journal: none yet" in doctor()
    assert "journal: 20 answers" in doctor("--folder", "other")
    assert "no such folder" in CliRunner().invoke(app, ["doctor", "--folder", "none"]).output


def test_a_journal_too_large_for_the_time_is_not_called_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    journal()
    monkeypatch.setattr(health, "MOST_SECONDS", -1.0)
    monkeypatch.setattr(health, "STEPS", 1)
    assert "20 answers" in doctor() and "not read to its end" in doctor()


# This machine


def test_libraries_the_disk_and_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "EXTRAS", {"data": ("typer",), "train": ("torch-of-nobody", "torch")})
    monkeypatch.setattr(machine, "LEAST_FREE", 10**18)
    value = findings(code=1)
    assert value["machine"]["extras"]["train"]["torch-of-nobody"] is None
    assert list(value["machine"]["install"]) == ["train"] and "[train]" in value["machine"]["install"]["train"]
    assert "MB are free on the disk" in value["problems"][0]
    assert "without torch-of-nobody. To install: " in doctor(code=1)
    tool = Path("nvidia-smi")
    tool.write_text("#!/bin/sh\necho 'NVIDIA H200, 143771 MiB'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(Path().absolute()))
    assert machine.gpus() == ["NVIDIA H200, 143771 MiB"]
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert machine.gpus() == []


def test_lists_that_are_none() -> None:
    assert read_list({"data": "no"}) is None and read_list(None) is None
    assert read_list({"data": [5, {"id": 3}, {"id": "x" * 1000}]}) == [("x" * 200, None, "")]
    assert doctor_module.is_embedding("Nomic-Embed-Text")
