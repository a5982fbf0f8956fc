"""The recipe that stops evolving when a score on other rows falls, as in its page."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.jobs import evolve, rows, write_seeds

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_rounds_end_when_the_score_falls() -> None:
    evolve(write_seeds(40, "other.jsonl"), "sim", "dev.jsonl", rounds=1, style="code", seed=5)
    command = Path("bin/datagen")
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m datagen "$@"\n')
    command.chmod(0o755)
    here = {"PATH": f"{command.parent.resolve()}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "ROUNDS": "3"}
    ran = subprocess.run(
        ["sh", ROOT / "examples/rounds.sh", write_seeds(6), "dev.jsonl", "tiny", "--style", "code", "--model", "sim"],
        capture_output=True,
        text=True,
        env=os.environ | here,
    )
    assert ran.returncode == 0, ran.stderr
    *progress, best = ran.stdout.splitlines()
    losses = [float(line.rpartition(" ")[2]) for line in progress]
    assert [len(rows(f"round-{n}.jsonl")) for n in range(1, len(progress) + 1)] == [
        6 * n for n in range(1, len(progress) + 1)
    ]
    assert best == f"best: round-{losses.index(min(losses)) + 1}.jsonl"
    assert len(losses) == 3 or losses[-1] >= losses[-2]
