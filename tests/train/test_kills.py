"""kill -9 while training: the run resumes from a complete checkpoint, with the same curve and weights."""

import time
from pathlib import Path
from random import Random
from shutil import copytree
from subprocess import TimeoutExpired

import pytest

from tests.every_command import TRAINERS, output_of
from tests.forked import Forked

pytestmark = pytest.mark.slow
COMMANDS = [*TRAINERS.values(), *(f"{TRAINERS[name]} --lora" for name in ("reward", "classify", "ppo"))]
KILLS = 3
"""Of each run, at any moment; and one more, at a step from which it goes on."""
KILL_STEPS = range(3, 10)
"""After the first checkpoint, and long enough before the end."""


def finish(line: str) -> str:
    """Run a trainer to its end; return what it writes to standard error."""
    run = Forked(line)
    _, stderr = run.communicate()
    assert run.returncode in (0, 3), stderr  # 3: so few steps need not make a better model
    return stderr


def kill_at_step(line: str, output: str, step: int) -> None:
    """Kill a run once its metrics have reached a step."""
    run = Forked(line)
    metrics = Path(output, "run", "metrics.jsonl")
    while run.poll() is None and not (metrics.exists() and f'"step": {step}' in metrics.read_text()):
        time.sleep(0.002)
    run.kill()
    run.communicate()
    assert not Path(output, "run/report.json").exists(), "it ended before it was killed"


def kill_at(line: str, seconds: float) -> None:
    """Kill a run after some seconds."""
    run = Forked(line)
    try:
        run.wait(seconds)
    except TimeoutExpired:
        run.kill()
    run.communicate()


@pytest.mark.parametrize("command", COMMANDS, ids=lambda line: line.partition(" ")[2])
def test_each_trainer_killed_at_any_moment_ends_as_an_undisturbed_one(command: str, inputs: Path, models: Path) -> None:
    for folder in (inputs, models):
        copytree(folder, ".", dirs_exist_ok=True)
    chance, killed = Random(command), f"{command} -o killed"
    began = time.monotonic()
    finish(f"{command} -o whole")
    seconds = time.monotonic() - began
    kill_at_step(killed, "killed", chance.choice(KILL_STEPS))
    copytree("killed", "at step")
    for _ in range(KILLS):
        kill_at(killed, chance.uniform(0.1, seconds))
    finish(killed)
    assert "Going on from step" in finish(f"{command} -o 'at step'")
    for output in ("killed", "at step"):
        assert output_of("train", output) == output_of("train", "whole")
