"""Several servers with one model: one identity, and the run goes on while one of them answers."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import pytest

from datagen.errors import InputError, Outage
from datagen.llm import limiter, replicas
from datagen.llm.budget import Stop
from datagen.llm.call import Call, Reply, Transient
from datagen.llm.replicas import Breaker
from datagen.llm.spec import parse_spec
from datagen.records.record import Row
from tests.jobs import digest, evolve, respond, write_seeds
from tests.server import Server, running

ROWS = 60


def closed_url() -> str:
    """Return an address at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}/v1"


@contextmanager
def servers(count: int, **settings: Any) -> Iterator[list[Server]]:
    """Run several servers."""
    if not count:
        yield []
        return
    with running(Server(**settings)) as first, servers(count - 1, **settings) as others:
        yield [first, *others]


def spec(*urls: str) -> str:
    return f"m@{','.join(urls)}"


@pytest.fixture
def one_server() -> str:
    """The digest of a run with one server."""
    with running(Server()) as server:
        evolve(write_seeds(ROWS), f"m@{server.url}", "one/out.jsonl", rounds=2)
    return digest("one/out.jsonl")


def test_several_addresses_are_one_model() -> None:
    first, second = "http://127.0.0.1:1/v1", "http://10.0.0.7:2/v1"
    together = parse_spec(f"org/m#t@{first}/,{second}")
    assert (together.identity, together.name, together.urls) == ("org/m#t", "org/m", (first, second))
    assert parse_spec(f"m@{first},{first}").urls == (first,)
    guessed = parse_spec("m@127.0.0.1:1/v1, 10.0.0.7:2/v1")
    assert guessed.urls == (first, second)
    assert guessed.note == f"Taking {first} and {second} as the address of m."
    assert parse_spec(f"m@{first},10.0.0.7:2/v1").note == f"Taking {second} as the address of m."


@pytest.mark.parametrize("rest", [",", ",nonsense", ",http://", ",ftp://a/v1"])
def test_each_address_is_checked(rest: str) -> None:
    with pytest.raises(InputError, match=r"expected NAME\[#tag\]\[@URL\]"):
        parse_spec(f"m@http://127.0.0.1:1/v1{rest}")
    with pytest.raises(InputError, match="must not hold a query"):
        parse_spec("m@http://127.0.0.1:1/v1,http://127.0.0.1:2/v1?key=secret")


def test_the_work_is_shared_and_the_rows_are_the_same(one_server: str) -> None:
    with servers(3, latency=0.005) as machines:
        evolve(write_seeds(ROWS), spec(*(m.url for m in machines)), "out.jsonl", rounds=2, concurrency="4")
    counts = [machine.requests for machine in machines]
    assert min(counts) > max(counts) / 2 and max(machine.peak for machine in machines) <= 4
    assert digest("out.jsonl") == one_server


@contextmanager
def when(is_time: Callable[[], bool], act: Callable[[], Any]) -> Iterator[None]:
    """Act on another thread as soon as it is time, at the latest at the end of the block."""
    is_over = threading.Event()

    def wait() -> None:
        while not is_time() and not is_over.wait(0.001):
            pass
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def test_a_server_that_dies_midway_costs_no_row(one_server: str) -> None:
    with running(Server(latency=0.005)) as healthy, ExitStack() as life:
        dying = life.enter_context(running(Server(latency=0.005)))
        with when(lambda: dying.requests >= 40, life.close):
            model = spec(dying.url, healthy.url)
            outcome = evolve(write_seeds(ROWS), model, "out.jsonl", rounds=2, concurrency="8", timeout=30.0)
    assert dying.requests >= 40 < healthy.requests
    assert outcome.result["status"] == "finished" and digest("out.jsonl") == one_server
    assert [note for note in outcome.notes if note.startswith(dying.url) and "was left out" in note]


def test_a_server_that_is_not_there_is_left_out_and_tried_again(
    one_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "COOLDOWN", 0.01)
    url, late = closed_url(), Server(latency=0.005)
    with running(Server(latency=0.005)) as healthy, ExitStack() as life:
        start = partial(life.enter_context, running(late, int(url.split(":")[2].partition("/")[0])))
        with when(lambda: healthy.requests >= 20, start):
            evolve(write_seeds(ROWS), spec(url, healthy.url), "out.jsonl", rounds=2, concurrency="8", timeout=30.0)
    assert late.requests > 20
    assert digest("out.jsonl") == one_server


def test_where_nothing_listens_another_address_is_asked_at_once() -> None:
    with running(Server()) as healthy:
        outcome = respond(write_seeds(20), spec(closed_url(), healthy.url), concurrency="8")
    assert outcome.result["status"] == "finished"
    assert (outcome.run["retries"], healthy.requests) == (0, 20)


def test_an_address_that_never_answered_can_be_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limiter, "FIRST_BACKOFF", 0.001)
    good = Reply(200, '{"choices": [{"message": {"content": "yes"}}]}')

    class Late:
        """Cannot be reached at first."""

        tries = 0

        async def send(self, call: Call) -> Reply:
            self.tries += 1
            if self.tries <= limiter.TRIES_BEFORE_CONTACT:
                raise Transient("nothing listens", unreachable=True)
            return good

    async def send_twice() -> Reply:
        run = Stop()
        here, elsewhere = Breaker(run, "here"), Breaker(run, "elsewhere")
        here.groups.append([here, elsewhere])
        sender = limiter.Limiter({"m": Late()}, here, 4)
        first, second = (Call(bytes([n]), "m", [], {}, n, 1, "answer", {}) for n in range(2))
        with pytest.raises(Outage):
            await sender.send(first)
        assert (here.reason, run.reason) == ("outage", None)
        here.try_again()
        return await asyncio.wait_for(sender.send(second), 5)

    assert asyncio.run(send_twice()) == good


@pytest.mark.parametrize("status", [401, 404, 410])
def test_a_server_that_refuses_everything_is_left_out(status: int, one_server: str) -> None:
    def refuse(request: Row) -> tuple[int, Row]:
        return status, {"error": {"message": "not here"}}

    with running(Server()) as healthy, running(Server(refuse=refuse)) as refusing:
        model = spec(refusing.url, healthy.url)
        outcome = evolve(write_seeds(ROWS), model, "out.jsonl", rounds=2, concurrency="8")
    assert outcome.result["status"] == "finished" and digest("out.jsonl") == one_server
    assert 1 <= refusing.requests < healthy.requests


def test_the_run_stops_when_no_address_is_left_and_goes_on_later(
    one_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limiter, "FIRST_BACKOFF", 0.01)
    with servers(2, latency=0.005) as machines, ExitStack() as life:
        gone = life.enter_context(running(Server(latency=0.005)))
        urls = gone.url, closed_url()
        with when(lambda: gone.requests >= 40, life.close):
            outcome = evolve(write_seeds(ROWS), spec(*urls), "out.jsonl", rounds=2, concurrency="8", timeout=30.0)
        assert (outcome.result["status"], outcome.reason) == ("stopped", "outage")
        assert isinstance(outcome.error, Outage) and "nothing listens" in str(outcome.error)
        evolve(write_seeds(ROWS), spec(*(m.url for m in machines)), "out.jsonl", rounds=2, concurrency="8")
    assert digest("out.jsonl") == one_server


def test_a_model_with_one_address_stops_the_run_with_it() -> None:
    with running(Server()) as healthy:
        dead = closed_url()
        outcome = respond(write_seeds(9), [spec(dead, healthy.url), f"other@{dead}"], timeout=30.0)
    assert outcome.reason == "outage" and "Is the server running, and is the address right?" in str(outcome.error)
