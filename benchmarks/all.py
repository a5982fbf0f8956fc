"""Every benchmark of the engine, one after another, as one table.

python -m benchmarks.all [--quick]
"""

from collections.abc import Iterator

from benchmarks import journals, kills, memory, novelty, replay, startup, stragglers, throughput, waste
from benchmarks.common import Line, main

BENCHMARKS = (throughput, stragglers, waste, kills, replay, journals, memory, startup, novelty)


def measure(quick: bool) -> Iterator[Line]:
    for benchmark in BENCHMARKS:
        yield from benchmark.measure(quick)


if __name__ == "__main__":
    main(measure)
