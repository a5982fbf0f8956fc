"""Calls per second when the journal holds every answer; the server has stopped by then.

    python -m benchmarks.replay

The first run fills the journal from a server that answers at once. Then `datagen respond` runs again, as a command of
its own (the seconds are those beyond a run with a few rows), `evolve` in a fresh process, and the calls alone, through
all layers.
"""

import asyncio
import json
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

from benchmarks.common import Line, in_fresh_process, main, respond, run, write_rows
from benchmarks.remote import echo, serving
from datagen.commands.table import load_methods
from datagen.llm.model import Roles
from datagen.llm.spec import parse_spec
from datagen.llm.stack import StackOptions, build_stack
from datagen.records.record import Record, plain_prompt
from datagen.strategies.strategy import SAMPLING
from tests.server import Answer, evolve_answer

METHODS = {"respond": load_methods("respond")["direct"], "evolve": load_methods("evolve")["general"]}
ANSWERS: dict[str, Answer] = {"respond": echo, "evolve": evolve_answer}
TIMES, FEW = 3, 64


def fill_journal(method: str, rows: Path, model: str) -> int:
    """Fill the journal with one run; return the number of calls."""
    result = run(METHODS[method], rows, model, concurrency="256")
    return int(result.outcome.result["usage"]["calls"])


def replay_run(method: str, rows: Path, model: str) -> float:
    """Repeat the run and return its seconds; it must send nothing."""
    result = run(METHODS[method], rows, model, concurrency="256")
    assert result.outcome.run["requests"] == 0 and result.outcome.status == "finished"
    return result.wall


def replay_respond(rows: Path, model: str, calls: int) -> float:
    """Run `datagen respond` again, for all rows and for a few; return the seconds that all take beyond the few."""
    few, many = (respond(rows, model, "--overwrite", "--limit", str(limit)) for limit in (FEW, calls))
    return many.per_row(few, calls - FEW).wall * calls


def replay_stack(rows: Path, model: str) -> float:
    """Repeat every call through all layers, without records and files; return the seconds."""

    async def ask_all(prompts: list[str]) -> float:
        roles = {"teacher": [parse_spec(model)]}
        stack = build_stack(roles, StackOptions(rows.parent, None, None, 600.0))
        start = perf_counter()
        for prompt in prompts:
            await Roles(stack.models, Record("0", prompt), {}).chat("teacher", plain_prompt(prompt), **SAMPLING)
        seconds = perf_counter() - start
        assert stack.traffic.sent == 0
        await stack.close()
        return seconds

    return asyncio.run(ask_all([json.loads(line)["prompt"] for line in rows.open()]))


def measure(quick: bool) -> list[Line]:
    divisor = 5 if quick else 1
    lines = []
    for method, records in (("respond", 20_000), ("evolve", 1_000)):
        with TemporaryDirectory() as folder:
            rows = write_rows(Path(folder), records // divisor)
            with serving(ANSWERS[method]) as server:
                calls = in_fresh_process(fill_journal, method, rows, server.model)
            if method == "respond":
                seconds = median(in_fresh_process(replay_stack, rows, server.model) for _ in range(TIMES))
                name = f"replay, calls/s through the journal, {calls:,} calls"
                lines.append(speed_line(name, "≥ 30,000", calls, seconds, "SQLite and JSON"))
            first = rows.with_name("out.jsonl").read_bytes()
            if method == "respond":
                seconds = median(replay_respond(rows, server.model, calls) for _ in range(TIMES))
            else:
                seconds = median(in_fresh_process(replay_run, method, rows, server.model) for _ in range(TIMES))
            assert rows.with_name("out.jsonl").read_bytes() == first
        name = f"the same, whole runs of {method}: reading, folding and writing rows, {calls:,} calls"
        target = "≥ 15,000" if method == "respond" else "-"
        lines.append(speed_line(name, target, calls, seconds, "Python: no part of a row's way stands out"))
    return lines


def speed_line(name: str, target: str, calls: int, seconds: float, limited_by: str) -> Line:
    return Line(name, target, f"{calls / seconds:,.0f} ({1e6 * seconds / calls:.0f} µs a call)", limited_by)


if __name__ == "__main__":
    main(measure)
