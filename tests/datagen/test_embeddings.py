"""Vectors from a real server: faults, forms of a reply, what is recorded, and what ends a run."""

import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.engine.job import Outcome
from datagen.errors import DatagenError, Outage
from datagen.llm.call import BadAnswer, Reply
from datagen.llm.model import KEY_VERSION, call_key
from datagen.llm.vectors import read_vector, vector_key, vector_reply
from datagen.records.record import request_messages
from tests.jobs import digest, respond, rows
from tests.select.test_meaning import run, write
from tests.server import Faults, Server, embeddings, letters, running
from tests.wire import http, wire

PROMPTS = [f"Describe {thing} number {number}." for thing in ("rivers", "hills", "clouds") for number in range(20)]
FAULTS = Faults(0.3, ("429", "500", "503", "reset", "truncated", "malformed", "hang"), hang_seconds=0.3)
REFUSAL = {"error": {"message": "encoding_format is not supported", "param": "encoding_format"}}


def filtered(server: Server, output: str = "out.jsonl", prompts: list[str] = PROMPTS, **settings: Any) -> Outcome:
    path = write(prompts)
    return run(path, output, f"embed@{server.url}", **{"dedup": ["semantic:0.999"], "timeout": 5.0, **settings})


def refuse_base64(request: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
    return (400, REFUSAL) if "encoding_format" in request else None


def entry(value: Any, **fields: Any) -> dict[str, Any]:
    return {"object": "embedding", "index": 0, "embedding": value, **fields}


def test_faults_and_concurrency_change_nothing_and_a_second_run_sends_nothing(one_certificate: None) -> None:
    digests = set()
    for number, (concurrency, faults) in enumerate((("1", Faults()), ("64", FAULTS), ("8", FAULTS))):
        Path(str(number)).mkdir()
        with running(Server(faults=faults, latency=0.001)) as server:
            outcome = filtered(server, f"{number}/out.jsonl", concurrency=concurrency)
            funnel = outcome.result["funnel"]
            assert (funnel["asked"], funnel["failed"]) == (60, {})
            assert funnel["rejected"] == {"similar_meaning": 60 - funnel["kept"]} and 3 <= funnel["kept"] < 60
            assert outcome.result["usage"]["calls"] == 60
            assert outcome.result["usage"]["prompt_tokens"] == 4 * 60
            assert outcome.result["usage"]["completion_tokens"] == outcome.result["usage"]["estimated"] == 0
            before = server.requests
            again = filtered(server, f"{number}/out.jsonl", overwrite=True)
            assert (server.requests, again.run["requests"], again.run["replayed"]) == (before, 0, 60)
            assert not server.paid_twice()
            digests.add(digest(f"{number}/out.jsonl"))
    assert len(digests) == 1


def test_numbers_and_base64_give_the_same_decisions(one_certificate: None) -> None:
    bodies = []
    for number, refuse in enumerate((lambda request: None, refuse_base64)):
        Path(str(number)).mkdir()
        server = Server(refuse=refuse)
        with running(server):
            outcome = filtered(server, f"{number}/out.jsonl", concurrency="1")
        assert outcome.result["funnel"]["failed"] == {}
        assert server.requests == 60 + number, "what a server refuses is left out from then on"
        bodies.append((Path(f"{number}/out.jsonl").read_bytes(), Path(f"{number}/out.rejected.jsonl").read_bytes()))
    assert bodies[0] == bodies[1]


def test_a_server_that_ignores_the_form_is_read_as_well(one_certificate: None) -> None:
    with running(Server(embed=lambda model, text: {"data": [entry(letters(model, text))]})) as server:
        assert filtered(server).result["funnel"]["failed"] == {}


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        ([entry([1.0, 2.0], index=1)], "1 vectors came for one text, or that of another"),
        ([entry([1.0, 2.0], index=1), entry([2.0, 1.0])], "2 vectors came for one text"),
        ([entry([1.0, float("nan")])], "a number is not finite, the first at place 1"),
        ([entry([1.0, float("inf")])], "a number is not finite, the first at place 1"),
        ([entry([0.0, 0.0])], "all of its numbers are 0"),
        ([entry([])], "it is no list of numbers"),
        ([entry([1.0, None])], "it is no list of numbers"),
        ([entry([1.0, True])], "it is no list of numbers"),
        ([entry([10**400])], "it is no list of numbers"),
        ([entry("AAA")], "it is no list of numbers"),
        ([entry({"a": 1})], "it is no list of numbers"),
    ],
)
def test_a_reply_without_one_good_vector_is_a_failed_row(
    data: list[dict[str, Any]], detail: str, one_certificate: None
) -> None:
    def embed(model: str, text: str) -> list[float] | dict[str, Any]:
        return {"data": data} if "hills number 7" in text else letters(model, text)

    with running(Server(embed=embed)) as server:
        outcome = filtered(server)
        assert outcome.result["funnel"]["failed"] == {"no vector": 1}
        (failed,) = (row for row in rows("out.rejected.jsonl") if row["status"] == "failed")
        assert failed["record"]["prompt"] == "Describe hills number 7."
        assert failed["record"]["error"].startswith(detail)
        assert filtered(server).run["requests"] == 1, "the same command asks for it once more"


@pytest.mark.parametrize("fields", [{"data": []}, {"data": [{"index": 0}]}, {"data": None}, {"data": "vectors"}])
def test_too_few_vectors_are_asked_for_again_and_never_kept(fields: dict[str, Any], one_certificate: None) -> None:
    tries: list[str] = []

    def embed(model: str, text: str) -> list[float] | dict[str, Any]:
        if "hills number 7" not in text:
            return letters(model, text)
        tries.append(text)
        return fields if len(tries) < 3 else letters(model, text)

    with running(Server(embed=embed)) as server:
        outcome = filtered(server)
    assert (outcome.result["funnel"]["failed"], len(tries)) == ({}, 3)
    assert outcome.run["retries"] == 2


