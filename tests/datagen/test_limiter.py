"""The limiter and the budget, over a scripted layer, in real (short) time."""

import asyncio
from collections.abc import Callable, Sequence

import pytest

from datagen.errors import CallFailed, Outage, Stopped
from datagen.llm import limiter as limiter_module
from datagen.llm.budget import Budget, Stop
from datagen.llm.call import Call, Reply, Transient
from datagen.llm.limiter import MAX_TRIES, TRIES_BEFORE_CONTACT, Limiter

GOOD = Reply(200, "{}")


class Backend:
    """Replies after `latency` seconds, unless `fault` returns an error for the nth call."""

    def __init__(self, fault: Callable[[int], Exception | None] = lambda number: None, latency: float = 0.0) -> None:
        self.fault, self.latency = fault, latency
        self.requests = self.in_flight = self.peak = 0
        self.order: list[int] = []

    async def send(self, call: Call) -> Reply:
        self.requests, self.in_flight = self.requests + 1, self.in_flight + 1
        number, self.peak = self.requests, max(self.peak, self.in_flight)
        self.order.append(call.sample)
        await asyncio.sleep(self.latency)
        self.in_flight -= 1
        if error := self.fault(number):
            raise error
        return GOOD


@pytest.fixture(autouse=True)
def quick_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limiter_module, "FIRST_BACKOFF", 0.001)


def call(sample: int = 0) -> Call:
    return Call(b"", "m", [], {}, sample, 1, "answer", {})


def send_all(backend: Backend, count: int, concurrency: int | None) -> tuple[Limiter, Sequence[object]]:
    """Send `count` calls at once through a limiter."""

    async def run() -> tuple[Limiter, Sequence[object]]:
        limiter = Limiter({"m": backend}, Stop(), concurrency)
        tasks = (limiter.send(call(number)) for number in range(count))
        return limiter, await asyncio.gather(*tasks, return_exceptions=True)

    return asyncio.run(run())


def test_no_more_than_the_limit_are_in_flight_and_the_first_come_first() -> None:
    backend = Backend(latency=0.002)
    limiter, replies = send_all(backend, 60, 7)
    assert (backend.peak, limiter.peak, limiter.in_flight) == (7, 7, 0)
    assert backend.order == list(range(60))
    assert replies == [GOOD] * 60


def test_a_fault_is_tried_again_and_holds_no_slot_while_it_waits() -> None:
    backend = Backend(lambda number: Transient("busy", retry_after=0.2) if number == 1 else None)

    async def run() -> float:
        limiter = Limiter({"m": backend}, Stop(), 1)
        loop = asyncio.get_running_loop()
        slow, began = asyncio.ensure_future(limiter.send(call(0))), loop.time()
        await asyncio.sleep(0.01)
        await limiter.send(call(1))
        others = loop.time() - began
        await slow
        assert loop.time() - began >= 0.2, "Retry-After is waited for"
        return others

    assert asyncio.run(run()) < 0.15, "the other call went ahead meanwhile"
    assert backend.order == [0, 1, 0]


def test_a_call_that_is_never_answered_fails_alone_once_the_endpoint_has_answered_others() -> None:
    class Half(Backend):
        async def send(self, call: Call) -> Reply:
            await super().send(call)
            if call.sample == 0:
                raise Transient("reset")
            return GOOD

    async def run() -> list[object]:
        limiter = Limiter({"m": Half()}, Stop(), 2)
        await limiter.send(call(1))
        steady = [limiter.send(call(1)) for _ in range(50)]
        return await asyncio.gather(limiter.send(call(0)), *steady, return_exceptions=True)

    failed, *others = asyncio.run(run())
    assert isinstance(failed, CallFailed | Outage)
    assert others == [GOOD] * 50


def test_a_silent_endpoint_is_an_outage_after_few_tries() -> None:
    backend = Backend(lambda number: Transient("no connection"))
    _, (error,) = send_all(backend, 1, 4)
    assert isinstance(error, Outage)
    assert "no answer in 4 tries, last: no connection" in str(error)
    assert backend.requests == TRIES_BEFORE_CONTACT < MAX_TRIES


def test_a_wait_that_nobody_has_time_for_is_an_outage() -> None:
    backend = Backend(lambda number: Transient("quota", retry_after=86_400, rate_limited=True))
    _, (error,) = send_all(backend, 1, 4)
    assert isinstance(error, Outage)
    assert "asks to wait 86400 s" in str(error)


def test_after_an_outage_the_next_in_line_is_not_sent() -> None:
    backend = Backend(lambda number: Outage("the key is refused"))
    _, results = send_all(backend, 20, 1)
    assert backend.requests == 1
    assert [type(result) for result in results] == [Outage] + [Stopped] * 19


def test_adaptive_concurrency_finds_a_hard_limit_and_keeps_most_of_it() -> None:
    class Capped(Backend):
        async def send(self, call: Call) -> Reply:
            if self.in_flight >= 40:
                raise Transient("full", retry_after=0.001, rate_limited=True)
            return await super().send(call)

    backend = Capped(latency=0.005)
    limiter, replies = send_all(backend, 2000, None)
    assert replies == [GOOD] * 2000
    assert backend.peak == 40
    assert 20 <= limiter.limit <= 60
    assert limiter.retries < 400


def test_random_refusals_keep_a_third_of_the_concurrency() -> None:
    backend = Backend(lambda number: Transient("429", rate_limited=True) if number % 20 == 0 else None, latency=0.004)
    limits: list[float] = []

    async def run() -> None:
        limiter = Limiter({"m": backend}, Stop(), None)
        limiter.limit = 50

        async def one(number: int) -> None:
            await limiter.send(call(number))
            limits.append(limiter.limit)

        await asyncio.gather(*(one(number) for number in range(3000)))

    asyncio.run(run())
    late = limits[len(limits) // 2 :]
    assert sum(late) / len(late) >= 50 / 3


def send_with_budget(cap: int, count: int, backend: Backend) -> tuple[Budget, list[object]]:
    async def run() -> tuple[Budget, list[object]]:
        budget = Budget(backend, Stop(), cap)
        return budget, await asyncio.gather(*(budget.send(call()) for _ in range(count)), return_exceptions=True)

    return asyncio.run(run())


def test_a_cap_lets_exactly_so_many_through() -> None:
    backend = Backend(latency=0.001)
    budget, results = send_with_budget(10, 25, backend)
    assert backend.requests == budget.used == 10
    assert [type(result) for result in results].count(Stopped) == 15


def test_a_call_that_fails_below_gives_its_place_back() -> None:
    backend = Backend(lambda number: CallFailed("no answer", stage="answer") if number <= 3 else None, latency=0.001)
    budget, results = send_with_budget(10, 13, backend)
    assert budget.used == 10
    assert [type(result) for result in results].count(Stopped) == 0
