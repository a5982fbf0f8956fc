"""Is a text new? ROUGE-L against all earlier texts, exactly, a thousand times faster than rouge-score.

Self-Instruct (arXiv 2212.10560, section 2.2) keeps an instruction whose ROUGE-L F with every earlier one is at most
0.7. F is 2 L / (m + n) for texts of m and n tokens whose longest common subsequence has L tokens. Nearly every pair is
decided without L: a token that only one of the texts has cannot be in common. Each token of a text sets one of its
bits. Every bit in which two texts differ is a token that one has and the other lacks, so

    F <= 1 - d / (m + n)    with d the number of bits that differ, or |m - n| if that is more.

numpy compares 64 bits of every text, then 256 bits of the remaining ones, and rapidfuzz computes L for the last few.
Every decision is exact, also with a million texts. Departures: tokens in every script (see text.py), and L only where
F may exceed the threshold, so the ten nearest texts of a new one and their mean are not recorded.

The pool only grows. An earlier state is its length at that time: `nearest(text, stop=length)` when a call starts and
`nearest(text, start=length)` when its answer is folded together compare the text with the whole pool.
"""

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from rapidfuzz.distance import LCSseq
from rapidfuzz.process import cdist

from datagen.records.record import Row, Text, request_text
from datagen.records.seen import Seen, short_digest
from datagen.select.minhash import NearDuplicates
from datagen.text import exact_key, tokens

THRESHOLD = 0.7
"""ROUGE-L F above which a text is no longer new: Self-Instruct, section 2.2; Alpaca, too."""
WORDS = 4
"""64-bit words of a text's bits. One is enough for 20 tokens; with 100, nearly all of its bits are set."""
BLOCK = 1 << 14
"""Texts compared in one pass, so that their bits stay in the processor's cache."""
FIRST, GROWTH = 32, 4
"""Texts in the first call of rapidfuzz, those with the highest bounds, and the factor for the next call."""
ROUNDING = 1e-9
ANSWERS = ("response", "responses", "chosen", "rejected")
"""The columns of a row that hold its answers, whatever its kind."""
LARGE_POOL = 1_000_000
"""Texts from which on a run says how long they take to be compared."""
SECONDS_PER_TEXT = 3.7e-9
"""Of the processor, to compare a new text with one of a pool: measured with a million (docs/novelty.md)."""
NO_FAMILY = 0
"""The family number of a text that is compared with all others."""
Encoded = str | list[int]
Bits = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]
FamilyOf = Callable[[Row], str]
"""Returns the name of a row's family."""


class Match(NamedTuple):
    """A similar text of the pool: its ROUGE-L F, and its place in the pool."""

    score: float
    place: int


