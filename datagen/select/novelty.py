"""Is a text new? ROUGE-L against everything so far, exactly, a thousand times faster than rouge-score.

Self-Instruct (arXiv 2212.10560, section 2.2) keeps an instruction whose ROUGE-L F with every earlier one is at most
0.7. F is 2 L / (m + n) for texts of m and n tokens whose longest common subsequence has L of them. Nearly every pair
is settled without computing L: what one text has and the other has not cannot be in common. Each token of a text sets
one of its bits. Every bit in which two texts differ is a token of one that the other lacks, so

    F <= 1 - d / (m + n)    with d the number of bits that differ, or |m - n| if that is more.

numpy goes over 64 bits of every text, then over 256 bits of those that are left, and rapidfuzz computes L for the
last few. No decision is approximate, at a million texts neither. Departures: tokens in every script (see tokens.py),
and L only where F may exceed the threshold, so the ten nearest texts of a new one and their mean are not recorded.

The pool only grows. A view of how it stood earlier is its length at that time: `nearest(text, stop=length)` when a
call opens and `nearest(text, start=length)` when its answer is folded see together what one look at the end sees.
"""

import sys
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from rapidfuzz.distance import LCSseq
from rapidfuzz.process import cdist

from datagen.records.record import Row, Seen, Text, request_text
from datagen.text import exact_key, tokens

THRESHOLD = 0.7
"""ROUGE-L F above which a text is no longer new: Self-Instruct, section 2.2; Alpaca, too."""
WORDS = 4
"""64-bit words of a text's bits. One is enough for 20 tokens; with 100, nearly all of its bits are set."""
BLOCK = 1 << 14
"""Texts compared in one pass: their bits stay in the processor's cache."""
FIRST, GROWTH = 32, 4
"""Texts aligned in the first call, the most promising, and how many times as many in the next."""
ROUNDING = 1e-9
Encoded = str | list[int]
Bits = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]
Bounds = npt.NDArray[np.float64]
Number = TypeVar("Number", bound=np.generic)


class Match(NamedTuple):
    """A similar text of the pool: its ROUGE-L F, and its place in the pool."""

    score: float
    place: int


class Pool:
    """Texts so far, in the order in which they were added."""

    def __init__(self, threshold: float = THRESHOLD) -> None:
        self.threshold = threshold
        self._numbers: dict[str, int] = {}
        self._texts: list[Encoded] = []
        self._lengths: npt.NDArray[np.int32] = np.zeros(BLOCK, np.int32)
        self._folded: Bits = np.zeros((BLOCK, 1), np.uint64)
        self._bits: Bits = np.zeros((BLOCK, WORDS), np.uint64)

    def __len__(self) -> int:
        return len(self._texts)

    def add(self, text: str) -> int:
        """Append a text, new or not; return its place."""
        place, ids = len(self), self._ids(text)
        if place == len(self._lengths):
            self._lengths, self._folded, self._bits = _grown(self._lengths), _grown(self._folded), _grown(self._bits)
        self._texts.append(_encoded(ids))
        self._lengths[place], self._folded[place], self._bits[place] = len(ids), _bits(ids, 1), _bits(ids, WORDS)
        return place

    def is_novel(self, text: str, start: int = 0, stop: int | None = None) -> bool:
        """Tell whether no text of pool[start:stop] has a ROUGE-L F above the threshold."""
        return self._search(text, start, stop, self.threshold, any_will_do=True) is None

    def nearest(
        self, text: str, start: int = 0, stop: int | None = None, *, above: float | None = None
    ) -> Match | None:
        """Return the most similar text of pool[start:stop], the first of equals; None if no F is above the threshold.

        `above` takes the place of the threshold; 0.0 finds the nearest text at any distance, which is far slower.
        """
        return self._search(text, start, stop, self.threshold if above is None else above)

    def _search(
        self, text: str, start: int, stop: int | None, floor: float, *, any_will_do: bool = False
    ) -> Match | None:
        ids = self._ids(text)
        places, bounds = self._within_reach(ids, range(len(self))[start:stop], floor)
        best: Match | None = None
        begin, count = 0, FIRST
        while begin < len(places) and not (best and (any_will_do or bounds[begin] < best.score - ROUNDING)):
            found = self._align(ids, places[begin : begin + count])
            if found.score > floor and (best is None or (-found.score, found.place) < (-best.score, best.place)):
                best = found
            begin, count = begin + count, count * GROWTH
        return best

    def _ids(self, text: str) -> list[int]:
        return [self._numbers.setdefault(token, len(self._numbers)) for token in tokens(text)]

    def _within_reach(self, ids: list[int], view: range, floor: float) -> tuple[Places, Bounds]:
        """Return the places of all texts whose F may exceed the floor, the most promising first, and their bounds."""
        folded, bits, slack = _bits(ids, 1), _bits(ids, WORDS), 1 - floor + ROUNDING
        places, bounds = [np.zeros(0, np.int64)], [np.zeros(0)]
        for begin in range(view.start, view.stop, BLOCK):
            block = slice(begin, min(begin + BLOCK, view.stop))
            differing = np.bitwise_count(self._folded[block, 0] ^ folded)
            near = begin + np.flatnonzero(differing <= slack * (self._lengths[block] + len(ids)))
            bound = self._bound(near, bits, len(ids))
            places.append(near[bound >= 1 - slack])
            bounds.append(bound[bound >= 1 - slack])
        order = np.argsort(-np.concatenate(bounds), kind="stable")
        return np.concatenate(places)[order], np.concatenate(bounds)[order]

    def _bound(self, places: Places, bits: Bits, length: int) -> Bounds:
        """Return what F with each of these texts cannot exceed."""
        lengths = self._lengths[places]
        differing = np.bitwise_count(self._bits[places] ^ bits).sum(axis=1, dtype=np.int32)
        bound: Bounds = 1 - np.maximum(differing, np.abs(lengths - length)) / np.maximum(lengths + length, 1)
        return bound

    def _align(self, ids: list[int], places: Places) -> Match:
        """Return the most similar of these texts."""
        texts = [self._texts[place] for place in places]
        (common,) = cdist([_encoded(ids)], texts, scorer=LCSseq.similarity, dtype=np.uint32)
        scores = 2 * common / np.maximum(self._lengths[places] + len(ids), 1)
        return Match(float(scores.max()), int(places[scores == scores.max()].min()))


class Novelty:
    """A rule over rows: no prompt equals an earlier one or is like it."""

    def __init__(self, threshold: float, asked: Callable[[Text], str] = request_text) -> None:
        """`asked` tells what of a prompt counts; a threshold of 1 drops equal ones alone."""
        self._exact, self._pool = Seen(), Pool(threshold)
        self._threshold, self._asked = threshold, asked

    def drops(self, row: Row) -> str | None:
        text = self._asked(row["prompt"])
        if not self._exact.add(exact_key(text)):
            return "duplicate"
        if self._threshold < 1 and not self._pool.is_novel(text):
            return "similar"
        self._pool.add(text)
        return None


def _encoded(ids: list[int]) -> Encoded:
    """Write each token as one character, which rapidfuzz reads fastest; numbers beyond the last one stay numbers."""
    return "".join(map(chr, ids)) if max(ids, default=0) <= sys.maxunicode else ids


def _bits(ids: list[int], words: int) -> Bits:
    bits = 0
    for number in ids:
        bits |= 1 << number % (64 * words)
    return np.frombuffer(bits.to_bytes(8 * words, "little"), np.uint64)


def _grown(array: npt.NDArray[Number]) -> npt.NDArray[Number]:
    return np.concatenate([array, np.zeros_like(array)])
