"""Rows per second and CPU time per row of `datagen respond` with 256 requests in flight, against the usual client loop.

    python -m benchmarks.throughput

Both run as commands of their own, in turns: all of the command's work is in it, from reading the prompts to the rows,
the journal and the files. What starting takes is left out: the seconds are those beyond a run with a few prompts
(startup.py measures the start). The server does nothing, or waits 50 ms; its answers have about 1,500 characters.
Ratios are medians of the rounds; each compares two neighbours in time.
"""

from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.common import IN_FLIGHT, Line, Seconds, main, respond, time_process, write_rows
from benchmarks.remote import serving

ROUNDS, ROWS, FEW = 3, 4_000, 64


def ours(folder: Path, model: str, count: int) -> Seconds:
    """Measure the command; each number of rows has a folder, and so a journal, of its own."""
    place = folder / f"ours{count}"
    place.mkdir()
    return respond(write_rows(place, count), model)


def theirs(folder: Path, model: str, count: int) -> Seconds:
    """Measure the usual loop."""
    return time_process("-m", "benchmarks.usual_loop", write_rows(folder, count), model, folder / "loop.jsonl")


def compare(model: str, rows: int) -> tuple[Seconds, Seconds]:
    """Return what a row costs us and the usual loop."""
    with TemporaryDirectory() as name:
        sides = [[side(Path(name), model, count) for count in (FEW, FEW + rows)] for side in (ours, theirs)]
    our_seconds, their_seconds = (many.per_row(few, rows) for few, many in sides)
    return our_seconds, their_seconds


def measure(quick: bool) -> list[Line]:
    rows, rounds = (500, 1) if quick else (ROWS, ROUNDS)
    lines = []
    for wait, target in ((0.0, "≥ 4 ×, aim 5 ×"), (0.05, "≥ 3.5 ×, aim 4.5 ×")):
        with serving(latency=wait) as server:
            pairs = [compare(server.model, rows) for _ in range(rounds)]
        ratio = median(their.wall / our.wall for our, their in pairs)
        speeds = [1 / min(seconds.wall for seconds in side) for side in zip(*pairs, strict=True)]
        name = f"respond, rows/s against the usual loop, {1000 * wait:.0f} ms server, {IN_FLIGHT} in flight"
        measured = f"{ratio:.1f} × (at best {speeds[0]:,.0f} against {speeds[1]:,.0f} rows/s)"
        lines.append(Line(name, target, measured, "the HTTP client, and the machine it shares with the server"))
        ratio = median(our.cpu / their.cpu for our, their in pairs)
        costs = [1e6 * min(seconds.cpu for seconds in side) for side in zip(*pairs, strict=True)]
        measured = f"{ratio:.2f} × (at best {costs[0]:.0f} against {costs[1]:.0f} µs)"
        lines.append(Line("the same, CPU time per row", "≤ 0.3 ×", measured, "the HTTP client"))
    return lines


if __name__ == "__main__":
    main(measure)
