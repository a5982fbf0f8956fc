"""Calls per second when the journal holds every answer; the server has stopped by then.

    python -m benchmarks.replay

The first run fills the journal from a server that answers at once. The same command then runs three more times, each in
a fresh process: with one call per record, with `evolve`, and with only the calls, through all layers.
"""

import asyncio
import json
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

from benchmarks.common import Ask, Line, in_fresh_process, main, run, write_rows
from benchmarks.remote import echo, serving
from datagen.commands.main import load_methods
from datagen.engine.method import Method
from datagen.llm.model import Roles
from datagen.llm.spec import parse_spec
from datagen.llm.stack import StackOptions, build_stack
from datagen.records.record import Record, plain_prompt
from tests.server import Answer, evolve_answer

METHODS: dict[str, type[Method]] = {"ask": Ask, "evolve": load_methods("evolve")["general"]}
ANSWERS: dict[str, Answer] = {"ask": echo, "evolve": evolve_answer}
TIMES = 3


def fill_journal(method: str, rows: Path, model: str) -> int:
    """Fill the journal with one run; return the number of calls."""
    result = run(METHODS[method], rows, model, concurrency="256")
    return int(result.outcome.result["usage"]["calls"])


def replay_run(method: str, rows: Path, model: str) -> float:
    """Repeat the run and return its seconds; it must send nothing."""
    result = run(METHODS[method], rows, model, concurrency="256")
    assert result.outcome.run["requests"] == 0 and result.outcome.status == "finished"
    return result.wall


def replay_stack(rows: Path, model: str) -> float:
    """Repeat every call through all layers, without records and files; return the seconds."""

    async def ask_all(prompts: list[str]) -> float:
        roles = {"teacher": [parse_spec(model)]}
        stack = build_stack(roles, StackOptions(rows.parent, None, None, 600.0))
        start = perf_counter()
        for prompt in prompts:
            await Roles(stack.models, Record("0", prompt), {}).chat("teacher", plain_prompt(prompt), temperature=1)
        seconds = perf_counter() - start
        assert stack.traffic.sent == 0
        await stack.close()
        return seconds

    return asyncio.run(ask_all([json.loads(line)["prompt"] for line in rows.open()]))


def measure(quick: bool) -> list[Line]:
    divisor = 5 if quick else 1
    lines = []
    for method, records in (("ask", 20_000), ("evolve", 1_000)):
        with TemporaryDirectory() as folder:
            rows = write_rows(Path(folder), records // divisor)
            with serving(ANSWERS[method]) as server:
                calls = in_fresh_process(fill_journal, method, rows, server.model)
            if method == "ask":
                seconds = median(in_fresh_process(replay_stack, rows, server.model) for _ in range(TIMES))
                name = f"replay, calls/s through the journal, {calls:,} calls"
                lines.append(speed_line(name, "≥ 30,000", calls, seconds, "SQLite and JSON"))
            first = rows.with_name("out.jsonl").read_bytes()
            seconds = median(in_fresh_process(replay_run, method, rows, server.model) for _ in range(TIMES))
            assert rows.with_name("out.jsonl").read_bytes() == first
        name = f"the same, whole runs: {method}, reading, folding and writing rows, {calls:,} calls"
        lines.append(speed_line(name, "-", calls, seconds, "the loop"))
    return lines


def speed_line(name: str, target: str, calls: int, seconds: float, limited_by: str) -> Line:
    return Line(name, target, f"{calls / seconds:,.0f} ({1e6 * seconds / calls:.0f} µs a call)", limited_by)


if __name__ == "__main__":
    main(measure)
