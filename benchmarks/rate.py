"""How close `respond` comes to the rate that a server takes, and how often it is refused.

    python -m benchmarks.rate

Each server takes so many requests a second, or tokens a minute, and names its limit in another way: headers with what
is left, a Retry-After alone, words in the body alone, nothing at all. Each run is the shipped command. The first
WARM_UP seconds are not counted, nor is the end of the run, where fewer requests are left than the server takes.
"""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from benchmarks.common import Line, main, write_rows
from benchmarks.remote import FILLER, serving
from tests.meter import Meter, Pot
from tests.server import LogEntry

ROOT = Path(__file__).resolve().parent.parent
LATENCY, WARM_UP = (0.4, 0.3), 6.0
"""Median and sigma of the seconds to an answer; seconds."""
TOKENS = 2 * 13 + len(FILLER.split())
"""Of a request and its answer, as the server counts them: a word is one, and the answer repeats the prompt."""


class Case(NamedTuple):
    """A server."""

    name: str
    meter: Meter
    rate: float
    """Requests a second that it takes."""


def a_second(spelling: str, rate: int) -> Case:
    """A bucket of one second, refilled steadily."""
    return Case(f"{rate} requests/s, {spelling}", Meter(spelling, Pot(rate, 1.0)), rate)


def a_window(spelling: str, rate: int, seconds: float = 10.0) -> Case:
    """A window that is refilled at its end."""
    pot = Pot(rate * seconds, seconds, is_steady=False)
    return Case(f"{rate * seconds:.0f} requests in windows of {seconds:.0f} s, {spelling}", Meter(spelling, pot), rate)


def tokens(spelling: str, rate: int, seconds: float = 10.0) -> Case:
    """A bucket of tokens."""
    pot = Pot(rate * TOKENS * seconds, seconds)
    name = f"{rate * TOKENS * 60:,} tokens/min, {spelling}"
    return Case(name, Meter(spelling, Pot(1000, 1.0), pot), rate)


CASES = (
    a_second("openai", 20),
    a_second("openai", 100),
    a_window("ietf", 20),
    a_window("older", 20),
    a_second("anthropic", 20),
    a_second("azure", 20),
    a_second("retry", 20),
    a_second("retry", 100),
    a_second("words", 20),
    a_second("none", 20),
    a_second("none", 100),
    tokens("openai", 20),
    tokens("retry", 20),
    tokens("none", 20),
)


def respond(folder: Path, model: str) -> None:
    """Run the command."""
    command = [sys.executable, "-m", "datagen", "respond", str(folder / "rows.jsonl"), "-q", "--model", model]
    ran = subprocess.run([*command, "-o", str(folder / "out.jsonl")], cwd=ROOT, env=os.environ, check=False)
    assert ran.returncode == 0, ran.returncode


def measure_case(case: Case, seconds: float) -> Line:
    """Run the command against a server for about so many seconds."""
    rows = int(case.rate * seconds)
    with serving(latency=LATENCY, meter=case.meter) as server, TemporaryDirectory() as folder:
        respond(write_rows(Path(folder), rows).parent, server.model)
        kept = len(Path(folder, "out.jsonl").read_text().splitlines())
        log = server.record().log
    assert kept == rows, (kept, rows)
    share, refused = steady_part(log, case.rate)
    measured = f"{share:.0%} of the rate, {refused:.1%} refused"
    return Line(case.name, "≥ 90 %, ≤ 5 %", measured, "")


def steady_part(log: list[LogEntry], rate: float) -> tuple[float, float]:
    """Return the requests taken as a share of the rate, and the share refused, between warm-up and end."""
    taken = [entry.at for entry in log if entry.outcome == "ok"]
    begin, end = log[0].at + WARM_UP, taken[-1] - 2.0
    between = [entry for entry in log if begin <= entry.at < end]
    good = sum(entry.outcome == "ok" for entry in between)
    return good / (rate * (end - begin)), 1 - good / len(between)


def measure(quick: bool) -> list[Line]:
    return [measure_case(case, 20 if quick else 40) for case in CASES]


if __name__ == "__main__":
    main(measure)
