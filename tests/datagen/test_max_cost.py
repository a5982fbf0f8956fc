"""`--max-cost`: whatever the prices, the answers and the faults are, a run pays no more, and uses most of it."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from random import Random
from time import sleep
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from datagen.commands.main import app
from datagen.engine.job import Outcome
from datagen.llm import limiter, stack
from datagen.llm.call import Call, Layer, Reply, Transient
from datagen.llm.dialects import Tokens
from datagen.llm.parameters import length_limit
from datagen.llm.prices import Price, parse_price, prompt_bound
from tests.jobs import evolve, respond, write_seeds
from tests.server import Server, evolve_answer, running


def datagen(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), prog_name="datagen")


LONGEST = 60
"""Tokens of an answer."""
FAULTS: Mapping[str, Transient | None] = {
    "paid": Transient("no chat completion in the answer", is_paid=True),
    "timeout": Transient("no whole answer", timed_out=True),
    "busy": Transient("HTTP 429", rate_limited=True),
    "error": Transient("HTTP 500"),
    "uncounted": None,
    "empty": None,
}


class Provider:
    """An innermost layer that answers as it likes within the limits of a call, misbehaves, and writes a bill."""

    def __init__(self, seed: int, price: Price, faults: float, latency: float) -> None:
        self._seed, self._price, self._faults, self._latency = seed, price, faults, latency
        self.bill, self.calls, self.dearest = Decimal(0), 0, Decimal(0)
        self._tries: dict[tuple[bytes, int], int] = {}

    async def send(self, call: Call) -> Reply:
        name = (call.key, call.attempt)
        dice, tries = Random(f"{self._seed} {call.key.hex()} {call.attempt}"), self._tries.get(name, 0)
        self._tries[name] = tries + 1
        self.calls += 1
        await asyncio.sleep(dice.random() * self._latency)
        kind = dice.choice(list(FAULTS)) if dice.random() < self._faults else "ok"
        if tries and FAULTS.get(kind):  # it heals
            kind = "ok"
        limit = length_limit(call.params)
        assert limit is not None
        completion = min(limit, int(limit * dice.random() ** 3) + 1)
        prompt = dice.randint(1, prompt_bound(call) - 16)
        cached, reasoning = dice.randint(0, prompt), dice.randint(0, completion)
        self.dearest = max(self.dearest, self._price.most(prompt_bound(call), limit))
        if kind in ("ok", "paid", "timeout", "uncounted", "empty"):
            self.bill += self._price.cost(Tokens(prompt, completion, cached, 0, reasoning))
        if fault := FAULTS.get(kind):
            raise Transient(
                str(fault), is_paid=fault.is_paid, timed_out=fault.timed_out, rate_limited=fault.rate_limited
            )
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": completion - reasoning,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": cached},
        }
        text = "" if kind == "empty" else evolve_answer("m", call.messages, call.sample, call.task)
        choice = {"message": {"content": text}, "finish_reason": "stop"}
        body = {"choices": [choice], **({} if kind == "uncounted" else {"usage": usage})}
        return Reply(200, json.dumps(body))


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limiter, "backoff", lambda number: 0.001)


def random_run(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a command under a random cap, again, and under a higher one; check what is paid and what is written."""
    dice = Random(seed)
    text = f"{dice.randint(1, 99) / 10}/{dice.randint(1, 600) / 10}/{dice.randint(0, 9) / 100}"
    price, faults = parse_price(text, text), dice.choice([0.0, 0.0, 0.1, 0.3])
    latency, provider = dice.choice([0.0, 0.001, 0.003]), Provider(seed, price, faults, 0.0)

    def open_backend(*_: Any) -> Layer:
        return provider

    monkeypatch.setattr(stack, "open_backend", open_backend)
    seeds, concurrency = write_seeds(dice.randint(10, 25)), str(dice.choice([1, 4, 16, 64]))
    commands: list[Callable[..., Outcome]] = [respond, evolve]
    command = dice.choice(commands)
    extra = {"k": dice.randint(1, 4)} if command is respond else {"rounds": 2}
    options = {"price": [text], "concurrency": concurrency, "max_tokens": LONGEST, "max_failed": "100%"} | extra

    def run(output: str, cap: Decimal | None) -> tuple[Outcome, Decimal, int]:
        before, calls = provider.bill, provider.calls
        outcome = command(
            seeds, "m@http://127.0.0.1:9/v1", output, max_cost=None if cap is None else float(cap), **options
        )
        return outcome, provider.bill - before, provider.calls - calls

    # 1. What it costs without a cap, in a folder of its own.
    whole, bill, _ = run("whole/out.jsonl", None)
    assert whole.run["paid"] is not None and (faults or abs(Decimal(str(whole.run["paid"])) - bill) < Decimal("1e-9"))

    # 2. With a cap: not a cent more. Most of it is used, if it is worth a number of records.
    provider = Provider(seed, price, faults, latency)
    cap = round(bill * Decimal(dice.uniform(0.05, 0.95)), 9)
    capped, paid, _ = run("capped/out.jsonl", cap)
    assert paid <= cap, (seed, paid, cap)
    a_record = bill / len(Path(seeds).read_text().splitlines())
    assert capped.reason == "cap" or faults
    if not faults and cap > 8 * max(provider.dearest, a_record):
        assert paid >= Decimal("0.8") * cap, (seed, paid, cap, provider.dearest, a_record)

    # 3. The same again: it stops at once and pays nothing.
    again, more, calls = run("capped/out.jsonl", cap)
    assert again.reason == "cap" and not more and not calls, seed

    # 4. A cap in between, and then none: the sum of all that was paid stays below each cap; the rows are the same.
    middle = cap + round((bill - cap) / 2, 9)
    _, more, _ = run("capped/out.jsonl", middle)
    assert paid + more <= middle, (seed, paid, more, middle)
    last, _, _ = run("capped/out.jsonl", None)
    if not faults:
        assert last.status == "finished"
    if last.status == "finished" and whole.status == "finished":
        for name in ("out.jsonl", "out.rejected.jsonl"):
            assert Path("capped", name).read_bytes() == Path("whole", name).read_bytes(), seed


