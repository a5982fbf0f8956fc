"""Reading all rows of a file, encoding some, and splitting them into a training and a held-out side.

Rows are split by prompt, and those that evolved from one seed stay together: no held-out prompt is trained on, nor a
prompt that is derived from the same seed.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Generic, TypeVar

import numpy as np

from datagen.printing import printable
from datagen.records.columns import parse_map
from datagen.records.files import open_input
from datagen.records.reader import Kind, Reader
from datagen.records.record import BadLine, Document, canonical
from datagen_train.data.encode import CONTENTS
from datagen_train.data.table import Chosen, EncodedRows
from datagen_train.data.trained import digests
from datagen_train.errors import UnusableRow

Row = TypeVar("Row")
Example = TypeVar("Example")
"""What a row is encoded into: a sequence, a pair, a ranking."""
MOST_MEASURED = 2000
"""Held-out rows that are measured on, about: the standard error of a share is then about 1 %."""


@dataclass
class Account:
    """Counts of rows and tokens, for the report."""

    read: int = 0
    unreadable: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    """Rows that cannot be trained on, by reason."""
    cut: int = 0
    train: int = 0
    held_out: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    makers: Counter[str] = field(default_factory=Counter)
    """Rows by the models that wrote or judged them."""
    contents: Counter[str] = field(default_factory=Counter)
    """Rows with reasoning, tools and others, by the keys of CONTENTS (data/encode.py)."""
    problems: Counter[str] = field(default_factory=Counter)
    """Unreadable lines, by reason."""

    def summary(self) -> str:
        """Return a line with the counts of rows."""
        held = "".join(f"; {self.contents[name]} {words}" for name, words in CONTENTS.items() if self.contents[name])
        return (
            f"{self.read} rows: {self.train} sequences to train on, {self.held_out} held out, "
            f"{self.unreadable} unreadable, {self.dropped.total()} dropped, {self.cut} cut{held}"
        )

    def losses(self) -> str:
        """Return what became of the rows that are not used: how many, and why."""
        kinds = (("cannot be read", self.problems), ("dropped", self.dropped))
        return "; ".join(f"{n} {kind}: {why}" for kind, counts in kinds for why, n in counts.most_common()) or "no rows"

    def as_dict(self) -> dict[str, Any]:
        counters = ("dropped", "makers", "contents", "problems")
        return vars(self) | {name: dict(sorted(getattr(self, name).items())) for name in counters}


@dataclass
class Split(Generic[Row, Example]):
    """Encoded rows on both sides, and the held-out rows as they were read."""

    train: Chosen[Example]
    held_out: Chosen[Example]
    held_out_rows: list[Row]
    trained: set[int]
    """Digests of the rows that are trained on (data/trained.py)."""


def read_rows(
    name: str, kind: Kind[Row], shape: str | None = None, limit: int | None = None, mapping: str | None = None
) -> tuple[list[Row], Counter[str]]:
    """Return the rows of a file, at most `limit`, and the lines up to there that cannot be used, by reason.

    What is not used of the columns is printed. For the other arguments see `Reader` and `parse_map`.
    """
    with open_input(name) as file:
        return read_some(Reader(name, file, kind, shape, parse_map(mapping)), limit)


def read_some(reader: Reader[Row], limit: int | None) -> tuple[list[Row], Counter[str]]:
    """Return the first rows and the lines before their end that cannot be used; see `read_rows`."""
    rows: list[Row] = []
    unreadable = Counter[str]()
    for item in reader.read():
        if isinstance(item, BadLine):
            unreadable[item.reason] += 1
        else:
            rows.append(item)
        if len(rows) == limit:
            break
    for line in reader.account.lines():
        print(printable(line), file=sys.stderr)
    return rows, unreadable


def encode_usable(
    rows: Iterable[Row], encode: Callable[[Row], Iterable[Example]]
) -> tuple[list[Example], Counter[str]]:
    """Encode rows; return the examples, and how many rows raised UnusableRow, by reason."""
    examples, dropped = list[Example](), Counter[str]()
    for row in rows:
        try:
            examples += encode(row)
        except UnusableRow as reason:
            dropped[str(reason)] += 1
    return examples, dropped


def split_group(row: Any) -> object:
    """Return the group of a row; rows of one group go to the same side of the split.

    It is the seed that the prompt was evolved from, else the prompt itself; for a document its text.
    """
    return row.text if isinstance(row, Document) else row.meta.get("seed_id") or row.prompt


def is_held_out(group: object, share: float) -> bool:
    """Decide by a digest of the group alone, so that equal prompts are on one side in every run."""
    return int.from_bytes(sha256(canonical(group)).digest()[:4]) < share * 2**32


def choose_sides(
    rows: Iterable[Row], measured: Sequence[Row], share: float, number: int
) -> Iterator[tuple[Row, bool | None]]:
    """Yield rows, each with whether it is held out; None if it is held out and not measured on.

    Args:
        rows: those to train on, of which a share is held out if `measured` is empty.
        measured: those to measure on, of a file of their own.
        share: of the groups, 0 to 1.
        number: of the rows.
    """
    measured_share = MOST_MEASURED / max(1, number)
    for row in rows:
        group = split_group(row)
        if measured or not is_held_out(group, share):
            yield row, False
        else:
            yield row, True if is_held_out(group, measured_share) else None
    yield from ((row, True) for row in measured)


def count_repeated(rows: Iterable[Row], measured: Sequence[Row]) -> int:
    """Return how many rows to measure on are of a group that is trained on."""
    trained = {canonical(split_group(row)) for row in rows} if measured else set()
    return sum(canonical(split_group(row)) in trained for row in measured)


def split_rows(
    rows: Iterable[tuple[Row, bool | None]],
    encoded: EncodedRows[Example],
    account: Account,
    draw: Callable[[Sequence[int]], Sequence[int]] = lambda places: range(len(places)),
) -> Split[Row, Example]:
    """Put encoded rows on their sides; unusable rows are counted, never fatal.

    Args:
        rows: each with its side (`choose_sides`), in the order in which they were encoded.
        encoded: what they are encoded into.
        account: counts are added to it.
        draw: gets the numbers of the rows that can be trained on, and returns which of them are, by index.
    """
    places, usable, held_out_rows = list[int](), list[tuple[Row, range]](), list[Row]()
    trained, train, held_out = set[int](), list[int](), list[int]()
    for place, (row, is_held_out) in enumerate(rows):
        if is_held_out is None:
            continue
        if place in encoded.dropped:
            account.dropped[encoded.dropped[place]] += 1
            continue
        examples = range(encoded.starts[place], encoded.starts[place + 1])
        if is_held_out:
            held_out += examples
            held_out_rows.append(row)
        else:
            places.append(place)
            usable.append((row, examples))
    for index in draw(places):
        row, examples = usable[index]
        train += examples
        trained.update(digests(row))
    tokens, trained_tokens, cut = encoded.sizes[[*train, *held_out]].sum(0, dtype=np.int64).tolist()
    account.tokens += tokens
    account.trained_tokens += trained_tokens
    account.cut += cut
    account.train, account.held_out = len(train), len(held_out)
    return Split(encoded.choose(train), encoded.choose(held_out), held_out_rows, trained)
