"""A local chat-completions server that answers by hash and misbehaves on purpose.

Tests need faults that are the same in every run; benchmarks need a server that is faster than the client.
"""

import argparse
import asyncio
import json
import signal
import sys
import threading
from array import array
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from random import Random
from socket import SO_LINGER, SOL_SOCKET
from typing import Any, TypeVar

from tests.meter import Meter

Message = dict[str, str]
Answer = Callable[[str, list[Message], int, str], str | dict[str, Any]]
"""(model, messages, sample, task) -> content, or the fields of a message."""
ALL = ("429", "500", "503", "reset", "truncated", "malformed", "empty", "hang")
"""Faults that heal."""
ERROR = b'{"error": {"message": "injected", "type": "error", "param": null, "code": null}}'
TEXT = """bridge calm clock copies delta dense encodes engine every filter forest guards index inverts joins
keen keeps kernel limits market measures needle only orbit parser queue rotates signal sorts the when why"""
WORDS = TEXT.split()
SPICES = ("数据生成", "🚀✨", "left\u2028right", "{{ x }}", "{0} %s", "naïve")


def request_key(model: str, messages: list[Message], sample: int) -> str:
    """Return the key of a request; every retry of it has the same key."""
    return sha256(json.dumps([model, messages, sample], sort_keys=True).encode()).hexdigest()


def lognormal(median: float, sigma: float) -> Callable[[str], float]:
    """Return log-normal latencies, a fixed one for each request key."""
    return lambda key: median * Random(f"{key} latency").lognormvariate(0, sigma)


def evolve_answer(model: str, messages: list[Message], sample: int, task: str) -> str:
    """Play every role of Evol-Instruct, with enough faults that each filter drops something."""
    dice = Random(f"{request_key(model, messages, sample)} {task}")
    odd, spice = dice.random(), dice.choice(SPICES) if dice.random() < 1 / 6 else "plain"
    if task == "evolve/equal":
        return f"They ask {spice} things.\nVerdict: {'not equal' if odd < 0.88 else 'equal'}"
    if task.startswith("evolve/"):
        prompt = " ".join(dice.choices(WORDS, k=dice.randint(11, 36))).capitalize()
        return f"{'(rewritten prompt) ' if odd < 0.03 else ''}{prompt} {spice}?"
    if task == "answer" and odd < 0.03:
        return "I'm sorry, but I can't help with that."
    sentences = (" ".join(dice.choices(WORDS, k=dice.randint(6, 12))) for _ in range(dice.randint(2, 4)))
    return f"{'. '.join(sentence.capitalize() for sentence in sentences)} {spice}."


@dataclass(frozen=True)
class Faults:
    """Injected faults; a request gets at most `most_in_a_row` of them, and hangs once, so that an answer comes at
    last."""

    share: float = 0.0
    kinds: tuple[str, ...] = ALL
    retry_after: float = 0.05
    hang_seconds: float = 30
    most_in_a_row: int = 2


@dataclass(slots=True)
class LogEntry:
    """One attempt of one request; `delivered` means that a billed reply was sent on an open connection."""

    key: str
    call: str  # the client's own name for it
    sample: int
    attempt: int
    task: str
    at: float
    outcome: str = ""
    retry_at: float = 0.0
    delivered: bool = False


def http(status: int, body: bytes, extra_headers: str = "") -> bytes:
    """Frame a JSON body."""
    top = f"HTTP/1.1 {status} \r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{extra_headers}\r\n"
    return top.encode() + body


def letters(model: str, text: str) -> list[float]:
    """Return a vector of a text: how often each letter is in it, and one number that every text has."""
    return [1.0, *(float(text.lower().count(letter)) for letter in "abcdefghijklmnopqrstuvwxyz")]


def embeddings(request: dict[str, Any], vector: "list[float] | dict[str, Any]") -> bytes:
    """Wrap a vector as OpenAI does: float32 in base64, or numbers. Fields of a body replace those of this one."""
    fields = {} if isinstance(vector, list) else vector
    numbers: Any = vector if isinstance(vector, list) else []
    if request.get("encoding_format") == "base64":
        numbers = b64encode(array("f", numbers).tobytes()).decode()
    count = len(request["input"].split())
    body = {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": numbers}],
        "model": request["model"],
        "usage": {"prompt_tokens": count, "total_tokens": count},
    }
    return json.dumps(body | fields).encode()


