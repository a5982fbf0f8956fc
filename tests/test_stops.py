"""A signal at any moment, imports included: one line, the exit code that is documented, and nothing is lost."""

import signal
from itertools import cycle, islice
from pathlib import Path
from random import Random
from shutil import copytree
from subprocess import Popen, TimeoutExpired

import pytest

from tests.every_command import (
    DATAGEN,
    TOOLS,
    TRAINERS,
    finish,
    output_of,
    start,
    wait_until_it_listens,
)
from tests.forked import Forked

pytestmark = pytest.mark.slow
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STOPS = 3
"""How often each command without these libraries is stopped, by one of the signals in turn."""
LOADING = 6.0
"""Seconds for which `datagen train` loads its libraries. It is stopped once within them, and once at work."""
WITHOUT_OUTPUT = ("eval", "check", "chat")
COMMANDS = (
    [(name, line, "datagen") for name, line in DATAGEN.items()]
    + [(name, line, "trainer") for name, line in TRAINERS.items()]
    + [(name, line, "tool") for name, line in TOOLS.items()]
)


def disturb(process: "Popen[str] | Forked", number: signal.Signals, delay: float) -> None:
    """Send a signal to a command after a delay; check how it ends."""
    wait_until_it_listens(process)
    try:
        process.wait(delay)
    except TimeoutExpired:
        process.send_signal(number)
    _, stderr = process.communicate(timeout=300)
    assert "Traceback" not in stderr and "Exception ignored" not in stderr, stderr
    assert process.returncode in (0, 3, 130, -number), f"{process.returncode}\n{stderr}"
    if process.returncode == 130:
        assert "Interrupted" in stderr
    assert not list(Path().rglob("datagen-error-*"))


@pytest.mark.parametrize(("name", "line", "kind"), COMMANDS, ids=[name for name, _, _ in COMMANDS])
def test_a_signal_at_any_moment_ends_a_command_in_one_line_and_loses_nothing(
    name: str, line: str, kind: str, inputs: Path, models: Path
) -> None:
    for folder in (inputs, *([] if kind == "datagen" else [models])):
        copytree(folder, ".", dirs_exist_ok=True)
    chance, has_output = Random(name), name not in WITHOUT_OUTPUT
    Path("stopped").mkdir()
    seconds = finish(f"{line} -o whole.jsonl" if has_output else line)
    stopped = f"{line} -o stopped/out.jsonl" if has_output else line
    signals = cycle(chance.sample(SIGNALS, len(SIGNALS)))
    if kind == "datagen":
        for number in islice(signals, STOPS):
            disturb(start(stopped), number, chance.uniform(0, seconds))
    else:
        disturb(start(stopped), next(signals), chance.uniform(0, LOADING))
        disturb(Forked(stopped), next(signals), chance.uniform(0, seconds))
    assert not list(Path("stopped").glob(".*.part"))
    if has_output:
        finish(stopped)
        assert output_of(name, "stopped/out.jsonl") == output_of(name, "whole.jsonl")
