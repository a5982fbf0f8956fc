"""How alike the rows of a sample are, to each other and to their seeds: ROUGE-L and distinct n-grams.

ROUGE-L F is 2 L / (m + n) for texts of m and n tokens whose longest common subsequence has L, with the tokens of
text.py, as in novelty.py. Only the first MOST_TOKENS of a text are compared. The shares of distinct n-grams (Li et al.
2016, arXiv 1510.03055) fall with the size of the sample, so they are compared between samples of one size.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from rapidfuzz.distance import LCSseq
from rapidfuzz.process import cdist

from datagen.records.record import Row
from datagen.report.rows import texts_of
from datagen.select.novelty import encode, seed_family
from datagen.text import ngram_hashes, tokens

MOST_TOKENS = 400
NEAR = 0.7
"""ROUGE-L F above which Self-Instruct calls a text no longer new."""
Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Similarity:
    """The figures of a sample."""

    size: int
    distinct: Mapping[int, float | None]
    """n to the share of n-grams of the prompts that are different ones."""
    nearest: Scores
    """For each prompt, the ROUGE-L F with the most similar one of another family."""
    to_seed: Scores
    """For each prompt whose seed is known, the ROUGE-L F with it."""


class Vocabulary:
    """Texts as numbers, which rapidfuzz compares fastest."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def encode(self, words: Sequence[str]) -> Any:
        return encode([self._numbers.setdefault(word, len(self._numbers)) for word in words[:MOST_TOKENS]])


def measure(rows: Sequence[Row], seeds: Mapping[str, Row]) -> Similarity:
    """Measure a sample.

    Args:
        rows: The rows of the sample.
        seeds: The rows that they descend from, by id, as far as they are known.
    """
    texts = [texts_of(row)[0][1] for row in rows]
    words = [tokens(text) for text in texts]
    vocabulary = Vocabulary()
    encoded = [vocabulary.encode(some) for some in words]
    pairs = [
        (one, vocabulary.encode(tokens(texts_of(seed)[0][1])))
        for one, row in zip(encoded, rows, strict=True)
        if (seed := seeds.get(seed_of(row))) and texts_of(seed)
    ]
    return Similarity(
        len(rows),
        {n: distinct_share(words, n) for n in (1, 2)},
        nearest_others(encoded, [family_of(row) for row in rows]),
        np.array([rouge_l(one, other) for one, other in pairs]),
    )


def seed_of(row: Row) -> str:
    """Return the id of the seed of a row, "" if it names none."""
    meta = row.get("meta")
    return str(meta.get("seed_id") or "") if isinstance(meta, dict) else ""


def rouge_l(one: Sequence[Any], other: Sequence[Any]) -> float:
    return 2 * float(LCSseq.similarity(one, other)) / max(len(one) + len(other), 1)


def nearest_others(encoded: Sequence[Any], families: Sequence[str]) -> Scores:
    """Return for each text its ROUGE-L F with the most similar one of another family, if there is one."""
    if len(set(families)) < 2:
        return np.zeros(0)
    lengths, names = np.array([len(text) for text in encoded]), np.array(families)
    common = cdist(encoded, encoded, scorer=LCSseq.similarity, dtype=np.uint32)
    scores = 2 * common / np.maximum(lengths[:, None] + lengths[None, :], 1)
    scores[names[:, None] == names[None, :]] = -1
    nearest: Scores = scores.max(axis=1)
    return nearest


def family_of(row: Row) -> str:
    """Return the name of the family of a row, as `filter --dedup` sees it: what descends from one seed."""
    meta = row.get("meta")
    return seed_family({"id": str(row.get("id")), "meta": meta if isinstance(meta, dict) else {}})


def distinct_share(words: Sequence[Sequence[str]], n: int) -> float | None:
    """Return the share of n-grams that are different ones; None if there are none."""
    grams = [gram for text in words for gram in ngram_hashes(text, n)]
    return len(set(grams)) / len(grams) if grams else None
