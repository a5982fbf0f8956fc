"""How well 64 slots are used when some answers take ten times as long as others.

    python -m benchmarks.stragglers

Latency is log-normal, median 400 ms, sigma 0.7, and a function of the request, so what a perfect scheduler needs is
computed from the server's log and not measured: greedy list scheduling over the same latencies in the same order for
single calls; the sum of all latencies over 64 for chains of `evolve`, whose calls depend on each other. Time runs from
the first request's arrival to the last reply. The 2,000 chains run at a quarter of the latencies, to end within a
minute; the engine's own time then weighs four times as much, so their number is a lower bound.
"""

from heapq import heapify, heapreplace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from benchmarks.common import Ask, Line, main, run, write_rows
from benchmarks.remote import serving
from datagen.commands.table import load_methods
from datagen.engine.method import Method
from tests.server import evolve_answer, lognormal

METHODS = load_methods("evolve")

MEDIAN, SIGMA, SLOTS = 0.4, 0.7, 64


class Timing(NamedTuple):
    """One run: seconds, and the latencies of its requests in the order of their arrival."""

    seconds: float
    waits: list[float]


def time_run(method: type[Method], records: int, scale: float) -> Timing:
    """Run a method over `records` records against a server with stragglers."""
    wait = lognormal(MEDIAN * scale, SIGMA)
    with serving(evolve_answer, (MEDIAN * scale, SIGMA)) as server, TemporaryDirectory() as folder:
        result = run(method, write_rows(Path(folder), records), server.model, concurrency=str(SLOTS))
        log = sorted(server.record().log, key=lambda entry: entry.at)
    assert result.outcome.status == "finished" and result.outcome.run["requests"] == len(log)
    waits = [wait(entry.key) for entry in log]
    ends = [entry.at + seconds for entry, seconds in zip(log, waits, strict=True)]
    return Timing(max(ends) - log[0].at, waits)


def greedy(waits: list[float]) -> float:
    """Return the seconds of list scheduling: each call in turn goes to the slot that is free first."""
    slots = [0.0] * SLOTS
    heapify(slots)
    for wait in waits:
        heapreplace(slots, slots[0] + wait)
    return max(slots)


def measure(quick: bool) -> list[Line]:
    divisor = 5 if quick else 1
    single = time_run(Ask, 1_000 // divisor, 1.0)
    share, bound = greedy(single.waits) / single.seconds, sum(single.waits) / SLOTS / single.seconds
    measured = f"{share:.3f} ({bound:.2f} of the sum / {SLOTS}; {single.seconds:.1f} s)"
    lines = [Line(f"{len(single.waits):,} single calls, against list scheduling", "≥ 0.97", measured, "-")]
    for chains, scale, target in ((200, 1.0, "≥ 0.85"), (2_000, 0.25, "≥ 0.95")):
        chain = time_run(METHODS["general"], chains // divisor, scale)
        share = sum(chain.waits) / SLOTS / chain.seconds
        name = f"{chains // divisor:,} chains of evolve, against the sum / {SLOTS}"
        measured = f"{share:.3f} ({len(chain.waits):,} calls, {chain.seconds:.1f} s)"
        lines.append(Line(name, target, measured, "the last chains' own length" if scale == 1 else "-"))
    return lines


if __name__ == "__main__":
    main(measure)
