"""Near-duplicates among a million documents by MinHash (Broder 1997), as FineWeb does (arXiv 2406.17557, 3.4).

A text gets bands x rows hashes, each equal for two texts with the probability of their Jaccard similarity s, and is
found if all rows of any band agree: with probability 1 - (1 - s^rows)^bands. FineWeb's 14 x 8 over word 5-grams finds
56 % of the pairs at 0.7, 92 % at 0.8 and 98.8 % at 0.85; the curve is steepest at 0.72. What is missed is missed: for
prompts, of which a pool must be sure, novelty.py is exact. Hashes are those of rensa, of the extra `scale`.

Departure: there, a text under five words has no 5-gram and is never found. Here it is a shingle by itself; and PROMPT
shingles, of one to three words, are for texts of a sentence or two, where one changed word changes five 5-grams.
"""

from collections.abc import Iterable
from typing import Any

from datagen.errors import InputError
from datagen.filters.tokens import tokens

BANDS, ROWS = 14, 8
"""FineWeb: the curve is steepest at (1 / 14)^(1 / 8) = 0.72."""
DOCUMENT: tuple[int, ...] = (5,)
PROMPT: tuple[int, ...] = (1, 2, 3)
SEED = 1
"""Of the hash functions: the same answers in every run."""


class NearDuplicates:
    """Texts so far, numbered in the order in which they were added. InputError if rensa is not installed."""

    def __init__(self, sizes: tuple[int, ...] = DOCUMENT, bands: int = BANDS, rows: int = ROWS) -> None:
        self._rensa, self._sizes, self._hashes = _rensa(), sizes, bands * rows
        self._index = self._rensa.RMinHashLSH(0.5, self._hashes, bands)  # the first number serves is_similar() alone
        self._length = 0

    def add(self, text: str) -> int | None:
        """Append a text; return the place of the first earlier one that is like it, or None."""
        sketch = self._rensa.RMinHash(self._hashes, SEED)
        sketch.update(sorted(shingles(text, self._sizes)))
        like = min(self._index.query(sketch), default=None)
        self._index.insert(self._length, sketch)
        self._length += 1
        return like


def shingles(text: str, sizes: Iterable[int]) -> set[str]:
    """Return all runs of so many tokens; a text that is shorter than the shortest is one by itself."""
    found = tokens(text)
    runs = {" ".join(found[start : start + size]) for size in sizes for start in range(len(found) - size + 1)}
    return runs or {" ".join(found)}


def odds(jaccard: float, bands: int = BANDS, rows: int = ROWS) -> float:
    """Return the probability that two texts whose shingles have this Jaccard similarity find each other."""
    return 1 - (1 - jaccard**rows) ** bands


def _rensa() -> Any:
    try:
        import rensa
    except ModuleNotFoundError:
        message = "near-duplicates need the package rensa: pip install 'datagen-train[scale]'"
        raise InputError(message) from None
    return rensa
