"""What one pass over a file of rows finds: lengths, scores, a sample, and where each row stands.

Memory does not grow with the rows, but for 16 bytes of each that has an id of ours. The sample is that of the smallest
ids (of other rows, digests): the same in every run, and the same rows in all files of a flow that keep their ids.
"""

import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from heapq import heappush, heapreplace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datagen.engine.method import number_of
from datagen.records.files import open_file
from datagen.records.layout import unpack_row
from datagen.records.lines import BOM, all_lines
from datagen.records.record import Row
from datagen.records.seen import short_digest
from datagen.text import count_words

FIGURE_SAMPLE = 500
"""Rows that similarity and diversity are measured on."""
MOST_KEPT = 8_000
"""Characters of a text of a sampled row."""
MOST_WORDS = 1_000_000
ANSWERS = ("response", "chosen", "rejected", "text")


class Position(NamedTuple):
    """A row of a file."""

    path: Path
    offset: int
    """The byte where its line begins."""


class Sample:
    """The rows with the smallest keys.

    Args:
        size: How many to keep.
    """

    def __init__(self, size: int) -> None:
        self._size, self._heap = size, list[tuple[int, int, Row]]()
        self._count = 0

    def add(self, key: int, row: Row) -> None:
        """Take a row, if its key is among the smallest; of equal keys the earlier ones."""
        self._count += 1
        if len(self._heap) < self._size:
            heappush(self._heap, (-key, -self._count, trimmed(row)))
        elif self._heap and -key > self._heap[0][0]:
            heapreplace(self._heap, (-key, -self._count, trimmed(row)))

    @property
    def rows(self) -> list[Row]:
        """The rows, in the order of their keys; ours unpacked."""
        return [unpacked(row) for _, _, row in sorted(self._heap, key=lambda entry: (-entry[0], -entry[1]))]


@dataclass
class Index:
    """Where the rows of one file stand, by the numbers that their ids are."""

    path: Path
    ids: Any = field(default_factory=lambda: array("Q"))
    offsets: Any = field(default_factory=lambda: array("Q"))

    def sort(self) -> None:
        """Make the index ready to be searched, once all rows are in it."""
        ids, offsets = np.frombuffer(self.ids, np.uint64), np.frombuffer(self.offsets, np.uint64)
        order = np.argsort(ids, kind="stable")
        self.ids, self.offsets = ids[order], offsets[order]

    def find(self, name: str) -> Position | None:
        """Return where the first row with an id stands."""
        number = np.uint64(number_of(name))
        place = int(np.searchsorted(self.ids, number))
        if not number or place == len(self.ids) or self.ids[place] != number:
            return None
        return Position(self.path, int(self.offsets[place]))


@dataclass
class RowFigures:
    """The figures of one file."""

    index: Index
    rows: int = 0
    unusable: int = 0
    """Lines that hold no row."""
    words: dict[str, Counter[int]] = field(default_factory=dict)
    """Name of a column to how many of its texts have so many words."""
    scores: Counter[float] = field(default_factory=Counter)
    sample: Sample = field(default_factory=lambda: Sample(FIGURE_SAMPLE))
    digest: str = ""
    """The SHA-256 of the file."""


def read_figures(path: Path, also: Callable[[Row], None] = lambda row: None) -> RowFigures:
    """Read a file of rows once; `also` gets each row."""
    figures = RowFigures(Index(path))
    digests: dict[str, bytes] = {}
    for offset, raw, row in positioned_rows(path, digests):
        texts = texts_of(row) if row else []
        if row is None or not texts:
            figures.unusable += 1
            continue
        figures.rows += 1
        for name, text in texts:
            figures.words.setdefault(name, Counter())[min(count_words(text), MOST_WORDS)] += 1
        figures.scores.update(numbers_in(row.get("scores")))
        number = number_of(str(row.get("id")))
        if number:
            figures.index.ids.append(number)
            figures.index.offsets.append(offset)
        figures.sample.add(number or short_digest(raw.decode(errors="replace")), row)
        also(row)
    figures.index.sort()
    figures.digest = digests[str(path)].hex()
    return figures


def read_index(path: Path) -> Index:
    """Read where the rows of a file stand."""
    index = Index(path)
    for offset, _, row in positioned_rows(path, {}):
        if row and (number := number_of(str(row.get("id")))):
            index.ids.append(number)
            index.offsets.append(offset)
    index.sort()
    return index


def positioned_rows(path: Path, digests: dict[str, bytes]) -> Iterator[tuple[int, bytes, Row | None]]:
    """Yield the lines of a file that are not blank: where each begins, its bytes, and its row if it holds one.

    At the end, `digests` has the digest of the file.
    """
    with open_file(str(path), digests) as file:
        lines, offset = all_lines(file), 0
        for raw in lines:
            if raw.strip():
                yield offset, raw, parse_row(raw)
            offset = file.tell()
        file.read()  # the digest is known at the end of the file


def row_at(position: Position) -> Row | None:
    """Read one row, unpacked."""
    with position.path.open("rb") as file:
        file.seek(position.offset)
        row = parse_row(file.readline().removeprefix(BOM))
        return None if row is None else unpacked(row)


def parse_row(raw: bytes) -> Row | None:
    """Return the row of a line as it stands there; None if it holds none."""
    with suppress(ValueError, RecursionError):
        row = json.loads(raw.decode())
        return row if isinstance(row, dict) else None
    return None


def unpacked(row: Row) -> Row:
    """Return a row of ours as its method made it; one that somebody has edited, or of somebody else, as it is."""
    with suppress(ValueError, RecursionError):
        return unpack_row(row)
    return row


def texts_of(row: Row) -> list[tuple[str, str]]:
    """Return the texts of a row that people read, each with the name of its column; none for a row of no kind."""
    prompt = prompt_text(row.get("prompt"))
    texts = [("prompt", prompt)] if prompt is not None else []
    texts += [(name, row[name]) for name in ANSWERS if isinstance(row.get(name), str)]
    responses = row.get("responses")
    texts += [("response", text) for text in responses if isinstance(text, str)] if isinstance(responses, list) else []
    return texts


def prompt_text(prompt: Any) -> str | None:
    """Return the request of a prompt, as `request_text` does; None if it is no prompt."""
    if isinstance(prompt, str):
        return prompt
    turns = [turn for turn in prompt if isinstance(turn, dict)] if isinstance(prompt, list) else []
    requests = [turn["content"] for turn in turns if isinstance(turn.get("content"), str)]
    users = [turn["content"] for turn in turns if turn.get("role") == "user" and isinstance(turn.get("content"), str)]
    return users[-1] if users else requests[-1] if requests else None


def numbers_in(values: Any) -> list[float]:
    """Return the numbers in a list."""
    numbers = values if isinstance(values, list) else []
    return [float(value) for value in numbers if isinstance(value, int | float) and not isinstance(value, bool)]


def trimmed(value: Any) -> Any:
    """Return a row with its texts cut to MOST_KEPT characters; how long they were stands in their place."""
    if isinstance(value, str):
        return value if len(value) <= MOST_KEPT else CutText(value)
    if isinstance(value, dict):
        return {name: trimmed(inner) for name, inner in value.items()}
    return [trimmed(inner) for inner in value] if isinstance(value, list) else value


class CutText(str):
    """The beginning of a long text."""

    length: int
    """Characters of the whole text."""

    def __new__(cls, text: str) -> "CutText":
        short = super().__new__(cls, text[:MOST_KEPT])
        short.length = len(text)
        return short
