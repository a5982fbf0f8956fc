"""What a training run shows: the most important first at any width, phases that last, speed, nothing under -q."""

import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from datagen.commands.live import SEPARATOR
from datagen_train import classify, distill, dpo, grpo, ppo, reward, sft
from datagen_train.policy_options import DistillOptions, GrpoOptions, PpoOptions
from datagen_train.run import progress, terminal
from datagen_train.run.progress import Progress
from datagen_train.run.terminal import Terminal
from tests.train.runs import Notes, train
from tests.train.tasks import problems, write_preferences, write_sft

NUMBERS = {"loss": 1.234567, "rewards/accuracies": 0.75, "learning_rate": 2e-5, "tokens_per_second": 12345.6}
PARTS = {
    "loss 1.235", "rewards/accuracies 0.75", "lr 2e-05", "12,346 tokens/s", "memory 1.5 GB", "step 120 of 600",
    "dpo step 120 of 600", "0:42, about 2:48 left",
}  # fmt: skip


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Progress:
    """A run of DPO at step 120 of 600, after 42 seconds."""
    clock = iter([0.0, 0.0])
    monkeypatch.setattr(progress, "monotonic", lambda: next(clock, 42.0))
    monkeypatch.setattr(progress, "memory", lambda: 1.5e9)
    run = Progress("dpo", start=0.0)
    run.move(0, 600)
    run.enter("training")
    run.move(120, 600)
    run.numbers = NUMBERS
    return run


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120])
def test_the_live_lines_fit_and_hold_whole_parts_the_important_ones_first(running: Progress, width: int) -> None:
    lines = running.lines(width)
    assert max(map(len, lines)) <= width
    parts = [part for line in lines for part in re.sub("[━╌]+ ", "", line).split(SEPARATOR)]
    assert set(parts) <= PARTS
    assert parts[0] in ("dpo step 120 of 600", "step 120 of 600")
    if width >= 40:
        assert parts[1] == "0:42, about 2:48 left"
        assert parts[2] == "loss 1.235"
    if width >= 60:
        assert len(parts) == 7, "nothing is left out"


def test_a_phase_is_shown_with_how_far_it_is(running: Progress) -> None:
    running.enter("sampling")
    running.part = "3,456 tokens"
    assert running.lines(100)[0].startswith("dpo ━")
    assert "step 120 of 600, sampling (3,456 tokens)" in running.lines(100)[0]
    running.enter("updating")
    assert "step 120 of 600, updating · " in running.lines(100)[0], "the count belongs to its phase"


def test_before_the_first_step_the_phase_stands_alone() -> None:
    run = Progress("sft")
    run.enter("loading libraries")
    assert run.lines(60) == ["sft loading libraries · 0:00"]


def state(step: int, steps: int) -> Any:
    return SimpleNamespace(global_step=step, max_steps=steps)


@pytest.fixture
def stderr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """What was printed on standard error, which is no terminal; phases are named after a tenth of a second."""
    monkeypatch.setattr(terminal, "SAY_PHASE_AFTER", 0.1)
    monkeypatch.setattr(terminal, "REFRESH_EVERY", 0.02)
    return lambda: capsys.readouterr().err


def show_a_run(*, quiet: bool) -> None:
    shown = Terminal("sft", quiet=quiet)
    shown.begin()
    shown.phase("reading rows")
    shown.phase("loading the model")
    time.sleep(0.3)
    shown.step(state(0, 8))
    shown.phase("training")
    time.sleep(0.3)
    shown.show(state(2, 8), {"loss": 1.5, "learning_rate": 1e-4, "tokens_per_second": 7.25})
    shown.end()


def test_elsewhere_than_on_a_terminal_there_are_plain_lines_and_phases_that_last(stderr: Callable[[], str]) -> None:
    show_a_run(quiet=False)
    lines = stderr().splitlines()
    assert lines[0] == "loading the model · 0:00"
    assert re.fullmatch(r"step 2 of 8 · 0:00, about 0:00 left · loss 1\.5 · lr 0\.0001 · 7\.2 tokens/s", lines[1])
    assert len(lines) == 2, "a short phase, and training itself, have no line"


def test_quiet_shows_nothing(stderr: Callable[[], str]) -> None:
    show_a_run(quiet=True)
    assert stderr() == ""


