"""kill -9 while training: the run resumes from a complete checkpoint, with the same curve and weights."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest

from tests.train.tasks import problems, write_preferences, write_sft

STEPS = 60
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def command(trainer: str, output: str) -> list[str]:
    data = {"dpo": "prefs.jsonl", "pretrain": "docs.txt", "reward": "prefs.jsonl"}.get(trainer, "sums.jsonl")
    model = ["--model", "base"] if trainer in ("dpo", "reward", "ppo") else []
    if trainer == "ppo":
        model += ["--reward", "verifier:answer", "--unscored", "drop", "--max-tokens", "8", "--adaptive-kl", "1"]
    options = [
        "--steps",
        str(STEPS),
        "--eval-every",
        "20",
        "--save-every",
        "10",
        "--log-every",
        "1",
        "--batch-size",
        "8",
    ]
    return [sys.executable, "-m", "datagen", "train", trainer, data, "-o", output, *model, *options]


def finish(trainer: str, output: str) -> str:
    ran = subprocess.run(command(trainer, output), env=ENV, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    return ran.stderr


def kill_at_step(trainer: str, output: str, step: int) -> None:
    """Kill a run once its metrics have reached a step."""
    run = subprocess.Popen(command(trainer, output), env=ENV, stderr=subprocess.DEVNULL)
    metrics = Path(output, "run", "metrics.jsonl")
    while run.poll() is None and not (metrics.exists() and len(metrics.read_bytes().splitlines()) > step):
        time.sleep(0.005)
    run.kill()
    run.wait()


def curve(output: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in Path(output, "run", "metrics.jsonl").read_text().splitlines()]


def write_data(trainer: str) -> None:
    write_sft(Path("sums.jsonl"), problems(0)[:400])
    write_preferences(Path("prefs.jsonl"), problems(0)[:400])
    Path("docs.txt").write_text("".join(f"Document {i} says that {p}\n" for i, (p, _) in enumerate(problems(0)[:300])))
    if trainer in ("dpo", "reward", "ppo"):
        finish("sft", "base")


def kill_and_compare(trainer: str, seed: int) -> None:
    write_data(trainer)
    finish(trainer, "whole")
    step = Random(f"{trainer} {seed}").randrange(12, STEPS - 2)
    kill_at_step(trainer, "killed", step)
    assert not Path("killed/run/report.json").exists(), "it ended before it was killed"
    assert "Going on from step" in finish(trainer, "killed")
    assert curve("killed") == curve("whole")
    assert Path("killed/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()
    reports = [json.loads(Path(name, "run", "report.json").read_text())["result"] for name in ("killed", "whole")]
    assert reports[0] == reports[1]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("trainer", ["sft", "dpo", "pretrain", "reward", "ppo"])
def test_a_killed_run_ends_as_an_undisturbed_one(trainer: str, seed: int) -> None:
    kill_and_compare(trainer, seed)
