"""The pace of requests, on a clock of its own: a server that refuses above a rate, as a bucket of tokens."""

from heapq import heappop, heappush
from random import Random

import pytest

from datagen.llm.pace import Pace

STEP = 0.001


def play(
    limit: float, burst: float, latency: float, seconds: float, stretch: float = 1.0, *, is_wait_named: bool = True
) -> tuple[float, float]:
    """Send as fast as the pace allows; return the answers per second and the share of refusals in the last half.

    Args:
        limit: The requests per second that the server takes.
        burst: The most that it takes at once.
        latency: Seconds to an answer; a refusal comes soon.
        seconds: How long.
        stretch: By how much the limit rises after a quarter of the time.
        is_wait_named: Whether a refusal names a wait.
    """
    pace, answers, refusals = Pace(), list[float](), list[float]()
    tokens, now, sent, refused, answered = burst, 0.0, 0, 0, 0
    while now < seconds:
        rate = limit * (stretch if now > seconds / 4 else 1)
        tokens = min(burst, tokens + rate * STEP)
        while answers and answers[0] <= now:
            pace.answer(heappop(answers))
            answered += now > seconds / 2
        while refusals and refusals[0] <= now:
            pace.refuse(heappop(refusals), is_wait_named=is_wait_named)
        while not pace.delay(now) and len(answers) + len(refusals) < 64:
            pace.send(now)
            sent += now > seconds / 2
            if tokens >= 1:
                tokens -= 1
                heappush(answers, now + latency)
            else:
                refused += now > seconds / 2
                heappush(refusals, now + 0.02)
        now += STEP
    return answered / (seconds / 2), refused / max(1, sent)


@pytest.mark.parametrize("is_wait_named", [True, False])
@pytest.mark.parametrize("latency", [0.01, 0.5])
@pytest.mark.parametrize("limit", [10, 20, 100])
def test_nearly_all_that_a_server_takes_and_hardly_more(limit: int, latency: float, is_wait_named: bool) -> None:
    rate, refused = play(limit, burst=limit, latency=latency, seconds=40, is_wait_named=is_wait_named)
    assert rate >= 0.9 * limit
    assert refused <= (0.05 if is_wait_named else 0.07)


def test_a_limit_that_rises_is_found() -> None:
    rate, refused = play(20, burst=20, latency=0.1, seconds=40, stretch=3)
    assert rate >= 0.9 * 60 and refused <= 0.05


def test_without_a_refusal_nothing_is_spaced_out() -> None:
    pace = Pace()
    for number in range(1000):
        assert pace.delay(number / 1e6) == 0
        pace.send(number / 1e6)
    pace.refuse(0.01, is_wait_named=True)
    assert pace.rate == float("inf"), "no answer yet: there is nothing to measure"


def test_a_few_refusals_that_name_no_wait_space_nothing_out() -> None:
    pace = Pace()
    for number in range(100):  # many at first
        pace.send(number / 100 - 3)
        pace.refuse(number / 100 - 3, is_wait_named=False)
    for number in range(2000):
        now = number / 100
        assert pace.delay(now) == 0
        pace.send(now)
        if number % 33:
            pace.answer(now)
        else:
            pace.refuse(now, is_wait_named=False)


def test_random_refusals_do_not_slow_a_run_down_more_and_more() -> None:
    pace, chance, now = Pace(), Random(1), 0.0
    pace.rate = 20.0
    while now < 60:
        while not pace.delay(now):
            pace.send(now)
            if chance.random() < 0.05:
                pace.refuse(now, is_wait_named=False)
            else:
                pace.answer(now)
        now += 0.01
    assert pace.rate >= 20