class Pool:
    """Texts so far, in the order in which they were added.

    Args:
        threshold: The ROUGE-L F above which a text is not new, from 0 to 1.
    """

    def __init__(self, threshold: float = THRESHOLD) -> None:
        self.threshold = threshold
        self._numbers: dict[str, int] = {}
        self._texts: list[Encoded] = []
        self._lengths: npt.NDArray[np.int32] = np.zeros(BLOCK, np.int32)
        self._families: npt.NDArray[np.uint64] = np.zeros(BLOCK, np.uint64)
        self._short_bits: Bits = np.zeros((BLOCK, 1), np.uint64)
        self._bits: Bits = np.zeros((BLOCK, WORDS), np.uint64)

    def __len__(self) -> int:
        return len(self._texts)

    def add(self, text: str, family: int = NO_FAMILY) -> int:
        """Append a text, new or not; return its place. `family` is the number of the texts that it belongs to."""
        place, ids = len(self), self._token_ids(text)
        if place == len(self._lengths):
            self._lengths, self._families = doubled(self._lengths), doubled(self._families)
            self._short_bits, self._bits = doubled(self._short_bits), doubled(self._bits)
        self._texts.append(encode(ids))
        self._lengths[place], self._families[place] = len(ids), family
        self._short_bits[place], self._bits[place] = bits(ids, 1), bits(ids, WORDS)
        return place

    def is_novel(self, text: str, start: int = 0, stop: int | None = None, *, family: int = NO_FAMILY) -> bool:
        """Return whether no text of pool[start:stop] has a ROUGE-L F above the threshold; those of `family` may."""
        return self._search(text, start, stop, self.threshold, family, any_match=True) is None

    def nearest(
        self, text: str, start: int = 0, stop: int | None = None, *, above: float | None = None
    ) -> Match | None:
        """Return the most similar text of pool[start:stop], the first of equals; None if no F is above the threshold.

        `above` replaces the threshold; 0.0 finds the nearest text at any distance, which is far slower.
        """
        return self._search(text, start, stop, self.threshold if above is None else above)

    def _token_ids(self, text: str) -> list[int]:
        return [self._numbers.setdefault(token, len(self._numbers)) for token in tokens(text)]

    def _search(
        self,
        text: str,
        start: int,
        stop: int | None,
        floor: float,
        family: int = NO_FAMILY,
        *,
        any_match: bool = False,
    ) -> Match | None:
        """Return the most similar text with an F above the floor, or with `any_match` any; none of `family`."""
        ids = self._token_ids(text)
        places, bounds = self._bounded(ids, range(len(self))[start:stop], floor)
        if family != NO_FAMILY:
            others = self._families[places] != family
            places, bounds = places[others], bounds[others]
        best: Match | None = None
        begin, count = 0, FIRST
        while begin < len(places) and not (best and (any_match or bounds[begin] < best.score - ROUNDING)):
            chunk = places[begin : begin + count]
            texts = [self._texts[place] for place in chunk]
            (common,) = cdist([encode(ids)], texts, scorer=LCSseq.similarity, dtype=np.uint32)
            scores = 2 * common / np.maximum(self._lengths[chunk] + len(ids), 1)
            match = Match(float(scores.max()), int(chunk[scores == scores.max()].min()))
            if match.score > floor and (best is None or (-match.score, match.place) < (-best.score, best.place)):
                best = match
            begin, count = begin + count, count * GROWTH
        return best

    def _bounded(self, ids: list[int], view: range, floor: float) -> tuple[Places, Scores]:
        """Return the places of all texts whose F may exceed the floor, and its upper bounds, the highest first."""
        short_bits, all_bits, slack = bits(ids, 1), bits(ids, WORDS), 1 - floor + ROUNDING
        places, bounds = [np.zeros(0, np.int64)], [np.zeros(0)]
        for begin in range(view.start, view.stop, BLOCK):
            # 1. By 64 bits of every text.
            block = slice(begin, min(begin + BLOCK, view.stop))
            differing = np.bitwise_count(self._short_bits[block, 0] ^ short_bits)
            near = begin + np.flatnonzero(differing <= slack * (self._lengths[block] + len(ids)))
            # 2. By 256 bits of the remaining ones, and by the lengths.
            lengths = self._lengths[near]
            differing = np.bitwise_count(self._bits[near] ^ all_bits).sum(axis=1, dtype=np.int32)
            distance = np.maximum(differing, np.abs(lengths - len(ids)))
            bound = 1 - distance / np.maximum(lengths + len(ids), 1)
            places.append(near[bound >= 1 - slack])
            bounds.append(bound[bound >= 1 - slack])
        order = np.argsort(-np.concatenate(bounds), kind="stable")
        return np.concatenate(places)[order], np.concatenate(bounds)[order]


def itself(row: Row) -> str:
    """Return the family of a row that is compared with all others: its own id."""
    return str(row["id"])


def seed_family(row: Row) -> str:
    """Return the id of the seed that a row descends from: `meta.seed_id` or its only parent, else its own id."""
    meta = row["meta"]
    parents = meta.get("parents") or []
    return str(meta.get("seed_id") or (parents[0] if len(parents) == 1 else row["id"]))


