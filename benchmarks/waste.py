"""Calls that are paid for but not needed, and the cost of faults.

    python -m benchmarks.waste

`-n 100`: the calls that reached the server against the calls of the candidates that were counted. Faults: 500 prompts
at 50 in flight and a client timeout of 5 s, every fifth try goes wrong in one of nine ways (429 with a Retry-After of
one second, 500, 503, reset, truncated, malformed, empty, cut, hanging). Concurrency: the mean number of requests in
flight at a server that takes 50 at once, with and without 5 % of random 429s.
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.common import Ask, Line, main, run, write_rows
from benchmarks.remote import Remote, echo, serving
from datagen.commands.table import load_methods
from tests.server import ALL, Faults, evolve_answer

METHODS = load_methods("evolve")

SEEDS = (0, 1, 2, 3, 4)
MIXED = Faults(0.2, ALL, retry_after=1.0)
REFUSALS = Faults(0.05, ("429",), most_in_a_row=100)
LATENCY, ROOM = 0.2, 50


def surplus() -> Line:
    """Request 100 rows with 16 calls in flight, for several seeds."""
    paid = needed = 0
    for seed in SEEDS:
        with serving(evolve_answer, (0.02, 0.7)) as server, TemporaryDirectory() as folder:
            rows = write_rows(Path(folder), 200)
            result = run(METHODS["general"], rows, server.model, concurrency="16", n=100, seed=seed)
            assert result.outcome.result["funnel"]["kept"] == 100
            paid += len(server.record().log)
            needed += result.outcome.result["usage"]["calls"]
    return Line(
        "-n 100, 16 in flight: calls paid / calls needed", "≤ 1.3", f"{paid / needed:.2f} ({paid} / {needed})", "margin"
    )


def faults(rows: int) -> Line:
    """Count good rows, requests and retries before their Retry-After."""
    with serving(latency=0.05, faults=MIXED) as server, TemporaryDirectory() as folder:
        source = write_rows(Path(folder), rows)
        result = run(Ask, source, server.model, concurrency="50", timeout=5.0)
        rows_out = map(json.loads, source.with_name("out.jsonl").read_text().splitlines())
        good = sum(row["response"] == echo("", [{"content": row["prompt"]}], 0, "") for row in rows_out)
        record = server.record()
    measured = f"{good} good, {len(record.log)} requests, {record.early_retries()} early, {result.wall:.1f} s"
    target = f"{rows} good, ≤ {1.3 * rows:.0f} requests, 0 early"
    return Line(f"{rows} prompts, 20 % mixed faults", target, measured, "the faults themselves")


def mean_in_flight(server: Remote) -> float:
    """Return the mean number of requests in flight between the first and the last arrival."""
    log = server.record().log
    answered = sum(LATENCY for entry in log if entry.outcome == "ok")
    return answered / (log[-1].at + LATENCY - log[0].at)


def concurrency(rows: int) -> Line:
    """Measure the adapted concurrency at a server that takes 50 at once, without and with random 429s."""
    means = []
    for refusals in (Faults(), REFUSALS):
        with serving(latency=LATENCY, faults=refusals, limit=ROOM) as server, TemporaryDirectory() as folder:
            result = run(Ask, write_rows(Path(folder), rows), server.model)
            assert result.outcome.status == "finished"
            means.append(mean_in_flight(server))
    calm, refused = means
    measured = f"{refused / ROOM:.2f} ({refused:.1f} in flight; {calm:.1f} without)"
    return Line(
        f"5 % random 429s: share of {ROOM} kept in flight",
        "≥ 0.33",
        measured,
        "cuts of 10 %, and the retries at the end",
    )


def measure(quick: bool) -> list[Line]:
    divisor = 5 if quick else 1
    return [surplus(), faults(500 // divisor), concurrency(2_000 // divisor)]


if __name__ == "__main__":
    main(measure)
