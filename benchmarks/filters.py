"""Rows per second of each rule of `datagen filter`, over N rows and 2 N rows: none may take more than linear time.

The one exception is the exact search of --dedup below 1, which compares a prompt with all earlier ones: it is measured
over a tenth of the rows. The prompts are made of sixteen words, so that nearly all of them share some: its worst case.

python -m benchmarks.filters [--quick] [ROWS]
"""

import sys
from collections.abc import Callable, Iterator
from random import Random
from time import process_time

from benchmarks.common import Line, show
from datagen.records.record import Record, Row
from datagen.select.heuristics import FILTERS, as_seen
from datagen.select.novelty import Novelty

ROWS, SEARCH = 100_000, "--dedup 0.7"
WORDS = (
    "river candle engine violin harvest glacier teapot orchard comet ladder pepper bridge of the and in with".split()
)


def make_rows(number: int) -> list[Record]:
    """Return rows with answers of 20 to 200 words."""
    random = Random(0)

    def sentence(words: int) -> str:
        return f"{' '.join(random.choices(WORDS, k=words)).capitalize()}."

    return [
        Record(
            f"{n:016x}", f"{sentence(12)} Number {n}?", "\n".join(sentence(20) for _ in range(random.randint(1, 10)))
        )
        for n in range(number)
    ]


def seconds(rule: Callable[[Record], object], rows: list[Record]) -> float:
    """Return the processor time of a rule over rows."""
    start = process_time()
    for row in rows:
        rule(row)
    return process_time() - start


def rules() -> dict[str, Callable[[], Callable[[Record], object]]]:
    """Return what is measured, by name; each is made anew for every measurement."""

    def dedup(threshold: float) -> Callable[[Record], object]:
        novelty = Novelty(threshold)
        return lambda row: novelty.drops(row_of(row))

    by_name = {name: lambda rule=rule: rule for name, rule in {"as_seen": as_seen, **FILTERS}.items()}
    return {**by_name, "--dedup 1": lambda: dedup(1), SEARCH: lambda: dedup(0.7)}


def row_of(record: Record) -> Row:
    """Return a record as a row in our layout."""
    return {"id": record.id, "prompt": record.prompt, "response": record.response, "meta": {}}


def measure(number: int) -> Iterator[Line]:
    rows = make_rows(2 * number)
    for name, make in rules().items():
        count = number // 10 if name == SEARCH else number
        few, many = seconds(make(), rows[:count]), seconds(make(), rows[: 2 * count])
        growth = f"{many / few:.1f} times as long for twice the rows"
        target = "-" if name == SEARCH else "2 times"
        yield Line(name, target, f"{2 * count / many:,.0f} rows/s, {growth}", "processor")


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:] if word.isdigit()]
    show(measure(numbers[0] if numbers else ROWS // (5 if "--quick" in sys.argv else 1)))
