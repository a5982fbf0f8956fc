"""A stop while a run ends, between model, report and checkpoints: the same command ends it, to the same bytes."""

import os
import signal
import sys
from pathlib import Path
from shutil import copytree, rmtree

import pytest

from datagen.__main__ import main
from tests.every_command import STEPS, output_of
from tests.forked import run_forked
from tests.train.tasks import problems, write_sft

pytestmark = pytest.mark.slow
COMMAND = f"train sft sums.jsonl --model tiny {STEPS}"
CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
STOPS = 6
"""Moments that are tried, evenly over all changes of files."""


def run_and_stop(output: str, nth: int, number: int) -> None:
    """Train; from the folder of the finished model on, send this process a signal at the nth change of a file."""
    seen = -1

    def look(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES
        begins = event == "os.mkdir" and str(arguments[0]).endswith("/run/saving")
        if begins or (seen >= 0 and (writes or event in CHANGES)):
            seen += 1
            if number:
                if seen == nth:
                    os.kill(os.getpid(), number)
            else:
                os.truncate("changes", seen + 1)  # its size is their number

    sys.addaudithook(look)
    sys.argv = ["datagen", *f"{COMMAND} -o {output}".split()]
    main()


def run(output: str, nth: int = 0, number: int = 0) -> int | None:
    """Run `run_and_stop` in a process of its own; return its exit code."""
    process = run_forked(run_and_stop, output, nth, number)
    process.join()
    return process.exitcode


def test_a_run_stopped_while_it_ends_is_ended_by_the_same_command() -> None:
    write_sft(Path("sums.jsonl"), problems(0)[:200])
    Path("changes").touch()
    assert run("whole") in (0, 3)
    changes = Path("changes").stat().st_size
    assert run("out", 0, signal.SIGKILL) == -signal.SIGKILL
    Path("out").rename("trained")
    for stop in range(STOPS):
        nth, number = changes * stop // STOPS, (signal.SIGTERM, signal.SIGKILL)[stop % 2]
        copytree("trained", "out")
        assert run("out", nth, number) in (130, -number), f"change {nth} of {changes}"
        assert run("out") in (0, 3)
        assert output_of("sft", "out") == output_of("sft", "whole")
        assert not Path("out/checkpoints").exists() and not Path("out/run/saving").exists()
        rmtree("out")
