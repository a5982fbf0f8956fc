"""Calls a second where every answer lies in the journal; the server is gone by then.

    python -m benchmarks.replay

The first run fills the journal, against a server that answers at once; the same command then runs again, three times,
each in a fresh process. Once with one call a record, once with `evolve`.
"""

from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.common import ASK, Line, in_fresh_process, main, run, write_rows
from benchmarks.remote import echo, serving
from datagen.generators.evolve import METHODS
from tests.server import Answer, evolve_answer

METHODS = {"ask": ASK, "evolve": METHODS["general"]}
ANSWERS: dict[str, Answer] = {"ask": echo, "evolve": evolve_answer}
TIMES = 3


def fill(method: str, rows: Path, model: str) -> int:
    """Run once; return the number of calls."""
    ran = run(METHODS[method], rows, model, concurrency="256")
    return int(ran.outcome.result["usage"]["calls"])


def again(method: str, rows: Path, model: str) -> float:
    """Run again and return the seconds; nothing may be sent."""
    ran = run(METHODS[method], rows, model, concurrency="256")
    assert ran.outcome.run["requests"] == 0 and ran.outcome.status == "finished"
    return ran.wall


def measure(quick: bool) -> list[Line]:
    less = 5 if quick else 1
    lines = []
    for method, records, target in (("ask", 20_000, "≥ 30,000, aim 50,000"), ("evolve", 1_000, "-")):
        with TemporaryDirectory() as folder:
            rows = write_rows(Path(folder), records // less)
            with serving(ANSWERS[method]) as server:
                calls = in_fresh_process(fill, method, rows, server.model)
            first = rows.with_name("out.jsonl").read_bytes()
            seconds = median(in_fresh_process(again, method, rows, server.model) for _ in range(TIMES))
            assert rows.with_name("out.jsonl").read_bytes() == first
        what = f"replay, calls/s: {method}, {calls:,} calls, no request sent"
        lines.append(Line(what, target, f"{calls / seconds:,.0f} ({1e6 * seconds / calls:.0f} µs a call)", "the loop"))
    return lines


if __name__ == "__main__":
    main(measure)