def test_a_vector_of_another_length_ends_the_run_with_one_line(one_certificate: None) -> None:
    def embed(model: str, text: str) -> list[float]:
        return letters(model, text)[: 20 if "hills number 7" in text else None]

    for concurrency in ("1", "32"):
        with running(Server(embed=embed)) as server:
            outcome = filtered(server, f"{concurrency}.jsonl", concurrency=concurrency)
        assert isinstance(outcome.error, DatagenError)
        assert "its vector has 20 numbers, and those before it 27" in str(outcome.error)
        assert "\n" not in str(outcome.error) and outcome.result["status"] == "stopped"


def test_a_refused_text_is_a_failed_row_with_the_words_of_the_server(one_certificate: None) -> None:
    words = {"error": {"message": "this text is too long"}}
    server = Server(refuse=lambda request: (400, words) if "clouds number 3." in request["input"] else None)
    with running(server):
        outcome = filtered(server)
    assert outcome.result["funnel"]["failed"] == {"refused (HTTP 400)": 1}
    (failed,) = (row for row in rows("out.rejected.jsonl") if row["status"] == "failed")
    assert failed["record"]["error"] == "this text is too long"


def test_a_model_that_gives_no_vectors_ends_the_run(one_certificate: None) -> None:
    server = Server(refuse=lambda request: (404, {"error": {"message": "no such model"}}))
    with running(server):
        outcome = filtered(server)
    assert isinstance(outcome.error, Outage) and outcome.reason == "outage"
    assert outcome.result["funnel"]["kept"] == 0


def test_every_call_is_paid_for_once(one_certificate: None) -> None:
    with running(Server()) as server:
        outcome = filtered(server, price=["10/10"], max_cost=1.0)
        assert outcome.result["usage"]["cost"] == pytest.approx(4 * 60 * 10 / 1e6)
        assert outcome.run["paid"] == pytest.approx(4 * 60 * 10 / 1e6)
        again = filtered(server, price=["10/10"], max_cost=1.0, overwrite=True)
        assert (again.run["paid"], again.result["usage"]["cost"]) == (0, outcome.result["usage"]["cost"])
        capped = filtered(server, "b.jsonl", [f"{prompt}!" for prompt in PROMPTS], price=["10/10"], max_cost=0.005)
    assert capped.reason == "cap" and 0 < capped.run["paid"] < 0.0024, (
        "a call holds what its text may cost, and no answer"
    )


def test_requests_go_to_the_embeddings_of_the_address_with_its_key(
    one_certificate: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    body = embeddings({"input": "Hi", "model": "embed"}, [1.0, 2.0])
    with wire(lambda _: [http(200, body)]) as server:
        outcome = run(write(["Hi"]), "out.jsonl", f"embed@{server.url}", diverse=1, timeout=5.0)
    assert outcome.result["funnel"]["kept"] == 1
    (head,) = server.requests
    assert head.startswith(b"POST /v1/embeddings ") and b"bearer sk-secret" in head.lower()


def test_the_command_without_an_embedder_ends_with_one_line() -> None:
    for option in (["--dedup", "semantic"], ["--diverse", "3"]):
        command = [sys.executable, "-m", "datagen", "filter", str(write(PROMPTS)), *option]
        ran = subprocess.run(command, capture_output=True, text=True)
        assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (2, "", 1)
        assert ran.stderr.startswith("error: filter compares vectors") and "--embedder" in ran.stderr


def test_only_what_was_added_is_sent(one_certificate: None) -> None:
    with running(Server()) as server:
        filtered(server)
        outcome = filtered(server, "more.jsonl", [PROMPTS[0], "A new one.", *PROMPTS[1:]])
    assert outcome.run["requests"] == 1


def test_a_vector_is_never_taken_for_an_answer(one_certificate: None) -> None:
    """The same name and text, as a chat request and as one for a vector, are two entries of the journal."""
    messages = request_messages([{"role": "user", "content": "Hi"}])
    for number in range(2):
        assert vector_key("m", "Hi", {}, KEY_VERSION) != call_key("m", messages, {}, number)
    with running(Server()) as server:
        filtered(server, prompts=PROMPTS[:1])
        outcome = respond(write(PROMPTS[:1]), f"embed@{server.url}", "answers.jsonl", timeout=5.0)
    assert outcome.run["requests"] == 1
    with sqlite3.connect(".datagen/journal.sqlite3") as database:
        assert database.execute("SELECT count(*) FROM replies").fetchone() == (2,)


@given(st.lists(st.floats(-(2.0**100), 2.0**100, allow_subnormal=False, width=32), min_size=1, max_size=20).filter(any))
def test_a_vector_has_the_length_1_in_either_form(numbers: list[float]) -> None:
    as_numbers = read_vector(Reply(200, vector_reply("m", [1.0], 1).body.replace('"AACAPw=="', str(numbers))))
    as_text = read_vector(vector_reply("m", numbers, 1))
    assert as_numbers.dtype == as_text.dtype == np.float32
    assert np.linalg.norm(as_numbers.astype(float)) == pytest.approx(1, abs=1e-6)
    assert np.array_equal(as_numbers, as_text)


@pytest.mark.parametrize("body", ["{}", "[]", '{"data": 5}', '{"data": [5]}', "no JSON", '{"choices": []}', "[" * 9999])
def test_a_body_of_another_shape_is_no_vector(body: str) -> None:
    assert not Reply(200, body).is_embedding
    with pytest.raises(BadAnswer):
        read_vector(Reply(200, body))
