"""Encoded rows as an Arrow table, in memory or memory-mapped: 4 bytes a token, read where they lie.

Rows are encoded in parts, in this process or in several; a part is a record batch of the table. Beside it stand the
rows that gave no example, with the reason, and what the encoder counted.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar, overload

import numpy as np
import pyarrow as pa

from datagen_train.data.layouts import Example, Layout
from datagen_train.errors import UnusableRow

Row = TypeVar("Row")
Array = np.ndarray[Any, Any]
PART = 128
"""Rows of a part."""
SIZE = ("tokens", "trained", "cut")
COMMON = {"place": pa.int32(), **dict(zip(SIZE, (pa.int32(), pa.int32(), pa.bool_()), strict=True))}
"""Columns of every table: the number of the row, and the size of the example."""


class Part(NamedTuple):
    """Some rows as they are encoded."""

    batch: pa.RecordBatch
    dropped: dict[int, str]
    """Reasons, by the number of the row."""
    counts: list[Counter[str]]


def schema_of(layout: Layout[Any]) -> pa.Schema:
    return pa.schema([*COMMON.items(), *layout.columns.items()])


@dataclass
class EncodeJob(Generic[Row, Example]):
    """What is to be encoded, and how.

    Args:
        rows: Those to train on, then those of --eval-data.
        encode: Makes the examples of a row; raises UnusableRow.
        layout: Of the examples.
        counts: What `encode` counts beside; the counters are empty before.
    """

    rows: Sequence[Row]
    encode: Callable[[Row], Iterable[Example]]
    layout: Layout[Example]
    counts: Sequence[Counter[str]] = ()

    @property
    def parts(self) -> int:
        """Number of parts."""
        return -(-len(self.rows) // PART)

    def end(self, part: int) -> int:
        """Return the number of the first row behind a part."""
        return min((part + 1) * PART, len(self.rows))

    def examples(self, part: int, dropped: dict[int, str]) -> Iterator[tuple[int, Example]]:
        """Yield the examples of a part, each with the number of its row; add to `dropped`."""
        for place in range(part * PART, self.end(part)):
            try:
                examples = list(self.encode(self.rows[place]))
            except UnusableRow as reason:
                dropped[place] = str(reason)
            else:
                yield from ((place, example) for example in examples)

    def encode_part(self, number: int) -> Part:
        """Encode some rows into a batch; what was counted goes with it."""
        dropped: dict[int, str] = {}
        layout, schema = self.layout, schema_of(self.layout)
        lines = [
            (place, *layout.measure(example), *layout.pack(example))
            for place, example in self.examples(number, dropped)
        ]
        columns = zip(*lines, strict=True) if lines else ([] for _ in schema)
        batch = pa.record_batch(
            [pa.array(column, type=kind) for column, kind in zip(columns, schema.types, strict=True)], schema=schema
        )
        return Part(batch, dropped, self.take_counts())

    def take_counts(self) -> list[Counter[str]]:
        """Return what was counted since the last call."""
        counts = [Counter(count) for count in self.counts]
        for count in self.counts:
            count.clear()
        return counts


class TableExamples(Sequence[Example]):
    """The examples of a table; one is made when it is read, and its ids are arrays that point into the table."""

    def __init__(self, table: pa.Table, layout: Layout[Example]) -> None:
        self.table, self._layout = table, layout
        names = ("cut", *layout.columns)
        self._batches = [[reader(batch.column(name)) for name in names] for batch in table.to_batches() if len(batch)]
        self._ends = np.cumsum([len(batch) for batch in table.to_batches() if len(batch)]).tolist()

    def __len__(self) -> int:
        return self.table.num_rows

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | Sequence[Example]:
        if isinstance(index, slice):
            return Chosen(self, np.arange(len(self))[index])
        index = range(len(self))[index]
        number = bisect_right(self._ends, index)
        place = index - (self._ends[number - 1] if number else 0)
        return self._layout.unpack(*(read(place) for read in self._batches[number]))


def reader(column: pa.Array) -> Callable[[int], Any]:
    """Return a function from the number of a row to the value of a column: an array for a list, without a copy."""
    if pa.types.is_list(column.type):
        offsets, values = column.offsets.to_numpy().tolist(), column.values.to_numpy()
        return lambda place: values[offsets[place] : offsets[place + 1]]
    return lambda place: column[place].as_py()


class Chosen(Sequence[Example]):
    """Some examples of a sequence, by their numbers; one may come several times.

    Attributes:
        source: All examples.
        numbers: Those that are chosen, in order.
    """

    def __init__(self, source: Sequence[Example], numbers: Array) -> None:
        self.source, self.numbers = source, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> "Chosen[Example]": ...
    def __getitem__(self, index: int | slice) -> "Example | Chosen[Example]":
        if isinstance(index, slice):
            return Chosen(self.source, self.numbers[index])
        return self.source[int(self.numbers[index])]

    def __add__(self, other: "Chosen[Example]") -> "Chosen[Example]":
        return Chosen(self.source, np.concatenate([self.numbers, other.numbers]))


@dataclass
class EncodedRows(Generic[Example]):
    """All rows as they are encoded.

    Attributes:
        examples: Those of all rows, in order.
        sizes: (examples, 3): tokens, trained tokens, cut.
        starts: Where the examples of each row begin, and where the last ones end.
        dropped: Reasons of the rows without one, by the number of the row.
        counts: What the encoder counted.
    """

    examples: Sequence[Example]
    sizes: Array
    starts: list[int]
    dropped: dict[int, str]
    counts: list[Counter[str]]

    def choose(self, numbers: Sequence[int]) -> Chosen[Example]:
        """Return some of the examples."""
        return Chosen(self.examples, np.array(numbers, dtype=np.int64))


def of_table(
    job: EncodeJob[Row, Example], table: pa.Table, dropped: dict[int, str], counts: list[Counter[str]]
) -> EncodedRows[Example]:
    """Return the encoded rows that a table holds."""
    sizes = np.stack([table.column(name).to_numpy() for name in SIZE], axis=1).astype(np.int64)
    starts = starts_of(table.column("place").to_numpy(), len(job.rows))
    return EncodedRows(TableExamples(table, job.layout), sizes, starts, dropped, counts)


def starts_of(places: Array, rows: int) -> list[int]:
    """Return where the examples of each row begin, and where the last ones end; `places` are the rows of examples."""
    starts: list[int] = np.searchsorted(places, np.arange(rows + 1)).tolist()
    return starts


def in_memory(job: EncodeJob[Row, Example], parts: Iterable[Part]) -> EncodedRows[Example]:
    """Return the encoded rows as a table in memory."""
    whole = list(parts)
    table = pa.Table.from_batches([part.batch for part in whole], schema_of(job.layout))
    return of_table(job, table, *add_up(whole, job))


def in_list(job: EncodeJob[Row, Example], count: Callable[[int, int], None]) -> EncodedRows[Example]:
    """Encode examples that have no columns, into a list; `count` gets how many rows are done, of how many."""
    dropped: dict[int, str] = {}
    pairs = list[tuple[int, Example]]()
    for part in range(job.parts):
        pairs += job.examples(part, dropped)
        count(job.end(part), len(job.rows))
    examples = [example for _, example in pairs]
    sizes = np.array([job.layout.measure(example) for example in examples], dtype=np.int64).reshape(-1, 3)
    places = np.array([place for place, _ in pairs], dtype=np.int64)
    return EncodedRows(examples, sizes, starts_of(places, len(job.rows)), dropped, job.take_counts())


def add_up(parts: Iterable[Part], job: EncodeJob[Any, Any]) -> tuple[dict[int, str], list[Counter[str]]]:
    """Return the dropped rows and the counts of all parts."""
    dropped, counts = dict[int, str](), [Counter[str]() for _ in job.counts]
    for part in parts:
        dropped |= part.dropped
        for count, more in zip(counts, part.counts, strict=True):
            count += more
    return dropped, counts
