"""The recipe that stops evolving when a score on other rows falls, as in its page."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.forked import program
from tests.jobs import evolve, rows, write_seeds

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_rounds_end_when_the_score_falls() -> None:
    evolve(write_seeds(40, "other.jsonl"), "sim", "dev.jsonl", rounds=1, style="code", seed=5)
    options = ("--style", "code", "--model", "sim")
    recipe = ["sh", str(ROOT / "examples/rounds.sh"), str(write_seeds(6)), "dev.jsonl", "tiny", *options]
    with program(Path()):
        settings = os.environ | {"PATH": f"{Path().resolve()}:{os.environ['PATH']}", "ROUNDS": "3"}
        ran = subprocess.run(recipe, capture_output=True, text=True, env=settings)
    assert ran.returncode == 0, ran.stderr
    *progress, best = ran.stdout.splitlines()
    losses = [float(line.rpartition(" ")[2]) for line in progress]
    assert [len(rows(f"round-{n}.jsonl")) for n in range(1, len(progress) + 1)] == [
        6 * n for n in range(1, len(progress) + 1)
    ]
    assert best == f"best: round-{losses.index(min(losses)) + 1}.jsonl"
    assert len(losses) == 3 or losses[-1] >= losses[-2]
