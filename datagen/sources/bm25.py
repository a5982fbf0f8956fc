"""Search for passages of a corpus by their words: BM25 (Robertson and Zaragoza, 2009, doi 10.1561/1500000019).

A passage is a paragraph with its document and its place there, so that evidence can be checked word for word.
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
"""The usual settings: saturation of term frequency, and length normalisation."""
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
        self._postings: dict[str, list[tuple[int, int]]] = {}
        """Word to (number of a passage, frequency in it)."""
        for number, passage in enumerate(self.passages):
            words = tokens(passage.text)
            self._lengths.append(len(words))
            for word, count in Counter(words).items():
                self._postings.setdefault(word, []).append((number, count))
        self._mean = sum(self._lengths) / max(len(self._lengths), 1)

    def search(self, query: str, count: int = 1) -> list[Passage]:
        """Return the `count` best passages for a query, the earlier first among equals; none that shares no word."""
        scores: dict[int, float] = {}
        for word in dict.fromkeys(tokens(query)):
            postings = self._postings.get(word, [])
            idf = log(1 + (len(self.passages) - len(postings) + 0.5) / (len(postings) + 0.5))
            for number, frequency in postings:
                length = 1 - B + B * self._lengths[number] / self._mean
                scores[number] = scores.get(number, 0.0) + idf * frequency * (K1 + 1) / (frequency + K1 * length)
        best = nsmallest(count, scores.items(), key=lambda score: (-score[1], score[0]))
        return [self.passages[number] for number, _ in best]


@cache
def load_index(path: Path) -> BM25Index:
    """Read a corpus: rows with "text", or lines of text."""
    with open_input(str(path)) as file:
        documents = [row for row in Reader(str(path), file, DOCUMENTS).read() if isinstance(row, Document)]
    passages = [passage for one in documents for passage in passages_of(one.source_id or one.id, one.text)]
    if not passages:
        raise InputError(f"{path}: no text in it")
    return BM25Index(passages)
