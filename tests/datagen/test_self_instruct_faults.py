"""Self-Instruct over a server that misbehaves, and after kills: the rows of an undisturbed run, byte for byte."""

import json
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from datagen.commands.table import load_methods
from datagen.llm.sim import SimRandom
from datagen.llm.sim.instructions import tasks
from tests.jobs import perform, rows
from tests.server import Faults, Message, Server, request_key, running

METHODS = load_methods("self-instruct")

WANTED = 40
FAULTS = Faults(0.2, retry_after=0.02, hang_seconds=3)
"""Faults that heal. A cut reply is none here: its whole lines are kept, so it is another answer."""


def play(model: str, messages: list[Message], sample: int, task: str) -> str:
    """Play the model: invent tasks (none is a classification) and answer them."""
    rng = SimRandom(f"{request_key(model, messages, sample)} {task}")
    if task == "self_instruct/tasks":
        return tasks({"count": "8"}, rng)
    if task == "self_instruct/classification":
        return "No"
    return json.dumps({"input": "", "output": f"Answer number {rng.randint(0, 10**9)} of many words."})


def run(seeds: Path, server: Server, output: str, **options: object) -> bytes:
    method = METHODS["paper"]
    run_options = {"n": WANTED, "timeout": 1.0, **options}
    perform(method, seeds, f"m@{server.url}", output, method.options_type(), **run_options)
    return Path(output).read_bytes()


def command(seeds: Path, server: Server, output: Path) -> "subprocess.Popen[str]":
    output.parent.mkdir(exist_ok=True)
    options = ["-n", str(WANTED), "--model", f"m@{server.url}", "-o", str(output), "--timeout", "1.0", "-q"]
    arguments = [sys.executable, "-m", "datagen", "self-instruct", str(seeds), *options]
    return subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)


def test_neither_faults_nor_concurrency_nor_more_rows_change_a_row(real_seeds: Path) -> None:
    with running(Server(answer=play)) as server:
        undisturbed = run(real_seeds, server, "whole/out.jsonl")
    for concurrency in ("1", "16", "256"):
        with running(Server(answer=play, faults=FAULTS)) as server:
            assert run(real_seeds, server, f"{concurrency}/out.jsonl", concurrency=concurrency) == undisturbed
    assert undisturbed.count(b"\n") == WANTED
    with running(Server(answer=play)) as server:
        assert run(real_seeds, server, "more/out.jsonl", n=2 * WANTED).startswith(undisturbed)


def test_a_reply_that_was_cut_keeps_its_whole_lines_and_flags_the_torn_one(real_seeds: Path) -> None:
    lines = [
        {"instruction": task, "input": "", "output": f"{task.split()[-1]} 20. ### It ended."}
        for task in (
            "Tell how an otter sleeps.",
            "Name two uses of a lantern.",
            "Plan a week at the bakery.",
            "Why do glaciers creak?",
            "Describe a violin to a child.",
        )
    ]
    cut = Server(answer=lambda *_: "\n".join(map(json.dumps, lines)), faults=Faults(1.0, kinds=("length",)))
    with running(cut) as server:
        method = METHODS["alpaca"]
        perform(method, real_seeds, f"m@{server.url}", "out.jsonl", method.options_type(), n=3)
    assert [row["response"] for row in rows("out.jsonl")] == [line["output"] for line in lines[:2]]
    assert {row["reason"] for row in rows("out.rejected.jsonl")} == {"truncated", "similar"}


@pytest.mark.parametrize("kills", [2, pytest.param(15, marks=pytest.mark.slow)])
def test_kills_change_no_row(real_seeds: Path, kills: int) -> None:
    chance = Random(kills)
    with running(Server(answer=play, latency=0.01)) as server:
        undisturbed = command(real_seeds, server, Path("whole/out.jsonl"))
        _, errors = undisturbed.communicate(timeout=300)
        assert undisturbed.returncode == 0, errors
    with running(Server(answer=play, latency=0.01, faults=FAULTS)) as server:
        for _ in range(kills):
            killed = command(real_seeds, server, Path("killed/out.jsonl"))
            try:
                killed.wait(chance.uniform(0.5, 2.5))
            except subprocess.TimeoutExpired:
                killed.kill()
            killed.communicate()
        last = command(real_seeds, server, Path("killed/out.jsonl"))
        _, errors = last.communicate(timeout=300)
        assert last.returncode == 0, errors
    assert Path("killed/out.jsonl").read_bytes() == Path("whole/out.jsonl").read_bytes()
