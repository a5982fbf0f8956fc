"""`datagen review` ends at SIGTERM and at Ctrl-C, also as a job in the background; its votes are kept."""

import fcntl
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

from tests.datagen.test_review import Served, samples, votes, write

SCRIPT = "{command} 2> log & echo $!; wait $!; echo $?"
"""A shell without job control lets a command in the background ignore Ctrl-C."""
REVIEW = f"{sys.executable} -m datagen review s.jsonl --by kim"


def wait_for_link(log: Path) -> None:
    """Wait until the server listens."""
    for _ in range(600):
        if log.exists() and "?token=" in log.read_text():
            return
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def test_a_review_in_the_background_of_a_script_ignores_ctrl_c_and_ends_at_sigterm() -> None:
    write(samples(2))
    command = ["sh", "-c", SCRIPT.format(command=REVIEW)]
    shell = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert shell.stdout
    number = int(shell.stdout.readline())
    wait_for_link(Path("log"))
    os.kill(number, signal.SIGINT)
    time.sleep(0.5)
    os.kill(number, 0)  # it runs
    os.kill(number, signal.SIGTERM)
    assert shell.communicate(timeout=300)[0] == "0\n"
    assert "Traceback" not in Path("log").read_text()


def test_ctrl_c_in_a_terminal_ends_a_review() -> None:
    write(samples(2))
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        REVIEW.split(), stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(theirs)
    output, is_typed = b"", False
    with suppress(OSError):  # which is how a terminal ends
        while part := os.read(ours, 1 << 16):
            output += part
            if b"Ctrl-C to end" in output and not is_typed:
                is_typed = os.write(ours, b"\x03") > 0
    os.close(ours)
    assert process.wait(20) == 0
    assert b"Traceback" not in output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_keeps_the_votes(number: signal.Signals) -> None:
    write(samples(2))
    served = Served()
    served.vote(served.page(), "tie")
    assert "Traceback" not in served.stop(number)
    assert served.process.returncode == 0
    assert len(votes()) == 1
