"""Two processes train one model: one prints, and a stop ends both. The terminal is left as it was."""

import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.train.tasks import problems, write_sft

ENV = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
pytestmark = pytest.mark.slow


def command(*options: str) -> list[str]:
    write_sft(Path("sums.jsonl"), problems(0)[:200])
    arguments = [
        sys.executable,
        "-m",
        "datagen.commands.main",
        "train",
        "sft",
        "sums.jsonl",
        "-o",
        "out",
        "--nproc",
        "2",
        *options,
    ]
    return [*arguments, "--batch-size", "8"]


def in_a_terminal(arguments: list[str], until: bytes, typed: bytes) -> tuple[int, bytes]:
    """Run a command in a terminal and type something after `until` appears; return (exit code, output)."""
    ours, theirs = pty.openpty()
    running = subprocess.Popen(
        arguments, env={**ENV, "TERM": "xterm"}, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(theirs)
    output = b""
    with suppress(OSError):  # which is how a terminal ends
        while part := os.read(ours, 1 << 16):
            output += part
            if until in output and typed:
                os.write(ours, typed)
                typed = b""
    os.close(ours)
    return running.wait(), output


def run(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*options), env=ENV, capture_output=True, text=True, timeout=300)


def test_two_processes_train_and_one_speaks() -> None:
    ran = run("--steps", "6", "--json")
    assert ran.returncode == 0, ran.stderr
    report = json.loads(ran.stdout)
    assert report["run"]["processes"] == 2
    assert report["result"]["end"]["eval_loss"] < report["result"]["start"]["eval_loss"]
    assert ran.stderr.count("Model: out") == 1
    assert ran.stderr.count("check end:") == 1
    assert "[transformers]" not in ran.stderr
    saved = json.loads(Path("out/run/report.json").read_text())
    assert saved == report


def test_what_is_wrong_is_reported_once_with_its_exit_code() -> None:
    ran = run("--max-length", "24")
    assert ran.returncode == 2
    assert len([line for line in ran.stderr.splitlines() if line.startswith("error: ")]) == 1
    assert "Traceback" not in ran.stderr


def test_ctrl_c_stops_both_at_one_step_and_the_run_goes_on() -> None:
    options = ("--steps", "200", "--eval-every", "100", "--log-every", "1")
    running = subprocess.Popen(command(*options), env=ENV, stderr=subprocess.PIPE, text=True, start_new_session=True)
    metrics = Path("out/run/metrics.jsonl")
    while running.poll() is None and not (metrics.exists() and len(metrics.read_bytes().splitlines()) > 5):
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGINT)
    _, stderr = running.communicate(timeout=120)
    assert running.returncode == 130, stderr
    assert stderr.count("error: Interrupted at step") == 1
    ran = run(*options)
    assert ran.returncode == 0, ran.stderr
    assert "Going on from step" in ran.stderr


def test_ctrl_c_in_a_terminal_gives_the_cursor_back_and_says_what_to_do() -> None:
    write_sft(Path("sums.jsonl"), problems(0)[:200])
    arguments = [sys.executable, "-m", "datagen", "train", "sft", "sums.jsonl", "-o", "out", "--steps", "5000"]
    code, output = in_a_terminal([*arguments, "--eval-every", "1000", "--batch-size", "4"], b"step 20 of", b"\x03")
    assert code == 130
    assert output.rindex(b"\x1b[?25h") > output.rindex(b"\x1b[?25l"), "the cursor is hidden while the bar lives"
    assert b"the same command goes on from there" in output[output.rindex(b"\x1b[?25h") :]