def random_runs(seeds: range, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    for seed in seeds:
        (folder / str(seed)).mkdir()
        monkeypatch.chdir(folder / str(seed))
        random_run(seed, monkeypatch)


@pytest.mark.parametrize("first", range(0, 12, 4))
def test_no_run_pays_more_than_its_cap(first: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    random_runs(range(first, first + 4), monkeypatch, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(12, 200, 47))
def test_none_of_a_thousand_runs_pays_more_than_its_cap(
    first: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """188 commands of five runs each; with those of the test above 1,000."""
    random_runs(range(first, first + 47), monkeypatch, tmp_path)


@pytest.mark.slow
def test_what_killed_runs_have_paid_counts() -> None:
    """The answers on the way at a kill are the only ones that are not noted."""
    seeds = write_seeds(60)
    with running(Server(latency=0.02)) as server:
        command = [
            *(sys.executable, "-m", "datagen", "respond", str(seeds), "--model", f"m@{server.url}"),
            *("--price", "0/1000", "--max-cost", "0.9", "--max-tokens", "40", "--concurrency", "2", "-o", "x.jsonl"),
        ]
        for number in (10, 1000):
            process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            while process.poll() is None and server.requests < number:
                sleep(0.005)
            if number < 1000:
                process.send_signal(signal.SIGKILL)
            process.wait()
        delivered = sum(entry.delivered for entry in server.log)
    meta = json.loads(Path("x.meta.json").read_bytes())
    assert process.returncode == 4 and meta["run"]["cap"] == "max_cost"
    assert meta["run"]["usage"]["cost"] <= 0.9 and meta["run"]["replayed"] >= 5
    assert delivered <= meta["run"]["usage"]["calls"] + 4


def test_a_cap_that_covers_no_call_says_what_one_may_cost() -> None:
    with running(Server()) as server:
        arguments = ["respond", str(write_seeds(3)), "--model", f"m@{server.url}", "--price=1/10", "--max-cost=0.01"]
        ran = datagen(*arguments)
        assert (ran.exit_code, server.requests) == (4, 0)
        assert "may cost up to $0.02" in ran.stderr
        assert datagen(*arguments, "--max-tokens", "40").exit_code == 0


@pytest.mark.parametrize(
    "model", ["m@http://127.0.0.1:9/v1", "gpt-4o@http://127.0.0.1:9/v1", "m@https://example.com/v1"]
)
def test_a_cap_without_a_price_is_refused(model: str) -> None:
    ran = datagen("respond", str(write_seeds(1)), "--model", model, "--max-cost", "1")
    assert ran.exit_code == 2 and ran.stderr.count("\n") == 1
    assert "--price IN/OUT" in ran.stderr and "models.toml" in ran.stderr
    assert not Path(".datagen").exists()


def test_a_local_model_is_free_under_a_cap() -> None:
    outcome = respond(write_seeds(3), "sim", max_cost=0.0)
    assert outcome.status == "finished" and outcome.result["usage"]["cost"] == 0


def test_a_lower_cap_of_another_output_counts_replayed_answers() -> None:
    with running(Server()) as server:
        whole = respond(write_seeds(20), f"m@{server.url}", "a.jsonl", price=["1/10"], max_tokens=40)
        requests, cost = server.requests, whole.result["usage"]["cost"]
        part = respond(write_seeds(20), f"m@{server.url}", "b.jsonl", price=["1/10"], max_tokens=40, max_cost=cost / 2)
    assert part.reason == "cap" and server.requests == requests
    assert cost / 4 < part.result["usage"]["cost"] <= cost / 2
