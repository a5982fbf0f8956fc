"""Passages of a corpus, found by their words: BM25 (Robertson and Zaragoza, 2009, doi 10.1561/1500000019).

A passage is a paragraph. It knows its document and its place in it, so that evidence can be looked up word for word.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from heapq import nsmallest
from math import log
from pathlib import Path
from typing import NamedTuple

from datagen.errors import InputError
from datagen.records.files import open_input
from datagen.records.reader import DOCUMENTS, Reader
from datagen.records.record import Document
from datagen.text import tokens

K1, B = 1.5, 0.75
"""The usual settings: how soon more of a word adds nothing, and how much length counts."""
PARAGRAPH = re.compile(r"\S(?:.*\S)?(?:\n[ \t]*\S(?:.*\S)?)*")


class Passage(NamedTuple):
    """A paragraph: its document, and its place there in characters."""

    document: str
    start: int
    end: int
    text: str


def passages_of(document: str, text: str) -> Iterator[Passage]:
    """Yield the paragraphs of a text; text[start:end] is the passage, word for word."""
    for match in PARAGRAPH.finditer(text):
        yield Passage(document, match.start(), match.end(), match[0])


class BM25Index:
    """An index of passages."""

    def __init__(self, passages: Iterable[Passage]) -> None:
        self.passages = list(passages)
        self._lengths: list[int] = []
        self._found_in: dict[str, list[tuple[int, int]]] = {}
        """Word to the passages it stands in, and how often."""
        for number, passage in enumerate(self.passages):
            words = tokens(passage.text)
            self._lengths.append(len(words))
            for word, count in Counter(words).items():
                self._found_in.setdefault(word, []).append((number, count))
        self._mean = sum(self._lengths) / max(len(self._lengths), 1)

    def search(self, query: str, count: int = 1) -> list[Passage]:
        """Return the passages that fit a query best, the earlier first among equals; none that shares no word."""
        scores: dict[int, float] = {}
        for word in dict.fromkeys(tokens(query)):
            found = self._found_in.get(word, [])
            rarity = log(1 + (len(self.passages) - len(found) + 0.5) / (len(found) + 0.5))
            for number, often in found:
                long = 1 - B + B * self._lengths[number] / self._mean
                scores[number] = scores.get(number, 0.0) + rarity * often * (K1 + 1) / (often + K1 * long)
        best = nsmallest(count, scores.items(), key=lambda each: (-each[1], each[0]))
        return [self.passages[number] for number, _ in best]


@cache
def load_index(path: Path) -> BM25Index:
    """Read a corpus: rows with "text", or lines of text."""
    with open_input(str(path)) as file:
        documents = [row for row in Reader(str(path), file, DOCUMENTS).read() if isinstance(row, Document)]
    found = [passage for each in documents for passage in passages_of(each.source_id or each.id, each.text)]
    if not found:
        raise InputError(f"{path}: no text in it")
    return BM25Index(found)