def completion(request: dict[str, Any], key: str, message: dict[str, Any], finish: str) -> bytes:
    """Wrap a message as OpenAI does, in raw UTF-8; a word counts as a token."""
    prompt_tokens, completion_tokens = (
        sum(len(str(m.get("content") or "").split()) for m in request["messages"]),
        len(str(message["content"]).split()),
    )
    body = {
        "id": f"chatcmpl-{key[:24]}",
        "object": "chat.completion",
        "created": 0,
        "model": request["model"],
        "choices": [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
    }
    return json.dumps(body, ensure_ascii=False).encode()


@dataclass(eq=False, repr=False)
class Server:
    """Answers, faults, and the log of the requests."""

    answer: Answer = evolve_answer
    latency: float | Callable[[str], float] = 0.0  # seconds, or key -> seconds
    faults: Faults = field(default_factory=Faults)
    limit: int | None = None
    model: str | None = None  # the name in the answers, where it is not the requested one
    meter: Meter | None = None
    embed: Callable[[str, str], list[float] | dict[str, Any]] = (
        letters  # (model, text) -> a vector, or fields of a body
    )
    refuse: Callable[[dict[str, Any]], tuple[int, dict[str, Any]] | None] = lambda request: None  # to a status and body
    url: str = field(default="", init=False)
    requests: int = field(default=0, init=False)
    in_flight: int = field(default=0, init=False)
    peak: int = field(default=0, init=False)  # the most in flight; a 429 is never in flight
    log: list[LogEntry] = field(default_factory=list, init=False)
    tries: Counter[tuple[str, int]] = field(default_factory=Counter, init=False)
    faulted: Counter[str] = field(default_factory=Counter, init=False)
    hung: set[str] = field(default_factory=set, init=False)
    connections: set["Connection"] = field(default_factory=set, init=False)

    def page(self, page: str, headers: dict[str, str], body: bytes) -> bytes:
        """Answer a request for anything else; a subclass has more pages."""
        return http(404, ERROR)

    def early_retries(self) -> int:
        """Count the tries that came before the time their Retry-After named."""
        early, until = 0, dict[str, float]()
        for entry in self.log:
            early += entry.at < until.get(entry.key, 0.0)
            until[entry.key] = max(entry.retry_at, until.get(entry.key, 0.0))
        return early

    def paid_twice(self) -> list[tuple[str, int]]:
        """List each (key, attempt) whose reply was delivered again: the client lost or repeated work."""
        paid = Counter((entry.key, entry.attempt) for entry in self.log if entry.delivered)
        return [pair for pair, times in paid.items() if times > 1]

    def fate(self, key: str, attempt: int) -> str:
        """Choose an outcome by the history of this request alone, whatever other requests do."""
        dice = Random(f"{key} {attempt} {self.tries[key, attempt]}")
        self.tries[key, attempt] += 1
        if self.faulted[key] >= self.faults.most_in_a_row or dice.random() >= self.faults.share:
            return "ok"
        self.faulted[key] += 1
        kind = dice.choice(self.faults.kinds)
        if kind == "hang" and key in self.hung:
            return "ok"
        self.hung |= {key} if kind == "hang" else set()
        return kind

    def admit(self, entry: LogEntry) -> float:
        """Log an attempt on arrival, as its client may die before the reply; return the delay of the reply."""
        full = self.limit is not None and self.in_flight >= self.limit
        is_refused = full or (self.meter is not None and not self.meter.admit(entry.at))
        entry.outcome = "429" if is_refused else self.fate(entry.key, entry.attempt)
        self.requests += 1
        self.log.append(entry)
        if entry.outcome == "429":
            entry.retry_at = entry.at + self.faults.retry_after
        if entry.outcome == "hang":
            return self.faults.hang_seconds
        return self.latency(entry.key) if callable(self.latency) else self.latency

    def reply(self, request: dict[str, Any], entry: LogEntry) -> bytes:
        """Return the bytes that the outcome sends."""
        if entry.outcome in ("reset", "hang"):
            return b""
        if self.meter and entry.outcome == "429":
            words = json.dumps({"error": {"message": self.meter.body(entry.at)}}).encode()
            return http(429, words, self.meter.headers(entry.at, is_refused=True))
        if entry.outcome.isdigit():
            later = f"Retry-After: {self.faults.retry_after:g}\r\n" if entry.outcome == "429" else ""
            return http(int(entry.outcome), ERROR, later)
        if "input" in request:
            body = embeddings(request, self.embed(request["model"], request["input"]))
            response = http(200, body[: len(body) // 2] if entry.outcome == "malformed" else body)
            return response[: -len(body) // 2] if entry.outcome == "truncated" else response
        answer = self.answer(request["model"], request["messages"], entry.sample, entry.task)
        message = answer if isinstance(answer, dict) else {"content": answer}
        kept = {"empty": 0, "length": len(message["content"]) // 2}.get(entry.outcome, len(message["content"]))
        message = {**message, "content": message["content"][:kept]}
        named = {**request, "model": self.model or request["model"]}
        body = completion(named, entry.key, message, "length" if entry.outcome == "length" else "stop")
        half, headers = len(body) // 2, ""
        if self.meter:
            self.meter.charge(json.loads(body)["usage"]["total_tokens"])
            headers = self.meter.headers(entry.at, is_refused=False)
        response = http(200, body[:half] if entry.outcome == "malformed" else body, headers)
        return response[:-half] if entry.outcome == "truncated" else response


@dataclass(eq=False)
class Connection(asyncio.Protocol):
    """One keep-alive connection; it serves one request at a time, so replies leave in order."""

    server: Server
    transport: asyncio.Transport = field(init=False)
    buffer: bytearray = field(default_factory=bytearray)
    waiting: asyncio.TimerHandle | None = None
    last: bool = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a reply that nobody waits for."""
        self.server.connections.discard(self)
        if self.waiting:
            self.waiting.cancel()
            self.server.in_flight -= 1

    def data_received(self, data: bytes) -> None:
        """Serve the buffered requests until one is incomplete or its reply is pending."""
        self.buffer += data
        while not self.waiting and not self.last and (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            first, *lines = self.buffer[:end].decode("latin-1").split("\r\n")
            headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
            stop = end + 4 + int(headers.get("content-length", "0"))
            if len(self.buffer) < stop:
                return
            body = bytes(self.buffer[end + 4 : stop])
            del self.buffer[:stop]
            self.last = headers.get("connection", "").lower() == "close"
            self.route(first.rpartition(" ")[0], headers, body)

    def route(self, page: str, headers: dict[str, str], body: bytes) -> None:
        if page in ("POST /v1/chat/completions", "POST /v1/embeddings"):
            self.chat(headers, body)
        elif page == "GET /v1/models":
            models = [{"id": name, "object": "model"} for name in ("local", "qwen3:8b")]
            self.send(http(200, json.dumps({"object": "list", "data": models}).encode()))
        elif page == "GET /stats":
            server, outcomes = self.server, Counter(entry.outcome for entry in self.server.log)
            stats = {"requests": server.requests, "peak": server.peak, "outcomes": outcomes}
            self.send(http(200, json.dumps(stats).encode()))
        else:
            self.send(self.server.page(page, headers, body))

    def chat(self, headers: dict[str, str], body: bytes) -> None:
        """Decide everything on arrival; only the sending happens later."""
        server, loop = self.server, asyncio.get_running_loop()
        try:
            request, metadata = json.loads(body), json.loads(headers.get("x-datagen", "{}"))
            sample, attempt, task = metadata.get("sample", 0), metadata.get("attempt", 1), metadata.get("task", "")
            if refused := server.refuse(request):
                server.requests += 1
                self.send(http(refused[0], json.dumps(refused[1]).encode()))
                return
            key = request_key(request["model"], request.get("messages") or [{"content": request["input"]}], sample)
            entry = LogEntry(key, metadata.get("key", ""), sample, attempt, task, loop.time())
            delay, data = server.admit(entry), server.reply(request, entry)
        except (AttributeError, KeyError, TypeError, ValueError) as problem:
            self.send(http(400, json.dumps({"error": {"message": repr(problem)}}).encode()))
            return
        if entry.outcome == "429":
            self.send(data)
            return
        server.in_flight += 1
        server.peak = max(server.peak, server.in_flight)
        self.waiting = loop.call_later(delay, self.finish, entry, data)

    def finish(self, entry: LogEntry, data: bytes) -> None:
        """Send the reply; a reset closes without lingering, which sends an RST and not a FIN."""
        self.waiting = None
        self.server.in_flight -= 1
        self.last = self.last or entry.outcome in ("reset", "truncated", "hang")
        if entry.outcome == "reset":
            self.transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, b"\1" + bytes(7))
        entry.delivered = self.send(data) and entry.outcome in ("ok", "empty", "length")
        self.data_received(b"")

    def send(self, data: bytes) -> bool:
        """Send bytes; return whether the connection was open."""
        self.transport.write(data)
        was_open = not self.transport.is_closing()
        if self.last:
            self.transport.close()
        return was_open


AnyServer = TypeVar("AnyServer", bound=Server)


@contextmanager
def running(server: AnyServer, port: int = 0) -> Iterator[AnyServer]:
    """Run a server on a loop and thread of its own, so that a test may block or run its own loop."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    start = loop.create_server(lambda: Connection(server), "127.0.0.1", port, backlog=4096)
    listener = asyncio.run_coroutine_threadsafe(start, loop).result()
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"

    def drop() -> None:
        listener.close()
        for connection in server.connections:
            connection.transport.abort()
        loop.call_soon(loop.stop)  # behind the calls to connection_lost

    try:
        yield server
    finally:
        loop.call_soon_threadsafe(drop)
        thread.join()
        loop.close()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--port", type=int, default=0)
    options.add_argument("--latency", default="0", help="SECONDS or lognormal:MEDIAN:SIGMA")
    options.add_argument("--faults", type=float, default=0.0, help="share of tries that go wrong")
    options.add_argument("--kinds", default=",".join(ALL), help="which faults, comma-separated")
    options.add_argument("--log", type=Path, default="/dev/null", help="file for the log, as JSON lines")
    arguments = options.parse_args()
    name, *numbers = arguments.latency.split(":")
    latency = lognormal(*map(float, numbers)) if name == "lognormal" else float(name)
    server = Server(latency=latency, faults=Faults(arguments.faults, tuple(arguments.kinds.split(","))))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with running(server, arguments.port), suppress(KeyboardInterrupt):
        print(server.url, flush=True)
        if (stdin := Path("/dev/stdin")).is_fifo() or stdin.is_socket():
            sys.stdin.read()  # to its end: no server may outlive its parent
        else:
            signal.pause()
    arguments.log.write_text("".join(json.dumps(asdict(entry)) + "\n" for entry in server.log))


if __name__ == "__main__":
    main()
