"""What a server can send: every status, and bytes that are no HTTP. Nothing but answers and final refusals is recorded,
nothing raises, and a mended server is asked again."""

import asyncio
import gzip
import json
import sqlite3
import time
import zlib
from collections.abc import Callable
from contextlib import closing
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from datagen.commands.main import main
from datagen.errors import InputError, Outage
from datagen.llm import endpoint as endpoint_module
from datagen.llm import limiter as limiter_module
from datagen.llm.call import Adapted, Call, Doubtful, Reply, Transient
from datagen.llm.endpoint import Endpoint
from tests.jobs import respond, rows, write_seeds
from tests.server import Server, running
from tests.wire import RESET, Pieces, completion, http, wire

CALL = Call(b"k" * 32, "m", [{"role": "user", "content": "Why?"}], {"temperature": 1}, 0, 1, "answer", {"prompt": "?"})
PATIENCE = 0.02
"""Minutes. A server that is busy (429, 503, 529) stays so in these tests."""
BODIES = {
    "empty": b"",
    "words": b"<html>No.</html>",
    "error": b'{"error": {"message": "no", "param": ["temperature"], "code": "unsupported_parameter"}}',
    "no choices": b'{"object": "chat.completion"}',
    "completion": completion(),
}


@pytest.fixture(autouse=True)
def quick_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limiter_module, "FIRST_BACKOFF", 0.001)


def send(url: str, *calls: Call, timeout: float = 5.0) -> list[Any]:
    """Send calls to an endpoint, one after the other; return replies and exceptions."""

    async def send_all() -> list[Any]:
        endpoint = Endpoint(url, "m", timeout=timeout, connections=4)
        outcomes: list[Any] = []
        for call in calls:
            outcomes += await asyncio.gather(endpoint.send(call), return_exceptions=True)
        await endpoint.close()
        return outcomes

    return asyncio.run(send_all())


def recorded(folder: str = ".") -> list[tuple[int, str]]:
    """Return what the journal of a folder holds: status and body."""
    with closing(sqlite3.connect(Path(folder, ".datagen/journal.sqlite3"))) as database:
        return database.execute("SELECT status, body FROM replies").fetchall()


# Every status


@pytest.mark.parametrize("body", BODIES)
def test_of_every_status_only_answers_and_final_refusals_are_replies(body: str) -> None:
    """From 200 on: what a status below 200 announces is still to come, so the connection ends without an answer."""
    statuses = [200, 101, *range(201, 600), 600, 999]
    left = iter(statuses)
    with wire(lambda _: [http(next(left), BODIES[body])]) as server:
        outcomes = send(server.url, *[CALL] * len(statuses))
    for status, outcome in zip(statuses, outcomes, strict=True):
        if isinstance(outcome, Reply):
            is_answer = 200 <= status < 300 and status != 204 and body == "completion"
            assert is_answer or status in endpoint_module.REFUSAL_STATUS, f"{status} is recorded"
            assert outcome.is_whole
        else:
            if isinstance(outcome, Adapted):  # the body "error" refuses a parameter of the call
                assert (status, body) == (400, "error")
                continue
            assert isinstance(outcome, Transient | Outage | Doubtful), f"{status}: {outcome!r}"
            assert not isinstance(outcome, Transient) or outcome.is_paid == (200 <= status < 300) or status == 204
            assert isinstance(outcome, Transient) or status in endpoint_module.OUTAGE_STATUS or status < 400
            assert isinstance(outcome, Doubtful) == (status in endpoint_module.DOUBTFUL_STATUS)


def run_and_mend(status: int, body: bytes, concurrency: int) -> None:
    """Run a command against a server that sends this to everything, and again when it is mended."""
    folder = f"{status}-{concurrency}-{hash(body) % 1000}"
    prompts = write_seeds(3)
    with wire(lambda _: [http(status, body)]) as server:
        outcome = respond(
            prompts, f"m@{server.url}", f"{folder}/x.jsonl", concurrency=str(concurrency), patience=PATIENCE
        )
    kept, is_answer = outcome.result["funnel"]["kept"], 200 <= status < 300 and body == completion()
    if is_answer and status != 204:
        assert kept == 3
    else:
        assert kept == 0
        held = recorded(folder)
        assert not held or status in endpoint_module.REFUSAL_STATUS
        assert {code for code, _ in held} <= {status}
    with wire(lambda _: [http(200, completion("Mended."))]) as server:
        outcome = respond(prompts, f"m@{server.url}", f"{folder}/x.jsonl", concurrency=str(concurrency))
    assert outcome.result["funnel"]["kept"] == 3
    assert outcome.status == "finished"


