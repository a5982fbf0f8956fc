"""The most diverse rows: a set to which every other row is near.

k-Center-Greedy (Sener & Savarese 2018, arXiv 1708.00489, algorithm 1; Gonzalez 1985): the next row is the one whose
nearest chosen row is farthest. The largest distance of any row to the chosen ones is then at most twice the least that
a choice of as many rows can have. Departures: the first row is the one nearest to the mean of all, so the choice
depends on the order of the rows in ties alone; and there is no outlier search, so a stray row is chosen early.

Each chosen row is compared with all rows. The pass over the vectors is what takes the time, so AHEAD rows that are
likely to be chosen next are compared in one; a row that was not foreseen costs a pass of its own.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from datagen.engine.method import PASSED, Verdict
from datagen.errors import DatagenError
from datagen.select.meaning import Meaning, cosines, evidence_of
from datagen.select.vectors import EmbeddedRow, Vectors

NOT_DIVERSE = "not_diverse"
BLOCK = 256
"""Rows that are compared at once."""


AHEAD = 32
"""Rows that are compared with all others in one pass, 4 bytes for each pair."""


class Choice(NamedTuple):
    """Which rows were chosen."""

    places: list[int]
    """In the order in which they were chosen."""
    nearest: npt.NDArray[np.int64]
    """For every row, the place of the chosen one that is nearest; the first of equals."""


class Selection:
    """The rules that compare vectors; they live in the fold.

    Args:
        kept: Where the vectors of the rows lie that `meaning` keeps.
        meaning: The rule about rows that mean the same. None: there is none.
        most: How many rows to keep, the most diverse ones. None: all.
    """

    def __init__(self, kept: Vectors, meaning: Meaning | None, most: int | None) -> None:
        self._kept, self._meaning, self._most = kept, meaning, most
        self._ids: list[str] = [] if meaning is None else meaning.ids
        self._waiting: list[EmbeddedRow] = []
        self._verdicts: list[Verdict] = []
        self._numbers = 0

    def add(self, row: EmbeddedRow) -> None:
        """Take the next row.

        Raises:
            DatagenError: Its vector has another length than those before it.
        """
        assert row.vector is not None
        self._numbers = self._numbers or len(row.vector)
        if len(row.vector) != self._numbers:
            raise DatagenError(
                f"row {row['id']}: its vector has {len(row.vector)} numbers, and those before it {self._numbers}. They "
                "cannot be compared: is the same model at every address, and still the one of the first run? If it is "
                "another one, give it a tag: --embedder NAME#2@URL"
            )
        self._waiting.append(row)

    def decided(self, *, is_last: bool) -> list[Verdict]:
        """Return what is decided about the next rows, in their order; at the end, about all of them."""
        if len(self._waiting) < BLOCK and not is_last:
            return []
        rows, self._waiting = self._waiting, []
        verdicts = self._compare(rows) if rows else []
        for row in rows:
            row.vector = None
        if self._most is None:
            return verdicts
        self._verdicts += verdicts
        return self._choose(self._most) if is_last else []

    def _compare(self, rows: list[EmbeddedRow]) -> list[Verdict]:
        """Decide which of some rows mean the same as earlier ones."""
        if self._meaning is not None:
            return self._meaning.decide(rows)
        for row in rows:
            assert row.vector is not None
            self._kept.add(row.vector)
            self._ids.append(str(row["id"]))
        return [PASSED] * len(rows)

    def _choose(self, most: int) -> list[Verdict]:
        """Drop all rows but the most diverse ones, now that all of them are known."""
        if len(self._kept) <= most:
            return self._verdicts
        choice = farthest_first(self._kept, most)
        chosen, places, verdicts = set(choice.places), iter(range(len(self._kept))), []
        for verdict in self._verdicts:
            place = next(places) if verdict.reason is None else None
            verdicts.append(verdict if place is None or place in chosen else self._not_chosen(place, choice))
        return verdicts

    def _not_chosen(self, place: int, choice: Choice) -> Verdict:
        nearest = int(choice.nearest[place])
        (similarity,) = cosines(self._kept.take([nearest]), self._kept[place])
        return Verdict(NOT_DIVERSE, evidence_of(self._ids[nearest], similarity))


def farthest_first(vectors: Vectors, most: int) -> Choice:
    """Choose rows one after another, each the farthest from those chosen before; the first of equals.

    Args:
        vectors: Of all rows, of length 1: the largest distance is the least cosine.
        most: How many rows to choose, fewer than there are.
    """
    # 1. The first: the one nearest to the mean.
    mean = sum((block.sum(axis=0, dtype=np.float64) for _, block in vectors.blocks()), np.zeros(len(vectors[0])))
    place = int(products(vectors, mean.astype(np.float32)[None])[0].argmax())

    # 2. The others. A row knows its nearest chosen one; a chosen row is never the farthest again.
    closest = np.full(len(vectors), -np.inf, np.float32)
    nearest = np.zeros(len(vectors), np.int64)
    places: list[int] = []
    ahead: dict[int, npt.NDArray[np.float32]] = {}
    while True:
        places.append(place)
        if place not in ahead:
            foreseen = [place, *np.argpartition(closest, min(AHEAD, len(closest) - 1))[:AHEAD].tolist()]
            ahead = dict(zip(foreseen, products(vectors, vectors.take(foreseen).astype(np.float32)), strict=True))
        similarities = ahead[place]
        is_nearer = similarities > closest
        closest[is_nearer], nearest[is_nearer] = similarities[is_nearer], place
        closest[place] = np.inf
        if len(places) == most:
            return Choice(places, nearest)
        place = int(closest.argmin())


def products(vectors: Vectors, others: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the dot products of some vectors, others x numbers, with all of them: others x vectors."""
    return np.concatenate([others @ block.T for _, block in vectors.blocks()], axis=1)
