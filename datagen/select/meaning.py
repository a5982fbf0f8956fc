"""Rows that mean the same: the cosine similarity of the vectors of their texts, exactly.

A row is dropped if its similarity to a row kept before it is at least the threshold. THRESHOLD is that of the repr
filter of Deita (Liu et al. 2024, arXiv 2312.15685), which takes rows in order and keeps one that is not too near to
those kept so far. SemDeDup (Abbas et al. 2023, arXiv 2303.09540) drops by the same measure within clusters, so it
misses pairs across them. Departure from both: every pair is compared.

Rows are decided in blocks: one product of matrices in float32 finds all pairs that may reach the threshold, and each
of these is computed in float64, so no decision depends on the blocks. The time is quadratic in the rows that are kept;
the memory is linear.
"""

import numpy as np
import numpy.typing as npt

from datagen.engine.method import PASSED, Verdict
from datagen.records.record import Row
from datagen.records.seen import short_digest
from datagen.select.novelty import FamilyOf, Novelty, seed_family
from datagen.select.vectors import EmbeddedRow, Vectors

THRESHOLD = 0.9
"""The cosine similarity from which a row is dropped: Deita, the repr filter."""
SIMILAR = "similar_meaning"
SLACK = 1e-4
"""How far a product in float32 may lie from the true one; with 4,096 numbers it is 1e-6."""
ROUNDING = 1e-9
DIGITS = 4
"""Of a similarity in a row: products of other batches of a model differ behind them."""


class Meaning:
    """A rule over rows, many at once: none has the words of an earlier one, or means the same.

    Args:
        kept: Where the vectors of the rows that it keeps lie.
        threshold: The cosine similarity from which a row is dropped.
        words: The rule about prompts in the same words. It decides first; what either rule drops, both forget.
        family_of: Returns the name of a row's family, with which it is not compared.
    """

    def __init__(self, kept: Vectors, threshold: float, words: Novelty, family_of: FamilyOf = seed_family) -> None:
        self._kept, self._threshold, self._words, self._family_of = kept, threshold, words, family_of
        self._families: list[int] = []
        self.ids: list[str] = []
        """Of the rows kept, as `kept` holds them."""

    def decide(self, rows: list[EmbeddedRow]) -> list[Verdict]:
        """Decide about the next rows, in order; each has a vector."""
        # 1. All pairs that may reach the threshold: with rows kept before this block, and within it.
        vectors = np.array([row.vector for row in rows])
        near: list[list[int]] = [[] for _ in rows]
        for start, block in self._kept.blocks():
            for place, number in self._pairs(block, vectors):
                near[number].append(start + place)
        within: list[list[int]] = [[] for _ in rows]
        for earlier, number in self._pairs(vectors, vectors):
            within[number].append(earlier)

        # 2. The rows in order: of those within the block, the ones that are kept count.
        verdicts, places = [], dict[int, int]()
        for number, row in enumerate(rows):
            others = near[number] + [places[earlier] for earlier in within[number] if earlier in places]
            verdict = self._verdict(row, vectors[number], others)
            if verdict.reason is None:
                places[number] = self._remember(row, vectors[number])
            verdicts.append(verdict)
        return verdicts

    def _pairs(self, left: npt.NDArray[np.float32], right: npt.NDArray[np.float32]) -> list[tuple[int, int]]:
        """Return all pairs of a vector of each side that may reach the threshold, by place, in order."""
        pairs: list[list[int]] = np.argwhere(left @ right.T >= self._threshold - SLACK).tolist()
        return [(place, number) for place, number in pairs]

    def _verdict(self, row: EmbeddedRow, vector: npt.NDArray[np.float32], others: list[int]) -> Verdict:
        """Decide about one row, by the places of the kept rows that may be too near."""
        if reason := self._words.objection(row):
            return Verdict(reason, {})
        family = short_digest(self._family_of(row))
        others = [place for place in others if self._families[place] != family]
        if not others:
            return PASSED
        similarities = cosines(self._kept.take(others), vector)
        nearest = int(similarities.argmax())
        if similarities[nearest] < self._threshold - ROUNDING:
            return PASSED
        return Verdict(SIMILAR, evidence_of(self.ids[others[nearest]], similarities[nearest]))

    def _remember(self, row: EmbeddedRow, vector: npt.NDArray[np.float32]) -> int:
        """Add a row to those that later ones are compared with; return its place."""
        self._words.remember(row)
        self._families.append(short_digest(self._family_of(row)))
        self.ids.append(str(row["id"]))
        return self._kept.add(vector)


def cosines(vectors: npt.NDArray[np.float64], vector: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return the cosine of a vector with each of some others, each computed by itself."""
    other = vector.astype(np.float64)
    lengths = np.sqrt((vectors * vectors).sum(axis=1) * (other * other).sum())
    similarities: npt.NDArray[np.float64] = (vectors * other).sum(axis=1) / lengths
    return similarities


def evidence_of(name: str, similarity: float) -> Row:
    """Return what a dropped row says of the kept one that is nearest."""
    return {"nearest": name, "similarity": round(float(similarity), DIGITS)}
