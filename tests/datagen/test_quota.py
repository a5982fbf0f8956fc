"""What a server allows is kept to, on a clock of its own, and what the user allows on a real server."""

from functools import cache
from heapq import heappop, heappush
from pathlib import Path
from random import Random

import pytest

from datagen.llm.allowances import read_allowances
from datagen.llm.call import Call, Reply
from datagen.llm.quota import Quota
from tests.jobs import respond, write_seeds
from tests.meter import Meter, Pot
from tests.server import Server, running
from tests.wire import completion

STEP, PROMPT = 0.05, 40


@cache
def call(number: int) -> Call:
    content = "word " * Random(number).randint(PROMPT // 2, 2 * PROMPT)
    return Call(b"", "m", [{"role": "user", "content": content}], {"max_tokens": 500}, number, 1, "answer", {})


def raw_headers(lines: list[str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in (line.split(": ") for line in lines)]


def play(meter: Meter, seconds: float, latency: float, in_flight: int = 200) -> tuple[float, float]:
    """Send as fast as the quota allows; return the requests taken, or tokens, as a share of the limit, and the share
    refused, both in the last two thirds."""
    quota, replies, now, number = Quota({}), list[tuple[float, int]](), 0.0, 0
    outcomes = dict[int, tuple]()  # type: ignore[type-arg]
    taken = refused = 0.0
    while now < seconds:
        while replies and replies[0][0] <= now:
            ticket, sent, reply = outcomes.pop(heappop(replies)[1])
            quota.settle(ticket, sent, reply if reply.status == 200 else None)
            quota.learn(ticket, reply.allowances, now)
        while len(replies) < in_flight and not quota.delay(sent := call(number), now):
            ticket, is_late = quota.take(sent, now), now > seconds / 3
            good = meter.admit(now)
            prompt, answer = len(sent.messages[0]["content"].split()), Random(number).randint(20, 100)
            if good:
                meter.charge(prompt + answer)
                taken += is_late * (prompt + answer if meter.tokens else 1)
            refused += is_late * (not good)
            lines = meter.headers(now, is_refused=not good).splitlines()
            body = completion(prompt_tokens=prompt, completion_tokens=answer).decode()
            outcomes[number] = (
                ticket,
                sent,
                Reply(200 if good else 429, body, allowances=read_allowances(raw_headers(lines))),
            )
            heappush(replies, (now + (latency if good else 0.02), number))
            number += 1
        now += STEP
    pot = meter.tokens or meter.requests
    assert pot is not None
    return taken / (pot.limit / pot.window * seconds * 2 / 3), refused / number


@pytest.mark.parametrize(("spelling", "latency"), [("openai", 0.1), ("openai", 20.0), ("older", 2.0)])
@pytest.mark.parametrize("is_steady", [True, False])
def test_a_limit_of_requests_is_used_up_and_kept_to(spelling: str, latency: float, is_steady: bool) -> None:
    share, refused = play(Meter(spelling, Pot(300, 60, is_steady)), 180, latency)
    assert share >= 0.9 and refused <= 0.05


@pytest.mark.parametrize("is_steady", [True, False])
def test_a_limit_of_tokens_is_used_up_and_kept_to(is_steady: bool) -> None:
    share, refused = play(Meter("openai", Pot(10_000, 60), Pot(30_000, 60, is_steady)), 180, 2.0)
    assert share >= 0.9 and refused <= 0.05


def test_a_short_run_is_not_slowed_down() -> None:
    quota, meter = Quota({}), Meter("openai", Pot(300, 60))
    for number in range(140):
        assert quota.delay(call(number), 0.001 * number) == 0
        ticket = quota.take(call(number), 0.001 * number)
        assert meter.admit(0.001 * number)
        lines = meter.headers(0.001 * number, is_refused=False).splitlines()
        quota.learn(ticket, read_allowances(raw_headers(lines)), 0.001 * number)


@pytest.mark.parametrize(("limits", "most"), [({"requests_per_minute": 60}, 60), ({"tokens_per_minute": 9_000}, 70)])
def test_no_minute_holds_more_than_the_user_allows(limits: dict[str, int], most: int) -> None:
    quota, sent, now = Quota(limits), list[float](), 0.0
    while now < 300:
        while not quota.delay(sending := call(len(sent)), now):
            ticket = quota.take(sending, now)
            body = completion(prompt_tokens=100, completion_tokens=50).decode()
            quota.settle(ticket, sending, Reply(200, body))
            sent.append(now)
        now += STEP
    busiest = max(sum(begin <= time < begin + 60 for time in sent) for begin in sent)
    assert 0.9 * 5 * min(60, most) <= len(sent) and busiest <= most + 1


def test_limits_of_the_models_file_are_kept_to() -> None:
    with running(Server(answer=lambda *_: "Fine.")) as server:
        limits = "{requests_per_minute = 40, concurrency = 3}"
        Path("models.toml").write_text(f"[models.a]\nurl = '{server.url}'\nlimits = {limits}\n")
        respond(write_seeds(22), "a")
        first, *_, last = (entry.at for entry in server.log)
    assert server.peak <= 3
    assert last - first >= 2, "half of them at once, then one every three seconds"


def test_a_server_that_names_what_is_left_is_not_asked_for_more() -> None:
    meter = Meter("openai", Pot(20, 1.0))
    with running(Server(answer=lambda *_: "Fine.", latency=0.05, meter=meter)) as server:
        outcome = respond(write_seeds(60), f"m@{server.url}", concurrency="8")
    assert outcome.result["funnel"]["kept"] == 60
    assert sum(entry.outcome == "429" for entry in server.log) <= 3