class Novelty:
    """A rule over rows: no prompt equals an earlier one, or is a near-duplicate of it.

    A row is compared with the rows of other families. Of its own family, only a row with the same prompt and the same
    answers drops it.

    Args:
        threshold: The ROUGE-L F above which a prompt is dropped; 1 drops only exact duplicates.
        text_of: Returns the part of a prompt that is compared.
        family_of: Returns the name of a row's family. By default each row is a family of its own.
    """

    def __init__(
        self,
        threshold: float,
        text_of: Callable[[Text], str] = request_text,
        family_of: FamilyOf = itself,
    ) -> None:
        self._exact, self._pool = Seen(), Pool(threshold) if threshold < 1 else None
        self._text_of, self._family_of = text_of, family_of

    def drops(self, row: Row) -> str | None:
        reason = self.objection(row)
        if reason is None:
            self.remember(row)
        return reason

    def objection(self, row: Row) -> str | None:
        """Return the reason to drop a row, and forget it."""
        if "prompt" not in row:
            return None  # a document
        text, key, family = self._keys(row)
        # Accepted rows with the same prompt are all of one family: this one, or another.
        if [key, family, answers_of(row)] in self._exact or (key in self._exact and [key, family] not in self._exact):
            return "duplicate"
        if self._pool is not None and not self._pool.is_novel(text, family=short_digest(family)):
            return "similar"
        return None

    def remember(self, row: Row) -> None:
        """Add a row to those that later ones are compared with."""
        if "prompt" in row:
            text, key, family = self._keys(row)
            for value in (key, [key, family], [key, family, answers_of(row)]):
                self._exact.add(value)
            if self._pool is not None:
                self._pool.add(text, short_digest(family))

    def _keys(self, row: Row) -> tuple[str, str, str]:
        """Return the text that is compared, its exact key, and the family of a row."""
        text = self._text_of(row["prompt"])
        return text, exact_key(text), self._family_of(row)


def scan_notice(texts: int) -> str | None:
    """Say how long it takes to compare so many texts with each other; None for fewer than LARGE_POOL."""
    if texts < LARGE_POOL:
        return None
    last = texts * SECONDS_PER_TEXT
    return (
        f"Each prompt is compared with all kept before it, up to {texts:,}: about {1000 * last:.1f} ms for the last "
        f"ones, {texts * last / 2 / 3600:,.1f} hours of a processor in all. docs/novelty.md says how to divide the work"
    )


def answers_of(row: Row) -> list[object]:
    """Return the answers of a row of any kind, as they stand in its columns."""
    return [row.get(name) for name in ANSWERS]


class NewDocuments:
    """A rule over documents: no text equals an earlier one, or is a near-duplicate of it.

    Texts of a thousand words have nearly all bits of the exact search in common, so MinHash compares them.

    Args:
        threshold: 1 drops only exact duplicates; below, the curve of FineWeb decides (minhash.py), whatever the value.
    """

    def __init__(self, threshold: float) -> None:
        self._exact, self._near = Seen(), NearDuplicates() if threshold < 1 else None

    def drops(self, row: Row) -> str | None:
        if "prompt" in row:
            return None
        if not self._exact.add(exact_key(row["text"])):
            return "duplicate"
        return "similar" if self._near and self._near.add(row["text"]) is not None else None

    def remember(self, row: Row) -> None:
        """Add a document to those that later ones are compared with."""
        self.drops(row)


def doubled(column: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return an array of twice the length; the new half is zeros."""
    return np.concatenate([column, np.zeros_like(column)])


def encode(ids: list[int]) -> Encoded:
    """Write each token as one character, which rapidfuzz reads fastest; beyond the last character, as numbers."""
    return "".join(map(chr, ids)) if max(ids, default=0) <= sys.maxunicode else ids


def bits(ids: list[int], words: int) -> Bits:
    """Set one of 64 * words bits for each token."""
    number = 0
    for token in ids:
        number |= 1 << token % (64 * words)
    return np.frombuffer(number.to_bytes(8 * words, "little"), np.uint64)
