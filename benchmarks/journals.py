"""A big run comes together: merge the journals of 64 shards, then replay all of it and go on where it was stopped.

    python -m benchmarks.journals [--rows N]

The journals are filled without a server: each call is built by the layers of `respond`, and its answer is recorded as
it would come. The last FEW rows are not answered. Then `datagen gather` merges the journals, and `datagen respond`
replays them, sends its first request, and ends.
"""

import asyncio
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from sqlite3 import Connection
from tempfile import TemporaryDirectory
from time import monotonic
from typing import NamedTuple

from benchmarks.common import IN_FLIGHT, Line, in_fresh_process, main, write_rows
from benchmarks.remote import FILLER, serving
from datagen.llm.call import Call, Reply
from datagen.llm.database import JOURNAL, open_database
from datagen.llm.model import Model, Roles
from datagen.llm.spec import parse_spec
from datagen.records.record import Record, plain_prompt
from datagen.strategies.strategy import SAMPLING
from tests.memory import peak_of

SHARDS, FEW = 64, 64
"""Journals; rows at the end of the input whose answers are not recorded."""
INSERT = "INSERT INTO replies (key, attempt, status, body) VALUES (?, ?, ?, ?)"


class Recorder:
    """A layer that answers at once, and records each answer in the next of several journals."""

    def __init__(self, journals: list[Connection]) -> None:
        self._journals, self._count = journals, 0

    async def send(self, call: Call) -> Reply:
        message = {"role": "assistant", "content": f"{call.messages[-1]['content']} {FILLER}"}
        usage = {"prompt_tokens": 20, "completion_tokens": 300}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        reply = Reply(200, json.dumps({"object": "chat.completion", "choices": [choice], "usage": usage}))
        journal = self._journals[self._count % len(self._journals)]
        journal.execute(INSERT, (call.key, call.attempt, reply.status, reply.body))
        self._count += 1
        return reply


def fill_journals(folders: list[Path], rows: Path, count: int, model: str) -> None:
    """Record the answers to the first `count` rows, each in the journal of one of the folders."""

    async def ask(prompts: Iterable[str]) -> None:
        for prompt in prompts:
            await Roles(models, Record("0", prompt), {}).chat("teacher", plain_prompt(prompt), **SAMPLING)

    with ExitStack() as stack:
        journals = [open_database(folder).database for folder in folders]
        for journal in journals:
            stack.callback(journal.close)
            journal.execute("BEGIN")
        spec = parse_spec(model)
        models = {"teacher": [Model(spec.identity, Recorder(journals), spec.params)]}
        with rows.open() as file:
            asyncio.run(ask(json.loads(line)["prompt"] for _, line in zip(range(count), file, strict=False)))
        for journal in journals:
            journal.execute("COMMIT")


def measure_rows(rows: int) -> Iterator[Line]:
    with TemporaryDirectory() as place, serving() as server:
        folder, model = Path(place), server.model
        shards = [folder / f"shard{number}" for number in range(SHARDS)]
        for shard in shards:
            shard.mkdir()
        input_file = write_rows(folder, rows)
        in_fresh_process(fill_journals, shards, input_file, rows - FEW, model)

        # 1. The journals come together.
        costs = costs_of("gather", *shards, "-o", folder, "-q")
        size = (folder / JOURNAL).stat().st_size
        name = f"gather, {SHARDS} journals, {rows - FEW:,} answers, {size / 1e6:,.0f} MB"
        yield Line(name, "-", speed(rows - FEW, costs), "SQLite: the index of the keys, which come in no order")

        # 2. The whole run: it replays what is recorded, asks for the rest, and writes the rows.
        start, output = monotonic(), folder / "out.jsonl"
        costs = costs_of("respond", input_file, "-o", output, "--model", model, "--concurrency", str(IN_FLIGHT), "-q")
        run = json.loads(output.with_suffix(".meta.json").read_text())["run"]
        assert (run["replayed"], run["requests"]) == (rows - FEW, FEW)
        yield Line("replay of the whole, rows written", "-", speed(rows, costs), "Python: a row's way")
        first, name = server.record().log[0].at - start, f"first request after resume, behind {rows - FEW:,} rows"
        yield Line(name, "-", f"{first:.1f} s", "the replay: a run begins with the first row")


class Costs(NamedTuple):
    """What a command takes: seconds, seconds of the processor, bytes of memory at most."""

    wall: float
    cpu: float
    peak: int


def costs_of(*command: str | Path) -> Costs:
    """Run a command of `datagen` in a process of its own."""
    before, start = getrusage(RUSAGE_CHILDREN), monotonic()
    peak = peak_of(*command)
    wall, after = monotonic() - start, getrusage(RUSAGE_CHILDREN)
    return Costs(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, peak)


def speed(rows: int, costs: Costs) -> str:
    return (
        f"{rows / costs.wall:,.0f} rows/s, {1e6 * costs.cpu / rows:.0f} µs of the processor for each; "
        f"{costs.wall:.1f} s; peak memory {costs.peak / 1e6:.0f} MB"
    )


def measure(quick: bool) -> Iterator[Line]:
    words = sys.argv
    yield from measure_rows(int(words[words.index("--rows") + 1]) if "--rows" in words else 4_000 if quick else 50_000)


if __name__ == "__main__":
    main(measure)
