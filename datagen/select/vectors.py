"""Rows with the vectors of their texts, and the vectors of all rows kept so far."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from datagen.llm.vectors import Vector

BLOCK = 4096
"""Vectors that lie together: no array is copied as their number grows."""
Places = Sequence[int] | npt.NDArray[np.int64]


class EmbeddedRow(dict[str, Any]):
    """A row with the vector of its text, which no file holds; None once it lies elsewhere."""

    vector: Vector | None

    def __init__(self, row: dict[str, Any], vector: Vector) -> None:
        super().__init__(row)
        self.vector = vector


class Vectors:
    """Vectors of length 1 in the order in which they were added, 4 bytes a number."""

    def __init__(self) -> None:
        self._blocks: list[npt.NDArray[np.float32]] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, place: int) -> Vector:
        vector: Vector = self._blocks[place // BLOCK][place % BLOCK]
        return vector

    def add(self, vector: Vector) -> int:
        """Append a vector; return its place."""
        place = self._count
        if place % BLOCK == 0:
            self._blocks.append(np.zeros((BLOCK, len(vector)), np.float32))
        self._blocks[-1][place % BLOCK] = vector
        self._count += 1
        return place

    def blocks(self) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Yield the place of the first vector of each block, and its vectors, vectors x numbers."""
        for start, block in zip(range(0, self._count, BLOCK), self._blocks, strict=True):
            yield start, block[: self._count - start]

    def take(self, places: Places) -> npt.NDArray[np.float64]:
        """Return the vectors at some places, places x numbers."""
        return np.array([self[int(place)] for place in places], np.float64)