@pytest.mark.usefixtures("one_certificate")
@pytest.mark.parametrize("concurrency", [1, 64])
@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("status", [204, 301, 400, 500])
def test_a_run_is_mended_when_the_server_is(status: int, body: str, concurrency: int) -> None:
    run_and_mend(status, BODIES[body], concurrency)


STATUSES = {status.value for status in HTTPStatus} | {499, 509, 520, 521, 522, 523, 524, 525, 526, 529, 530}
"""The registered ones, and those of proxies and busy models."""


@pytest.mark.slow
@pytest.mark.usefixtures("one_certificate")
@pytest.mark.parametrize("place", range(len(BODIES)), ids=BODIES)
@pytest.mark.parametrize("hundred", range(1, 6))
def test_a_run_is_mended_after_every_status(hundred: int, place: int) -> None:
    """Every status that has a name comes with every body; of the others the endpoint alone is asked, above."""
    body = list(BODIES.values())[place]
    for status in sorted(status for status in STATUSES if status // 100 == hundred):
        run_and_mend(status, body, 1 if (status + place) % 2 else 64)


def test_a_redirect_is_followed_on_the_same_host_only() -> None:
    with wire(lambda _: [http(200, completion("Moved."))]) as other:

        def answer(location: str, status: int = 307) -> Callable[[bytes], Pieces]:
            return lambda _: [http(status, b"", f"Location: {location}")]

        for location in (other.url, other.url.replace("127.0.0.1", "localhost"), f"//{other.url[7:]}", "https://[::1/"):
            with wire(answer(location)) as server:
                (outcome,) = send(server.url, CALL)
                assert isinstance(outcome, Outage | Transient)
        with wire(answer(f"{other.url}/x")) as server:
            assert "sends requests away to http://127.0.0.1" in str(send(server.url, CALL)[0])
        assert other.requests == [], "no prompt has left the host"

    paths: list[bytes] = []

    def slash(_: bytes) -> Pieces:
        paths.append(server.requests[-1].split()[1])
        if paths[-1] == b"/v1/chat/completions":
            return [http(307, b"", "Location: /v1/chat/completions/")]
        return [http(200, completion("Here."))]

    with wire(slash) as server:
        (reply,) = send(server.url, CALL)
    assert reply.text == "Here."
    assert paths == [b"/v1/chat/completions", b"/v1/chat/completions/"]


def test_a_server_that_redirects_to_itself_for_ever_is_an_outage() -> None:
    with wire(lambda _: [http(308, b"", "Location: /v1/chat/completions")]) as server:
        assert isinstance(send(server.url, CALL)[0], Outage)
    assert len(server.requests) == 1 + endpoint_module.MOST_REDIRECTS


# Bytes that are no HTTP

GOOD = http(200, completion())
HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(completion())
JUNK: dict[str, Pieces] = {
    "nothing": [],
    "reset": [RESET],
    "reset in the head": [HEAD, RESET],
    "reset in the body": [HEAD + LENGTH + b"\r\n" + completion()[:20], RESET],
    "closed in the body": [HEAD + LENGTH + b"\r\n" + completion()[:20]],
    "words": [b"hello\r\n\r\n"],
    "zeros": [bytes(1000)],
    "TLS": [b"\x15\x03\x03\x00\x02\x02\x28"],
    "HTTP/2": [b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" + bytes(18)],
    "SSH": [b"SSH-2.0-OpenSSH_9.6\r\n"],
    "status of letters": [b"HTTP/1.1 OK 200\r\n\r\n"],
    "status of two digits": [b"HTTP/1.1 20 OK\r\n\r\n"],
    "status of four digits": [b"HTTP/1.1 2000 OK\r\n\r\n"],
    "negative status": [b"HTTP/1.1 -200 OK\r\n\r\n"],
    "no version": [b"HTTP/ 200 OK\r\n\r\n"],
    "version 9": [GOOD.replace(b"HTTP/1.1", b"HTTP/9.9")],
    "long status line": [b"HTTP/1.1 200 " + b"x" * 100_000 + b"\r\n\r\n"],
    "long header": [HEAD + b"X: " + b"x" * 1_000_000 + b"\r\n\r\n"],
    "many headers": [HEAD + b"".join(b"X-%d: x\r\n" % i for i in range(50_000)) + b"\r\n"],
    "header without colon": [HEAD + b"no colon\r\n" + LENGTH + b"\r\n" + completion()],
    "header with NUL": [HEAD + b"X: \0\r\n" + LENGTH + b"\r\n" + completion()],
    "header without name": [HEAD + b": x\r\n" + LENGTH + b"\r\n" + completion()],
    "folded header": [HEAD + b" folded\r\n" + LENGTH + b"\r\n" + completion()],
    "two lengths": [HEAD + LENGTH + b"Content-Length: 3\r\n\r\n" + completion()],
    "length of letters": [HEAD + b"Content-Length: many\r\n\r\n" + completion()],
    "negative length": [HEAD + b"Content-Length: -1\r\n\r\n" + completion()],
    "huge length": [HEAD + b"Content-Length: 99999999999999999999\r\n\r\n" + completion()],
    "length and chunks": [HEAD + LENGTH + b"Transfer-Encoding: chunked\r\n\r\n" + completion()],
    "bad chunk": [CHUNKED + b"zz\r\n" + completion()],
    "negative chunk": [CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n"],
    "huge chunk": [CHUNKED + b"ffffffffffffffffffff\r\nhello"],
    "chunk without end": [CHUNKED + b"%x\r\n" % len(completion()) + completion()],
    "bad trailer": [CHUNKED + b"5\r\nhello\r\n0\r\n\0bad\r\n\r\n"],
    "no gzip": [HEAD + b"Content-Encoding: gzip\r\n\r\n" + completion()],
    "cut gzip": [HEAD + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(completion())[:40]],
    "no deflate": [HEAD + b"Content-Encoding: deflate\r\n\r\n" + completion()],
    "no brotli": [HEAD + b"Content-Encoding: br\r\n\r\n" + completion()],
    "no zstd": [HEAD + b"Content-Encoding: zstd\r\n\r\n" + completion()],
    "no UTF-8": [http(200, completion().replace(b"Yes", b"\xff\xfe"))],
    "UTF-16": [http(200, completion().decode().encode("utf-16"), "Content-Type: application/json; charset=utf-16")],
    "half of JSON": [http(200, completion()[:30])],
    "deep JSON": [http(200, b"[" * 100_000)],
    "a long number": [http(200, completion().replace(b"1", b"9" * 5000))],
    "a stream": [http(200, b'data: {"choices": []}\n\ndata: [DONE]\n\n', "Content-Type: text/event-stream")],
    "bad location": [http(307, b"", "Location: http://[::1")],
    "error in another code": [http(500, b"\xff" * 100, "Content-Type: text/html; charset=base64")],
    "deep error": [http(400, b'{"error": ' * 50_000)],
    "deep error, 500": [http(500, b"[" * 100_000)],
    "odd wait": [http(429, b"", "Retry-After: Mon, 99 Foo 0000 99:99:99 +9999", "Retry-After-Ms: \xb2")],
    "odd cookie": [http(500, b"", "Set-Cookie: \xff=\x80; expires=never; domain=[")],
}


@pytest.mark.parametrize("kind", JUNK)
def test_junk_is_a_fault_of_the_transport_and_never_an_error_of_ours(kind: str) -> None:
    with wire(lambda _: JUNK[kind]) as server:
        (outcome,) = send(server.url, CALL, timeout=1.0)
    assert isinstance(outcome, Transient | Outage | Reply), repr(outcome)
    if isinstance(outcome, Reply):
        assert outcome.is_whole
        assert outcome.status >= 400 or outcome.text == "Yes.", "a lenient client may read it, if it reads it all"
    else:
        assert "\n" not in str(outcome)
        assert len(str(outcome)) < 500


def test_junk_ends_a_command_with_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    write_seeds(3)
    for number, kind in enumerate(("words", "two lengths", "long header", "no gzip", "reset in the body", "TLS")):
        with wire(lambda _, kind=kind: JUNK[kind]) as server:  # type: ignore[misc]
            command = ["datagen", "respond", "seeds.jsonl", "--model", f"m@{server.url}", "-o", f"{number}.jsonl"]
            monkeypatch.setattr("sys.argv", command)
            with pytest.raises(SystemExit) as ended:
                main()
        error = capsys.readouterr().err
        assert ended.value.code == 5, error
        assert "Traceback" not in error
        is_paid = kind in ("no gzip", "reset in the body")
        assert ("requests got no answer that can be read" if is_paid else "Nothing was paid for.") in error
        assert error.count("error:") == 1


# The bounds of one answer


def test_the_timeout_is_for_the_whole_answer_and_a_dripping_body_is_left() -> None:
    def drip(_: bytes) -> Pieces:
        yield HEAD + LENGTH + b"\r\n"
        for byte in completion():
            yield bytes([byte])
            yield 0.1

    with wire(drip) as server:
        began = time.monotonic()
        (outcome,) = send(server.url, CALL, timeout=0.5)
    assert time.monotonic() - began < 1.5
    assert "no whole answer within --timeout 0.5 s" in str(outcome)
    assert outcome.is_paid


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_an_answer_that_unpacks_without_end_is_left_before_it_fills_the_memory(coding: str) -> None:
    compress = zlib.compressobj(9, zlib.DEFLATED, 31 if coding == "gzip" else 15)
    bomb = b"".join(compress.compress(bytes(1024**2)) for _ in range(512)) + compress.flush()
    assert len(bomb) < 1024**2
    with wire(lambda _: [http(200, bomb, f"Content-Encoding: {coding}")]) as server:
        before = peak_memory()
        (outcome,) = send(server.url, CALL, timeout=30.0)
    assert "longer than 67,108,864 bytes" in str(outcome)
    assert outcome.is_paid
    assert peak_memory() - before < 300 * 1024**2


def peak_memory() -> int:
    """Return the most memory that this process has used, in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def test_of_a_long_error_only_the_beginning_is_read() -> None:
    with wire(lambda _: [http(400, b'{"error": "no"}' + b" " * 10_000_000)]) as server:
        (reply,) = send(server.url, CALL)
    assert reply.status == 400
    assert len(reply.body) < 2 * endpoint_module.LONGEST_ERROR


def test_a_compressed_answer_is_read() -> None:
    with wire(lambda _: [http(200, gzip.compress(completion("Ja.")), "Content-Encoding: gzip")]) as server:
        assert send(server.url, CALL)[0].text == "Ja."


# Surroundings


@pytest.mark.parametrize("key", ["sk-a\n", "sk-a\r\nX: y", "sk-é", "sk a", "sk-\x00", "“sk-a”", "\ud800"])
def test_a_key_that_no_header_can_hold_is_refused_before_it_is_used(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.environ", {"OPENAI_API_KEY": key})
    with pytest.raises(InputError, match="OPENAI_API_KEY holds") as refused:
        Endpoint("https://api.openai.com/v1", "m", timeout=1, connections=1)
    assert key not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SSL_CERT_FILE", "gone.pem"),
        ("SSL_CERT_FILE", "words.pem"),
        ("HTTPS_PROXY", "nonsense://x"),
        ("ALL_PROXY", "nonsense://x"),
    ],
)
def test_certificates_and_proxies_that_cannot_be_used_are_one_line(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("words.pem").write_text("no certificate")
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=name) as refused:
        send("https://192.0.2.1/v1", CALL)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["http://a..b/v1", f"http://{'a' * 70}.example/v1", "http://xn--/v1", "http://127.0.0.1:99999/v1"]
)
def test_an_address_that_no_client_takes_is_no_traceback(url: str) -> None:
    try:
        (outcome,) = send(url, CALL, timeout=2.0)
    except InputError as error:
        outcome = error
    assert isinstance(outcome, Transient | Outage | InputError)
    assert "\n" not in str(outcome)


def test_half_a_character_in_a_prompt_is_no_traceback() -> None:
    call = Call(b"k" * 32, "m", [{"role": "user", "content": "half \ud83d"}], {}, 0, 1, "answer", {})
    with wire(lambda _: [http(200, completion())]) as server:
        (outcome,) = send(server.url, call)
    assert outcome.status == 400
    assert "half a character" in outcome.body
    assert server.requests == []


# What is paid for


def test_a_cap_bounds_what_is_paid_where_answers_hold_no_completion() -> None:
    paid = [0]

    def answer(_: bytes) -> Pieces:
        paid[0] += 1
        kind = paid[0] % 4
        return [GOOD, http(200, b"<html>"), http(200, b'{"choices": []}'), HEAD + LENGTH + b"\r\n" + completion()[:9]][
            kind : kind + 1
        ]

    prompts = write_seeds(60)
    for concurrency, cap in ((1, 20), (16, 20), (64, 33)):
        paid[0] = 0
        with wire(answer) as server:
            output = f"{concurrency}/x.jsonl"
            outcome = respond(prompts, f"m@{server.url}", output, max_calls=cap, concurrency=str(concurrency))
        assert outcome.reason == "cap"
        assert paid[0] <= cap, "no more is paid for than the cap"
        assert outcome.run["unanswered"] + outcome.run["usage"]["calls"] <= cap
        assert outcome.run["unanswered"] > 0


@pytest.mark.parametrize("count", [-5, 10**12, 1.5, True, "7", None, [1], {"a": 1}])
def test_a_number_of_tokens_that_cannot_be_true_enters_no_total(count: object) -> None:
    write_seeds(2)
    with wire(lambda _: [http(200, completion(prompt_tokens=count, completion_tokens=count))]) as server:
        outcome = respond(Path("seeds.jsonl"), f"m@{server.url}")
    usage = outcome.result["usage"]
    assert usage["calls"] == usage["estimated"] == 2 and usage["prompt_tokens"] + usage["completion_tokens"] < 200
    assert len(rows("out.jsonl")) == 2
    json.dumps(outcome.run)


def test_a_good_server_is_used_as_before() -> None:
    with running(Server(answer=lambda *_: "Fine.")) as server:
        assert respond(write_seeds(5), f"m@{server.url}").result["funnel"]["kept"] == 5
