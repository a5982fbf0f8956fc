"""The whole way in one recipe, killed twice: rows, models, measures, page are those of a run that was left alone."""

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from random import Random

import psutil
import pytest

from datagen.records.files import content_digest

FOLDER = "first-evening"
SMALL = {"rounds": 1, "k": 3, "sft_steps": 6, "reward_steps": 4, "ppo_steps": 2, "dpo_steps": 4, "max_tokens": 8}
MODELS = ("sft", "rm", "ppo", "dpo")


def start(place: str) -> "subprocess.Popen[str]":
    """Start the recipe, with small settings, in a folder of its own."""
    Path(place).mkdir(exist_ok=True)
    changes = [word for name, value in SMALL.items() for word in ("--set", f"{name}={value}")]
    command = [sys.executable, "-m", "datagen", "run", FOLDER, "-q", *changes]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=place, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def finish(run: "subprocess.Popen[str]") -> str:
    """Wait for the recipe to end; return the table that it prints."""
    table, messages = run.communicate(timeout=1800)
    assert run.returncode == 0, messages
    return table


def kill(run: "subprocess.Popen[str]") -> None:
    """Kill the recipe and all that it has started, at once."""
    processes = [psutil.Process(run.pid), *psutil.Process(run.pid).children(recursive=True)]
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    run.communicate()
    psutil.wait_procs(processes[1:], timeout=10)


def left(place: str) -> dict[str, object]:
    """Return what a run has left: its rows, the accounts of them, its models, its measurements and its page."""
    folder = Path(place, FOLDER)
    files = [*folder.glob("*.jsonl"), *folder.glob("eval-*.json"), folder / "report.html"]
    parts: dict[str, object] = {path.name: path.read_bytes() for path in files}
    parts |= {path.name: json.loads(path.read_bytes())["result"] for path in folder.glob("*.meta.json")}
    reports = {name: json.loads((folder / name / "run/report.json").read_bytes()) for name in MODELS}
    parts |= {f"{name} report": report["result"] for name, report in reports.items()}
    return parts | {name: content_digest(folder / name / "model.safetensors") for name in MODELS}


@pytest.mark.slow
def test_killed_twice_the_whole_way_ends_with_the_same_page() -> None:
    began = time.monotonic()
    whole = finish(start("whole"))
    seconds, chance = time.monotonic() - began, Random("first evening")
    for _ in range(2):
        run = start("killed")
        time.sleep(seconds * chance.uniform(0.05, 0.5))
        assert run.poll() is None
        kill(run)
    assert finish(start("killed")) == whole
    assert left("killed") == left("whole")
    page = Path("whole", FOLDER, "report.html").read_text()
    assert all(name in page for name in ("evolved.jsonl", "ranked.jsonl", *MODELS, "eval-ppo"))
