"""The limiter and the budget, over a scripted layer, in real (short) time."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from datagen.errors import CallFailed, Outage, Stopped
from datagen.llm import limiter as limiter_module
from datagen.llm.budget import Budget, Cap, Stop
from datagen.llm.call import Adapted, Call, Doubtful, Reply, Transient
from datagen.llm.limiter import ADAPTIVE_START, EQUAL_REFUSALS, MAX_TRIES, TRIES_BEFORE_CONTACT, Limiter

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
    assert backend.requests == TRIES_BEFORE_CONTACT + 1 < MAX_TRIES, "the last is the probe"


def test_where_nothing_listens_one_call_tries_again_and_the_others_wait() -> None:
    backend = Backend(lambda number: Transient("nothing listens at URL", unreachable=True))
    _, results = send_all(backend, 200, None)
    assert [type(result) for result in results].count(Outage) == 1
    assert str(next(result for result in results if isinstance(result, Outage))).startswith("m: nothing listens at URL")
    assert backend.requests == ADAPTIVE_START + TRIES_BEFORE_CONTACT - 1, "the others were never sent"


def test_calls_that_wait_for_a_server_are_sent_once_it_is_there() -> None:
    backend = Backend(lambda number: Transient("nothing listens", unreachable=True) if number <= 17 else None)
    _, replies = send_all(backend, 20, 16)
    assert replies == [GOOD] * 20


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


class Poisoned(Backend):
    """Fails for good on some samples; a probe, and all others, are answered."""

    def __init__(self, error: Callable[[], Exception | Reply], samples: Sequence[int] = (0,)) -> None:
        super().__init__()
        self.error, self.samples, self.sent_to = error, samples, list[str]()

    async def send(self, call: Call) -> Reply:
        await super().send(call)
        self.sent_to.append(call.task)
        if call.task == "probe" or call.sample not in self.samples:
            return GOOD
        outcome = self.error()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


@pytest.mark.parametrize("concurrency", [1, 64])
@pytest.mark.parametrize("others", [0, 5])
def test_a_fault_of_one_request_is_none_of_the_address(others: int, concurrency: int) -> None:
    backend = Poisoned(lambda: Transient("HTTP 500: the tokenizer failed"))
    _, results = send_all(backend, 1 + others, concurrency)
    assert isinstance(results[0], CallFailed) and results[0].reason == "no answer"
    assert results[1:] == [GOOD] * others


def flagged() -> Doubtful:
    return Doubtful(Reply(403, '{"error": "flagged"}'), Outage("access is refused"))


@pytest.mark.parametrize("concurrency", [1, 64])
@pytest.mark.parametrize("others", [0, 5])
def test_a_doubtful_refusal_is_that_of_the_request_if_another_is_answered(others: int, concurrency: int) -> None:
    _, results = send_all(Poisoned(flagged), 1 + others, concurrency)
    assert isinstance(results[0], Reply) and results[0].status == 403
    assert results[1:] == [GOOD] * others


def test_a_doubtful_refusal_of_everything_is_an_outage() -> None:
    backend = Backend(lambda number: flagged())
    _, results = send_all(backend, 20, 1)
    assert isinstance(results[0], Outage) and str(results[0]) == "access is refused"
    assert backend.requests == 2, "one call and the probe"


def test_the_same_refusal_of_everything_is_an_outage_in_the_words_of_the_server() -> None:
    numbers = iter(range(1000))

    def refuse() -> Reply:
        return Reply(400, f'{{"error": {{"message": "no adapter for request {next(numbers)}"}}}}')

    class Refusing(Poisoned):
        async def send(self, call: Call) -> Reply:
            self.requests += 1
            return refuse()

    backend = Refusing(refuse)
    _, results = send_all(backend, 40, 1)
    (outage,) = (result for result in results if isinstance(result, Outage))
    assert "every request is refused (HTTP 400): no adapter for request" in str(outage)
    assert backend.requests == EQUAL_REFUSALS + 1

    # Where something else is answered, each refusal is that of its request.
    poisoned = Poisoned(refuse, samples=range(40))
    _, results = send_all(poisoned, 40, 4)
    assert all(isinstance(result, Reply) and result.status == 400 for result in results)
    assert poisoned.sent_to.count("probe") == 1


def test_a_timeout_is_sent_twice() -> None:
    backend = Poisoned(lambda: Transient("no whole answer within --timeout 2 s", timed_out=True))
    _, (error,) = send_all(backend, 1, 4)
    assert isinstance(error, CallFailed) and error.reason == "timed out"
    assert backend.sent_to == ["answer", "answer", "probe"]


@pytest.mark.parametrize("concurrency", [1, 64, None])
def test_a_busy_server_uses_up_no_try(concurrency: int | None) -> None:
    busy = min(40, concurrency or 16) + 11
    backend = Backend(lambda number: Transient("HTTP 503: loading", rate_limited=True) if number <= busy else None)
    _, replies = send_all(backend, 40, concurrency)
    assert replies == [GOOD] * 40


def test_a_server_that_names_a_wait_is_left_alone_and_then_asked_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limiter_module, "SHARED_WAIT", 0.1)
    sent: list[float] = []

    class Busy(Backend):
        async def send(self, call: Call) -> Reply:
            sent.append(asyncio.get_running_loop().time())
            await asyncio.sleep(0.001)
            if len(sent) <= 8:
                raise Transient("HTTP 429", retry_after=0.2, rate_limited=True)
            return GOOD

    limiter, replies = send_all(Busy(), 60, 8)
    assert replies == [GOOD] * 60
    assert len(sent) == 68 and limiter.retries == 8
    assert sent[8] - sent[7] >= 0.19, "nothing was sent before"
    assert sent[9] > sent[8], "one at first"


def test_patience_has_an_end() -> None:
    backend = Backend(lambda number: Transient("HTTP 503: loading", rate_limited=True))

    async def run() -> object:
        limiter = Limiter({"m": backend}, Stop(), 4, patience=0.05)
        (error,) = await asyncio.gather(limiter.send(call()), return_exceptions=True)
        return error

    error = asyncio.run(run())
    assert isinstance(error, Outage) and "the endpoint has been busy for" in str(error)


def test_a_refused_parameter_is_sent_again_at_once_and_counted() -> None:
    backend = Backend(lambda number: Adapted() if number <= 6 else None)
    limiter, replies = send_all(backend, 3, 3)
    assert replies == [GOOD] * 3
    assert (limiter.sent, limiter.retries) == (9, 6)


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
        budget = Budget(backend, Cap(Stop(), cap))
        return budget, await asyncio.gather(*(budget.send(call()) for _ in range(count)), return_exceptions=True)

    return asyncio.run(run())


def test_a_cap_lets_exactly_so_many_through() -> None:
    backend = Backend(latency=0.001)
    budget, results = send_with_budget(10, 25, backend)
    assert backend.requests == budget.cap.used == 10
    assert [type(result) for result in results].count(Stopped) == 15


def test_a_call_that_fails_below_gives_its_place_back() -> None:
    backend = Backend(lambda number: CallFailed("no answer", stage="answer") if number <= 3 else None, latency=0.001)
    budget, results = send_with_budget(10, 13, backend)
    assert budget.cap.used == 10
    assert [type(result) for result in results].count(Stopped) == 0


def test_a_model_at_its_own_limit_holds_no_other_back() -> None:
    limited, free = Backend(), Backend()

    async def run() -> float:
        stop, limits = Stop(), {"limited": {"requests_per_minute": 2}}
        limiter = Limiter({"limited": limited, "free": free}, stop, 4, limits=limits)
        waiting = [asyncio.ensure_future(limiter.send(replace(call(number), model="limited"))) for number in range(9)]
        await asyncio.gather(*(limiter.send(replace(call(number), model="free")) for number in range(30)))
        wait = limiter.rate_allows_at - asyncio.get_running_loop().time()
        stop.now("interrupted")
        assert [str(result) for result in await asyncio.gather(*waiting, return_exceptions=True)][-1] == str(Stopped())
        return wait

    assert 0 < asyncio.run(run()) < 60, "the live line can say when the next request goes"
    assert free.order == list(range(30)) and limited.requests < 3
