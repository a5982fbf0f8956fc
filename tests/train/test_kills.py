"""kill -9 while training: the run resumes from a complete checkpoint, with the same curve and weights."""

import json
import os
import shlex
import sys
import time
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random
from shutil import copytree

import pytest

from tests.every_command import TRAINERS, output_of, write_training_inputs
from tests.train.tasks import problems, write_preferences, write_sft

STEPS = 40


def command(trainer: str, output: str) -> str:
    data = {"dpo": "prefs.jsonl", "pretrain": "docs.txt", "reward": "prefs.jsonl"}.get(trainer, "sums.jsonl")
    model = " --model base" if trainer in ("dpo", "reward", "classify", "ppo") else ""
    if trainer == "ppo":
        model += " --reward verifier:answer --unscored drop --max-tokens 8 --adaptive-kl 1"
    options = f"--steps {STEPS} --eval-every 20 --save-every 10 --log-every 1 --batch-size 8"
    return f"train {trainer} {data} -o {output}{model} {options}"


def run_trainer(arguments: str, stderr: str) -> None:
    """Run a trainer in a process that has its libraries already."""
    from datagen.__main__ import main

    with open(stderr, "w") as file:
        os.dup2(file.fileno(), 2)
    sys.argv = ["tests", *shlex.split(arguments)]
    main()


def start(arguments: str, stderr: str = os.devnull) -> BaseProcess:
    process = get_context("forkserver").Process(target=run_trainer, args=(arguments, stderr))
    process.start()
    return process


def finish(arguments: str) -> str:
    """Run a trainer to its end; return what it writes to standard error."""
    run = start(arguments, "stderr.txt")
    run.join()
    stderr = Path("stderr.txt").read_text()
    assert run.exitcode in (0, 3), stderr  # 3: so few steps need not make a better model
    return stderr


def kill_at_step(trainer: str, output: str, step: int) -> None:
    """Kill a run once its metrics have reached a step."""
    run = start(command(trainer, output))
    metrics = Path(output, "run", "metrics.jsonl")
    while run.is_alive() and not (metrics.exists() and len(metrics.read_bytes().splitlines()) > step):
        time.sleep(0.005)
    run.kill()
    run.join()


def curve(output: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in Path(output, "run", "metrics.jsonl").read_text().splitlines()]


def write_data(trainer: str) -> None:
    write_sft(Path("sums.jsonl"), problems(0)[:400])
    write_preferences(Path("prefs.jsonl"), problems(0)[:400])
    Path("docs.txt").write_text("".join(f"Document {i} says that {p}\n" for i, (p, _) in enumerate(problems(0)[:300])))
    if trainer in ("dpo", "reward", "classify", "ppo"):
        finish(command("sft", "base"))


def kill_and_compare(trainer: str) -> None:
    write_data(trainer)
    finish(command(trainer, "whole"))
    step = Random(trainer).randrange(12, STEPS - 2)
    kill_at_step(trainer, "killed", step)
    assert not Path("killed/run/report.json").exists(), "it ended before it was killed"
    assert "Going on from step" in finish(command(trainer, "killed"))
    assert curve("killed") == curve("whole")
    assert Path("killed/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()
    reports = [json.loads(Path(name, "run", "report.json").read_text())["result"] for name in ("killed", "whole")]
    assert reports[0] == reports[1]


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["sft", "dpo", "pretrain", "reward", "classify", "ppo"])
@pytest.mark.usefixtures("loaded_libraries")
def test_a_killed_run_ends_as_an_undisturbed_one(trainer: str) -> None:
    kill_and_compare(trainer)


WITH_ADAPTERS = [f"{TRAINERS[name]} --lora" for name in ("reward", "classify", "ppo")]
KILLS = 3
"""Of each run."""


@pytest.mark.slow
@pytest.mark.parametrize("command", [*TRAINERS.values(), *WITH_ADAPTERS], ids=lambda line: line.partition(" ")[2])
@pytest.mark.usefixtures("loaded_libraries")
def test_each_trainer_killed_at_any_moment_ends_as_an_undisturbed_one(command: str, models: Path) -> None:
    write_training_inputs()
    for name in ("base", "teacher"):
        copytree(models / name, name)
    chance = Random(command)
    began = time.monotonic()
    finish(f"{command} -o whole")
    seconds = time.monotonic() - began
    for _ in range(KILLS):
        run = start(f"{command} -o killed")
        run.join(chance.uniform(0.1, seconds))
        run.kill()
        run.join()
    finish(f"{command} -o killed")
    assert output_of("train", "killed") == output_of("train", "whole")
