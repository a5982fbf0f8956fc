"""The live lines: what they hold at each width, how they are drawn in place, and the estimates in them."""

import asyncio
import io
import os
import pty
import re
import subprocess
import sys
import termios
from pathlib import Path
from threading import Thread

import pytest
from rich.console import Console

from datagen.commands.live import LiveLines, Progress, clock, draw_bar, flow, short
from datagen.engine.job import Job, open_job, run_job
from datagen.engine.options import RunOptions
from datagen.engine.scheduler import Engine
from tests.jobs import STRATEGIES, STYLES, Quiet, write_seeds
from tests.server import Server, lognormal, running

FACTS = (
    r"\d+ of about \d+ answers", r"about \d+:\d\d left", r"kept \d+, rejected \d+, failed \d+", r"[\d.]+ tokens/s",
    r"[\d.]+ requests/s", r"in flight \d+ of \d+", r"replayed \d+",
)  # fmt: skip
ERASE = re.compile(r"\r(?:\x1b\[\d+A)?\x1b\[J")


def frames(width: int, *arguments: str) -> list[list[str]]:
    """Run `datagen` on a terminal of this width; return the live lines each time they were drawn."""
    primary, secondary = pty.openpty()
    termios.tcsetwinsize(secondary, (24, width))
    clean = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")} | {"TERM": "xterm"}
    process = subprocess.Popen(
        [sys.executable, "-m", "datagen", *arguments], stdin=secondary, stdout=secondary, stderr=secondary, env=clean
    )
    os.close(secondary)
    parts: list[bytes] = []
    reader = Thread(target=read_all, args=(primary, parts))
    reader.start()
    process.wait(60)
    reader.join(10)
    text = b"".join(parts).decode()
    return [frame.replace("\r\n", "\n").split("\n") for frame in ERASE.split(text)[:-1]]


def read_all(descriptor: int, parts: list[bytes]) -> None:
    """Read until the other side is closed."""
    try:
        while part := os.read(descriptor, 65536):
            parts.append(part)
    except OSError:
        os.close(descriptor)


@pytest.mark.parametrize("width", [120, 80, 60])
def test_every_fact_is_whole_at_every_width(width: int) -> None:
    seeds = write_seeds(12)
    with running(Server(latency=0.1)) as server:
        shown = frames(width, "evolve", str(seeds), "--rounds", "2", "--model", f"m@{server.url}", "--concurrency", "8")
    in_the_middle = [lines for lines in shown if "left" in lines[0]]
    assert len(in_the_middle) > 1
    for lines in in_the_middle:
        assert all(len(line) < width for line in lines) and len(lines) <= 4
        assert all(re.search(fact, " ".join(lines)) for fact in FACTS), lines


def test_what_does_not_fit_is_left_out_whole() -> None:
    fields = ["kept 1, rejected 2, failed 3", "12 tokens/s", "3 requests/s", "in flight 16 of 45"]
    assert flow(fields, 80, most=3) == [" · ".join(fields)]
    assert flow(fields, 45, most=3) == [
        "kept 1, rejected 2, failed 3 · 12 tokens/s",
        "3 requests/s · in flight 16 of 45",
    ]
    assert flow(fields, 45, most=1) == ["kept 1, rejected 2, failed 3 · 12 tokens/s"]
    assert flow(fields, 20, most=2) == ["12 tokens/s", "3 requests/s"]


@pytest.mark.parametrize(("width", "up"), [(80, 1), (60, 2), (30, 4), (120, 1)])
def test_lines_that_a_narrower_terminal_wraps_are_erased_whole(width: int, up: int) -> None:
    file = io.StringIO()
    console = Console(file=file, width=80, force_terminal=True)
    live = LiveLines(console)
    live.draw(["a" * 70, "b" * 50])
    console.width = width
    file.truncate(0)
    live.draw(["next"])
    assert file.getvalue().lstrip("\0") == f"\r\x1b[{up}A\x1b[Jnext"
    file.truncate(0)
    live.clear()
    assert file.getvalue().lstrip("\0") == "\r\x1b[J"


def test_formats() -> None:
    assert [clock(5), clock(65), clock(3_725)] == ["0:05", "1:05", "1:02:05"]
    assert [short(0), short(0.25), short(12.4), short(1_234)] == ["0", "0.2", "12", "1,234"]
    assert draw_bar(0.5, 10, ascii_only=True) == "#####-----"
    assert draw_bar(1.5, 4, ascii_only=False) == "━━━━"


class Sampler(Quiet):
    """An observer that notes the progress every few milliseconds."""

    def __init__(self, records: int) -> None:
        super().__init__()
        self.records = records
        self.samples: list[tuple[int, float, int]] = []
        """Answers so far, answers expected, candidates written."""

    def begin(self, job: Job, engine: Engine) -> None:
        self.running = engine
        self.sample()

    def sample(self) -> None:
        engine = self.running
        expected = engine.expected_calls(self.records)
        assert expected is not None
        self.samples.append((engine.usage.calls, expected, engine.fold.funnel.candidates))
        asyncio.get_running_loop().call_later(0.01, self.sample)


class Lines(Quiet):
    """An observer that takes a plain line from time to time, less often than rates are measured."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def begin(self, job: Job, engine: Engine) -> None:
        self.progress = Progress(job, engine)
        self.take()

    def take(self) -> None:
        self.lines.append(self.progress.plain_line())
        asyncio.get_running_loop().call_later(0.2, self.take)


def test_plain_lines_hold_the_same_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datagen.commands.live.RATE_WINDOW", 0.05)
    method, observer = STYLES["general"], Lines()
    with running(Server(latency=0.03)) as server:
        run = RunOptions(output="x.jsonl", model=[f"m@{server.url}"], concurrency="4")
        with open_job(method, str(write_seeds(10)), method.options_type(), run, {}) as job:
            asyncio.run(run_job(job, observer))
    assert all(re.search(fact, observer.lines[2]) for fact in FACTS)
    assert re.search(r"[1-9]\d* tokens/s · [1-9]\d* requests/s", observer.lines[2])


@pytest.mark.parametrize(
    ("command", "n"), [("respond", None), ("evolve", None), ("evolve", 20)], ids=["respond -k 8", "evolve", "evolve -n"]
)
def test_progress_moves_with_answers_and_the_first_estimate_is_near(command: str, n: int | None) -> None:
    method, options = (STRATEGIES["direct"], {"k": 8}) if command == "respond" else (STYLES["general"], {"rounds": 3})
    seeds, sampler = write_seeds(20), Sampler(20)
    with running(Server(latency=lognormal(0.03, 0.5))) as server:
        run = RunOptions(output="x.jsonl", model=[f"m@{server.url}"], concurrency="8", n=n)
        with open_job(method, str(seeds), method.options_type(**options), run, {}) as job:
            outcome = asyncio.run(run_job(job, sampler))
    total = outcome.run["usage"]["calls"]
    begun = [sample for sample in sampler.samples if sample[0]]
    if command == "respond":
        assert any(answers >= 6 and written == 0 for answers, _, written in begun), "answers count before any candidate"
    assert all(total / 2 < expected < total * 2 for _, expected, _ in begun)
    assert Path("x.jsonl").exists()
