"""The accounts of a run agree: the closing lines, x.meta.json and what the server was asked, at every ending."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from random import Random
from time import sleep
from typing import Any

import pytest

from datagen.commands.terminal import account_lines
from datagen.errors import Outage
from datagen.records.record import Row
from tests.jobs import evolve, respond, write_seeds
from tests.server import Faults, Server, running

NUMBERS = re.compile(
    r"([\d,]+) answers? used, ([\d,]+) prompt \+ ([\d,]+) completion tokens?;\n"
    r"(?:all|of these ([\d,]+) answers?, ([\d,]+) tokens?) in the ([\d,]+) candidates? written\n"
    r"([\d,]+) requests? sent in [\d.]+ s, ([\d,]+) answers? replayed"
)


def check(text: str, meta: Row) -> None:
    """Check the closing lines against x.meta.json, and both for sense."""
    result, run = meta["result"], meta["run"]
    written, spent = result["usage"], run["usage"]
    match = NUMBERS.search(text)
    assert match, text
    numbers = [int(number.replace(",", "")) if number else None for number in match.groups()]
    tokens = written["prompt_tokens"] + written["completion_tokens"]
    part = [None, None] if spent == written else [written["calls"], tokens]
    candidates, requests = [result["funnel"]["asked"]], [run["requests"], run["replayed"]]
    counts = [spent[name] for name in ("calls", "prompt_tokens", "completion_tokens")]
    assert numbers == [*counts, *part, *candidates, *requests]
    assert all(spent[name] >= written[name] for name in written if written[name] is not None)
    for name in ("calls", "prompt_tokens", "completion_tokens", "unpriced"):
        assert written[name] == sum(each[name] for each in result["spending"])
    assert run["requests"] - run["retries"] >= spent["calls"] - run["replayed"], "an answer was requested or replayed"


def command(server: Server, *arguments: str, stop_after: int | None = None) -> tuple[str, Row]:
    """Run `datagen`, with SIGINT after some requests; return what it printed and x.meta.json."""
    requests = server.requests
    process = subprocess.Popen([sys.executable, "-m", "datagen", *arguments, "-o", "x.jsonl"], stderr=subprocess.PIPE)
    if stop_after is not None:
        while server.requests < requests + stop_after and process.poll() is None:
            sleep(0.002)
        process.send_signal(signal.SIGINT)
    _, text = process.communicate(timeout=300)
    return text.decode(), json.loads(Path("x.meta.json").read_bytes())


@pytest.mark.slow
def test_accounts_agree_at_every_ending() -> None:
    """Interrupted at random moments, at caps, with -n, replayed and finished: after all of it every answer that the
    server delivered was used."""
    seeds, faults, random = str(write_seeds(12)), Faults(0.2, ("503", "empty", "429")), Random(7)
    with running(Server(latency=lambda key: Random(key).uniform(0.0, 0.1), faults=faults)) as server:
        model = f"m@{server.url}"
        for name, number in [
            *(("stop", random.randint(1, 25)) for _ in range(4)),
            ("--max-calls", 120),
            ("-n", 3),
            ("-n", 20),
            ("all", 0),
            ("all", 0),
        ]:
            limit = [name, str(number)] if name.startswith("-") else []
            text, meta = command(
                server, "evolve", seeds, "--model", model, "--concurrency", "4", "--overwrite", *limit,
                stop_after=number if name == "stop" else None,
            )  # fmt: skip
            if meta["run"]["ended"] in ("interrupted", "cap"):
                assert "Next: " in text
            check(text, meta)
        assert not server.paid_twice()
    assert meta["result"]["status"] == "finished" and meta["run"]["usage"] == meta["result"]["usage"]


@pytest.mark.parametrize("run", [{}, {"n": 7}, {"max_calls": 60}], ids=str)
def test_every_answer_is_counted_once(run: dict[str, Any]) -> None:
    with running(Server(faults=Faults(0.2, ("empty", "503"), retry_after=0.01))) as server:
        outcome = evolve(write_seeds(10), f"m@{server.url}", timeout=5, **run)
    usage, requests = outcome.run["usage"], outcome.run["requests"]
    assert usage["calls"] == sum(entry.delivered for entry in server.log) == requests - outcome.run["retries"]
    check("\n".join(account_lines(outcome.result, outcome.run)), {"result": outcome.result, "run": outcome.run})
    again = evolve(write_seeds(10), f"m@{server.url}", **run)
    assert (again.run["requests"], again.run["replayed"]) == (0, again.run["usage"]["calls"])
    assert again.result == outcome.result


def test_equal_requests_in_flight_are_one_request_and_one_replayed_answer() -> None:
    Path("same.jsonl").write_text('{"prompt": "Name a river."}\n' * 5)
    with running(Server(latency=0.05)) as server:
        outcome = respond(Path("same.jsonl"), f"m@{server.url}")
    assert (outcome.run["usage"]["calls"], outcome.run["requests"], outcome.run["replayed"]) == (5, 1, 4)


def test_an_outage_leaves_the_answers_before_it_in_the_account() -> None:
    refused = iter(range(1000))
    with running(Server(refuse=lambda _: (401, {"error": "no"}) if next(refused) > 20 else None)) as server:
        outcome = evolve(write_seeds(10), f"m@{server.url}", timeout=5)
    assert isinstance(outcome.error, Outage)
    assert outcome.run["usage"]["calls"] == sum(entry.delivered for entry in server.log) > 0


def test_a_stop_waits_for_all_answers_of_a_group() -> None:
    """The calls of one comparison are in flight together: those that come after the first failure are recorded too."""
    Path("samples.jsonl").write_text(
        json.dumps({"prompt": "Name a river.", "responses": [f"River {n}." for n in range(4)]}) + "\n"
    )
    with running(Server(latency=0.3, answer=lambda *_: "Verdict: tie")) as server:
        _, meta = command(
            server, "judge", "samples.jsonl", "--by", "compare", "--model", f"m@{server.url}", "--concurrency", "5",
            stop_after=2,
        )  # fmt: skip
    delivered = sum(entry.delivered for entry in server.log)
    assert meta["run"]["usage"]["calls"] == delivered == meta["run"]["requests"]


def test_a_method_without_a_model_has_no_answers_to_account_for() -> None:
    run = {"usage": {"calls": 0}, "requests": 0, "records": 1, "seconds": 0.01, "prices": {}}
    assert account_lines({"usage": {"calls": 0}}, run) == ["1 row read in 0.0 s"]
