"""Shared by the benchmarks: fresh processes, a method with one call per record, a run, and the table.

Every benchmark is run from the root of the repository, `python -m benchmarks.NAME [--quick]`, and prints a table; with
--quick it does about a fifth of the work and only shows that it still runs. Only ratios of numbers from one run can
be compared between machines.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, NamedTuple, TypeVar

import datagen.llm.endpoint  # noqa: F401 (imported before any clock starts)
from datagen.engine.job import Outcome, open_job, run_job, tune_garbage_collector
from datagen.engine.method import Method
from datagen.engine.options import RunOptions
from datagen.errors import CallFailed
from datagen.llm.model import Roles
from datagen.records.record import Candidate, Record, fail, keep, plain_prompt
from tests.jobs import Quiet

T = TypeVar("T")


class Line(NamedTuple):
    """One line of the table."""

    name: str
    target: str
    measured: str
    limited_by: str


def show(lines: Iterable[Line]) -> None:
    """Print the table in Markdown, each line as soon as it is measured."""
    head = (Line("benchmark", "target", "measured", "limited by"), ("---",) * 4)
    for cells in chain(head, lines):
        print(f"| {' | '.join(cells)} |", flush=True)


def main(measure: Callable[[bool], Iterable[Line]]) -> None:
    """Run a benchmark as a script."""
    show(measure("--quick" in sys.argv))


def in_fresh_process(work: Callable[..., T], *arguments: Any) -> T:
    """Call a function in a new interpreter, so that no earlier measurement affects it."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


@dataclass(frozen=True)
class NoOptions:
    """A method without options."""


class Ask(Method):
    """A method with one call per record."""

    name = "ask"
    options_type = NoOptions
    unique = ("prompt",)
    roles = {"teacher": "answers"}

    async def generate(self, record: Record, llm: Roles) -> AsyncIterator[Candidate]:
        """Send the prompt of the record unchanged."""
        try:
            reply = await llm.chat("teacher", plain_prompt(record.prompt), temperature=1)
        except CallFailed as error:
            yield fail(error, record={"id": record.id, "prompt": record.prompt}, meta={})
            return
        meta = {"method": "ask", "parents": [record.id], "finish_reason": reply.finish_reason, "usage": reply.usage}
        yield keep({"id": record.id, "prompt": record.prompt, "response": reply.text, "meta": meta})

    def bound(self, record: Record) -> int:
        return 1


class RunResult(NamedTuple):
    """A finished run: its outcome, wall-clock seconds and processor seconds."""

    outcome: Outcome
    wall: float
    cpu: float


def run(method: type[Method], rows: Path, model: str, **options: Any) -> RunResult:
    """Run a method as its command does, without terminal output; out.jsonl is written beside the input."""
    run_options = RunOptions(output=str(rows.with_name("out.jsonl")), model=[model], **options)
    with open_job(method, str(rows), method.options_type(), run_options, {}) as job:
        tune_garbage_collector()
        cpu, wall = process_time(), perf_counter()
        outcome = asyncio.run(run_job(job, Quiet()))
        return RunResult(outcome, perf_counter() - wall, process_time() - cpu)


def write_rows(folder: Path, count: int) -> Path:
    """Write `count` different prompts to rows.jsonl."""
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as file:
        for number in range(count):
            file.write(json.dumps({"prompt": f"Say in a few plain words what the number {number} is good for."}) + "\n")
    return folder / "rows.jsonl"
