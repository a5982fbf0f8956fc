"""What is lost of many calls to a server with faults that heal.

    python -m benchmarks.lost [--quick]

`respond` with 100,000 prompts, the shipped command; every fifth try goes wrong in one of eight ways (429 with a
Retry-After, 500, 503, reset, truncated, malformed, empty, hanging). Every prompt must have its own answer, once.
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from benchmarks.common import Line, main, write_rows
from benchmarks.rate import respond
from benchmarks.remote import echo, serving
from tests.server import ALL, Faults

ROWS = 100_000
MIXED = Faults(0.2, ALL, retry_after=0.2, hang_seconds=0.5)
"""The server hangs for a while and then closes the connection: it is the same to the client as a lost one."""


def lost(folder: Path, count: int) -> tuple[int, int]:
    """Return how many of the prompts have no right answer in the output, and how many rows are too many."""
    lines = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    answers = {row["prompt"]: row["response"] for row in lines}
    prompts = [json.loads(line)["prompt"] for line in (folder / "rows.jsonl").read_text().splitlines()]
    assert len(prompts) == count
    wrong = sum(answers.get(prompt) != echo("", [{"content": prompt}], 0, "") for prompt in prompts)
    return wrong, len(lines) - len(answers)


def measure(quick: bool, rows: int = 0) -> list[Line]:
    rows = rows or (ROWS // 20 if quick else ROWS)
    with serving(latency=0.01, faults=MIXED) as server, TemporaryDirectory() as name:
        folder = write_rows(Path(name), rows).parent
        began = perf_counter()
        respond(folder, server.model)
        seconds = perf_counter() - began
        wrong, double = lost(folder, rows)
        sent = len(server.record().log)
    measured = f"{wrong} lost, {double} twice, {sent:,} requests, {seconds:.0f} s"
    return [Line(f"{rows:,} prompts, 20 % mixed faults", "0 lost, 0 twice", measured, "the faults themselves")]


if __name__ == "__main__":
    main(measure)
