"""Shared by the benchmarks: fresh processes, the shipped commands, a method with one call per record, and the table.

Every benchmark is run from the root of the repository, `python -m benchmarks.NAME [--quick]`, and prints a table; with
--quick it does about a fifth of the work and only shows that it still runs. Only ratios of numbers from one run can
be compared between machines.
"""

import asyncio
import json
import os
import resource
import subprocess
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

os.environ["DATAGEN_TEST_HEADER"] = "1"  # tests/server.py answers by the place of a call in the run
ROOT = Path(__file__).resolve().parent.parent
IN_FLIGHT = 256
"""Requests in flight, where a benchmark says nothing else."""
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

    def bound(self, record: Record, llm: Roles) -> int:
        return 1


class Seconds(NamedTuple):
    """What a process took."""

    wall: float
    cpu: float

    def per_row(self, few: "Seconds", rows: int) -> "Seconds":
        """Return the seconds per row: those beyond a run with few rows, for `rows` rows more."""
        return Seconds((self.wall - few.wall) / rows, (self.cpu - few.cpu) / rows)


def time_process(*arguments: str | Path) -> Seconds:
    """Run Python with these arguments, from its start to its end; what it prints is not shown."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), perf_counter()
    subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    wall, after = perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Seconds(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def respond(rows: Path, model: str, *options: str) -> Seconds:
    """Run `datagen respond rows.jsonl --model NAME@URL`, as a user does; out.jsonl is written beside the input."""
    output = rows.with_name("out.jsonl")
    command = ("-m", "datagen", "respond", rows, "-o", output, "--model", model, "--concurrency", str(IN_FLIGHT), "-q")
    return time_process(*command, *options)


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