TRAINERS: dict[str, tuple[Any, Any, str, set[str]]] = {
    "sft": (sft, None, "sums", {"answering held-out prompts"}),
    "dpo": (dpo, None, "prefs", {"computing log-probabilities of the reference"}),
    "distill": (
        distill,
        DistillOptions(teacher="teacher", max_tokens=4),
        "sums",
        {"loading the teacher", "sampling", "updating"},
    ),
    "reward": (reward, None, "prefs", set()),
    "classify": (classify, None, "sums", set()),
    "ppo": (
        ppo,
        PpoOptions(reward=["rewards.py:of_length"], max_tokens=4),
        "sums",
        {"sampling", "scoring", "updating"},
    ),
    "grpo": (
        grpo,
        GrpoOptions(reward=["rewards.py:of_length"], max_tokens=4),
        "sums",
        {"sampling", "scoring", "updating"},
    ),
}


@pytest.mark.parametrize("trainer", TRAINERS)
def test_every_trainer_says_what_it_does_and_how_fast(trainer: str, base: str, teacher: str) -> None:
    module, options, data, phases = TRAINERS[trainer]
    Path("teacher").symlink_to(teacher)
    write_sft(Path("sums.jsonl"), problems(0)[:30])
    write_preferences(Path("prefs.jsonl"), problems(1)[:30])
    Path("rewards.py").write_text("def of_length(completions, **_): return [float(len(c)) for c in completions]")
    notes, generate = Notes(), {"sft": {"generate": 2}}.get(trainer, {})
    train(
        module, f"{data}.jsonl", options, notes, model=base, output="out", steps=4, log_every=1, batch_size=8,
        accumulate=2, held_out=0.2, epochs=5.0, **generate,
    )  # fmt: skip
    expected = ["reading rows", "loading the model", "encoding", "checking", "measuring before the first step"]
    assert [phase for phase in notes.phases if phase in expected] == expected
    assert phases | {"training", "measuring", "saving"} <= set(notes.phases)
    logs = [line for line in notes.measurements if "learning_rate" in line]
    assert len(logs) == 4
    assert all(0 < line["tokens_per_second"] < 1e8 for line in logs)
    if trainer in ("sft", "dpo", "reward"):  # in the others one step is an iteration, which has phases of its own
        steps = [{"loss": line["loss"], "learning_rate": line["learning_rate"]} for line in logs]
        shown = [{"loss": line["loss"], "learning_rate": line["learning_rate"]} for line in notes.updates]
        assert shown == [pytest.approx(step, rel=1e-4) for step in steps], "each step is shown, from the first one on"
        assert all(0 < line["tokens_per_second"] < 1e8 for line in notes.updates)
    assert "tokens_per_second" not in Path("out/run/metrics.jsonl").read_text(), "it says nothing about the model"


SHOWN = """
import signal, sys, time, warnings
from datagen_train.run.terminal import Terminal
terminal = Terminal("sft", quiet=False)
terminal.begin()
terminal.phase("loading libraries")
time.sleep(0.8)
print("a line of a reward function")
warnings.warn("a warning of a library")
sys.stderr.write("half a ")
time.sleep(0.6)
sys.stderr.write("line\\n")
terminal.say("a message")
time.sleep(30 if len(sys.argv) > 1 else 0.6)
terminal.end()
"""


def on_a_terminal(*arguments: str, end: bool = False) -> tuple[int, str]:
    """Run the script above in a terminal, and with `end` terminate it after its message; return code and output."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "60"}
    ran = subprocess.Popen(
        [sys.executable, "-c", SHOWN, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=env
    )
    os.close(theirs)
    output = b""
    with suppress(OSError):
        while part := os.read(ours, 1 << 16):
            output += part
            if end and b"a message" in output:
                ran.terminate()
                end = False
    os.close(ours)
    return ran.wait(timeout=10), output.decode()


def rows_on_screen(output: str) -> list[str]:
    """Return what stays on the screen: \\r and \\x1b[J erase the line that is being written."""
    rows = [""]
    for piece in re.split(r"(\r\x1b\[J|\r\n)", output):
        if piece == "\r\x1b[J":
            rows[-1] = ""
        elif piece == "\r\n":
            rows.append("")
        else:
            rows[-1] += piece
    return [row for row in rows if row]


def test_the_live_lines_stay_below_everything_else_and_leave_nothing() -> None:
    code, output = on_a_terminal()
    assert code == 0
    assert output.startswith("sft loading libraries · 0:00"), "from the first second"
    assert "\x1b[?25l" not in output, "the cursor is never hidden, so that no kill can leave it hidden"
    rows = rows_on_screen(output)
    assert rows[0] == "a line of a reward function"
    assert "a warning of a library" in rows[1]
    assert rows[-2:] == ["half a line", "a message"]


def test_a_run_that_is_terminated_leaves_no_live_line() -> None:
    code, output = on_a_terminal("long", end=True)
    assert code == 130
    assert rows_on_screen(output)[-2:] == ["a message", "Interrupted."]
