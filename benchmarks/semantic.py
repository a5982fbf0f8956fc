"""Rows per second of `filter --dedup semantic` and `--diverse` over vectors of 384 numbers, and the memory of a row.

Time is quadratic in the rows kept, so N and 2 N rows are measured: four times as long at worst. The baseline compares
each row with those kept by one product of numpy for each row, and the decisions must be equal.

python -m benchmarks.semantic [--quick] [ROWS]
"""

import sys
import tracemalloc
from collections.abc import Iterator
from time import perf_counter, process_time

import numpy as np
import numpy.typing as npt

from benchmarks.common import Line, show
from datagen.llm.sim.embed import vector_of
from datagen.select.diversity import Selection
from datagen.select.meaning import THRESHOLD, Meaning
from datagen.select.novelty import Novelty, itself
from datagen.select.vectors import EmbeddedRow, Vectors

ROWS, NUMBERS, MOST = 50_000, 384, 1_000
Matrix = npt.NDArray[np.float32]


def make_vectors(count: int) -> Matrix:
    """Return vectors of length 1; every fifth one lies near an earlier one."""
    dice = np.random.default_rng(0)
    matrix = dice.standard_normal((count, NUMBERS), np.float32)
    copies = np.arange(4, count, 5)
    matrix[copies] = matrix[copies - dice.integers(1, 5, len(copies))] + 0.4 * matrix[copies]
    unit: Matrix = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    return unit


def decisions(matrix: Matrix, threshold: float | None, most: int | None) -> list[str | None]:
    """Decide about rows with these vectors, as the fold does; return the reasons."""
    kept = Vectors()
    meaning = None if threshold is None else Meaning(kept, threshold, Novelty(1.0, family_of=itself), itself)
    selection, verdicts = Selection(kept, meaning, most), []
    for place, vector in enumerate(matrix):
        selection.add(EmbeddedRow({"id": f"{place:016x}", "prompt": f"Prompt {place}", "meta": {}}, vector))
        verdicts += selection.decided(is_last=False)
    return [verdict.reason for verdict in [*verdicts, *selection.decided(is_last=True)]]


def one_by_one(matrix: Matrix) -> list[str | None]:
    """Decide by one product for each row."""
    kept, count, reasons = np.empty_like(matrix), 0, []
    for vector in matrix:
        is_near = bool(count and (kept[:count] @ vector).max() >= THRESHOLD)
        reasons.append("similar_meaning" if is_near else None)
        if not is_near:
            kept[count] = vector
            count += 1
    return reasons


def measure(number: int) -> Iterator[Line]:
    matrix, seconds = make_vectors(2 * number), []
    for count in (number, 2 * number):
        start = perf_counter()
        reasons = decisions(matrix[:count], THRESHOLD, None)
        seconds.append(perf_counter() - start)
    growth = f"{seconds[1] / seconds[0]:.1f} times as long for twice the rows"
    yield Line(
        f"--dedup semantic, {number:,} and {2 * number:,} rows",
        "4 times",
        f"{seconds[0]:.0f} s and {seconds[1]:.0f} s, {growth}",
        "processor",
    )
    few = number // 5
    start = perf_counter()
    expected = one_by_one(matrix[:few])
    baseline, start = perf_counter() - start, perf_counter()
    equal = decisions(matrix[:few], THRESHOLD, None) == expected == reasons[:few]
    ratio = baseline / (perf_counter() - start)
    yield Line(
        f"the same against one product a row, {few:,} rows", "equal", f"{ratio:.1f} x as fast, equal: {equal}", "memory"
    )
    start = perf_counter()
    decisions(matrix, None, MOST)
    took = perf_counter() - start
    yield Line(f"--diverse {MOST:,} of {2 * number:,} rows", "", f"{took:.1f} s", "memory")

    tracemalloc.start()
    decisions(matrix[:few], THRESHOLD, None)
    peak = tracemalloc.get_traced_memory()[1] / few
    tracemalloc.stop()
    yield Line("memory of a row", f"{4 * NUMBERS:,} bytes of its vector", f"{peak:,.0f} bytes", "")

    start = process_time()
    for place in range(1_000):
        vector_of(f"Say in a few plain words what the number {place} is good for.")
    yield Line("vectors of sim", "", f"{1_000 / (process_time() - start):,.0f} texts/s", "processor")


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:] if word.isdigit()]
    show(measure(numbers[0] if numbers else ROWS // (5 if "--quick" in sys.argv else 1)))
