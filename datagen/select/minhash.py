"""Near-duplicates among a million documents by MinHash (Broder 1997), as FineWeb does (arXiv 2406.17557, 3.4).

A text gets bands x rows hashes, each equal for two texts with the probability of their Jaccard similarity s, and is
found if all rows of any band agree: with probability 1 - (1 - s^rows)^bands. FineWeb's 14 x 8 over word 5-grams finds
56 % of the pairs at 0.7, 92 % at 0.8 and 98.8 % at 0.85; the curve is steepest at 0.72. What is missed is missed: for
prompts, of which a pool must be sure, novelty.py is exact.

Departure: there, a text under five words has no 5-gram and is never found. Here it is a shingle by itself; and PROMPT
shingles, of one to three words, are for texts of a sentence or two, where one changed word changes five 5-grams.
"""

import random
from collections.abc import Iterable
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from datagen.text import tokens

BANDS, ROWS = 14, 8
"""FineWeb: the curve is steepest at (1 / 14)^(1 / 8) = 0.72."""
DOCUMENT: tuple[int, ...] = (5,)
PROMPT: tuple[int, ...] = (1, 2, 3)
SEED = 1
"""Of the hash functions: the same answers in every run."""
Hashes = npt.NDArray[np.uint64]


class NearDuplicates:
    """Texts so far, numbered in the order in which they were added; about 2 kB each."""

    def __init__(self, sizes: tuple[int, ...] = DOCUMENT, bands: int = BANDS, rows: int = ROWS) -> None:
        chance = random.Random(SEED)
        self._sizes, self._shape = sizes, (bands, rows)
        self._factors, self._summands = (
            np.array([chance.getrandbits(64) | odd for _ in range(bands * rows)], np.uint64) for odd in (1, 0)
        )
        self._first: list[dict[int, int]] = [{} for _ in range(bands)]
        self._length = 0

    def add(self, text: str) -> int | None:
        """Append a text; return the place of the first earlier one that is like it, or None."""
        place = self._length
        self._length += 1
        bands = self._sketch(shingles(text, self._sizes)).reshape(self._shape)
        like = min(
            first.setdefault(hash(band.tobytes()), place) for first, band in zip(self._first, bands, strict=True)
        )
        return like if like < place else None

    def _sketch(self, found: set[str]) -> Hashes:
        """Return the least value of each hash function over all shingles; products wrap around at 64 bits."""
        hashed = np.frombuffer(
            b"".join(blake2b(shingle.encode("utf-8", "surrogatepass"), digest_size=8).digest() for shingle in found),
            "<u8",
        )
        least: Hashes = (hashed[:, None] * self._factors + self._summands).min(axis=0)
        return least


def shingles(text: str, sizes: Iterable[int]) -> set[str]:
    """Return all runs of so many tokens; a text that is shorter than the shortest is one by itself."""
    found = tokens(text)
    runs = {" ".join(found[start : start + size]) for size in sizes for start in range(len(found) - size + 1)}
    return runs or {" ".join(found)}


def odds(jaccard: float, bands: int = BANDS, rows: int = ROWS) -> float:
    """Return the probability that two texts whose shingles have this Jaccard similarity find each other."""
    return 1 - (1 - jaccard**rows) ** bands
