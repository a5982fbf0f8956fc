"""Rows per second and CPU time per row with 256 requests in flight: a whole run against the usual client loop.

    python -m benchmarks.throughput

Ours is a command's own path: read the input, one call a record, journal, fold, output files. The usual loop is
`AsyncOpenAI` with its defaults, `asyncio.gather` and a semaphore, its answers written at the end. The server does
nothing, or waits 50 ms. Each round measures both, in fresh processes, warmed up by a few calls; medians of the rounds.
"""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import NamedTuple

import openai

from benchmarks.common import Ask, Line, in_fresh_process, main, run, write_rows
from benchmarks.remote import Remote, serving

ROUNDS, ROWS, IN_FLIGHT, WARM_UP = 3, 4_000, 256, 64


class Cost(NamedTuple):
    """Seconds per row."""

    wall: float
    cpu: float


def ours(model: str, rows: int) -> Cost:
    """Measure a run of the engine."""
    with TemporaryDirectory() as folder:
        warm = Path(folder, "warm")  # another folder has another journal
        warm.mkdir()
        run(Ask, write_rows(warm, WARM_UP), model)
        result = run(Ask, write_rows(Path(folder), rows), model, concurrency=str(IN_FLIGHT))
        assert result.outcome.run["requests"] == result.outcome.result["funnel"]["kept"] == rows
    return Cost(result.wall / rows, result.cpu / rows)


def theirs(model: str, rows: int) -> Cost:
    """Measure the usual loop."""
    with TemporaryDirectory() as folder:
        prompts = [json.loads(line)["prompt"] for line in write_rows(Path(folder), rows).open()]
        return asyncio.run(_usual_loop(model, prompts, Path(folder, "out.jsonl")))


async def _usual_loop(model: str, prompts: list[str], output: Path) -> Cost:
    name, _, url = model.partition("@")
    client, slots = openai.AsyncOpenAI(base_url=url, api_key="none"), asyncio.Semaphore(IN_FLIGHT)

    async def answer(prompt: str) -> str:
        async with slots:
            completion = await client.chat.completions.create(
                model=name, messages=[{"role": "user", "content": prompt}], temperature=1
            )
        return json.dumps({"prompt": prompt, "response": completion.choices[0].message.content})

    await asyncio.gather(*map(answer, prompts[:WARM_UP]))
    cpu, wall = process_time(), perf_counter()
    lines = await asyncio.gather(*map(answer, prompts))
    output.write_text("\n".join(lines))
    cost = Cost((perf_counter() - wall) / len(prompts), (process_time() - cpu) / len(prompts))
    await client.close()
    return cost


def compare(server: Remote, rows: int, rounds: int) -> tuple[Cost, Cost]:
    """Return the median costs of ours and theirs, measured in turns."""
    costs = [[in_fresh_process(side, server.model, rows) for side in (ours, theirs)] for _ in range(rounds)]
    our_costs, their_costs = zip(*costs, strict=True)
    return _medians(our_costs), _medians(their_costs)


def _medians(costs: Sequence[Cost]) -> Cost:
    return Cost(median(cost.wall for cost in costs), median(cost.cpu for cost in costs))


def measure(quick: bool) -> list[Line]:
    rows, rounds = (1_000, 1) if quick else (ROWS, ROUNDS)
    lines = []
    for wait, target in ((0.0, "≥ 4 ×, aim 5 ×"), (0.05, "≥ 3.5 ×, aim 4.5 ×")):
        with serving(latency=wait) as server:
            engine, loop = compare(server, rows, rounds)
        name = f"rows/s against the usual loop, {1000 * wait:.0f} ms server, {IN_FLIGHT} in flight"
        measured = f"{loop.wall / engine.wall:.1f} × ({1 / engine.wall:,.0f} against {1 / loop.wall:,.0f} rows/s)"
        lines.append(Line(name, target, measured, "the client library's path of a request"))
        if not wait:
            measured = f"{engine.cpu / loop.cpu:.2f} × ({1e6 * engine.cpu:.0f} against {1e6 * loop.cpu:.0f} µs)"
            lines.append(Line("CPU a row against the usual loop", "≤ 0.3 ×", measured, "the same"))
    return lines


if __name__ == "__main__":
    main(measure)
