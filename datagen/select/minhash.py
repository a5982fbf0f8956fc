"""Near-duplicates among a million documents by MinHash (Broder 1997), as FineWeb does (arXiv 2406.17557, 3.4).

A text gets bands x rows hashes. Each is equal for two texts with a probability of their Jaccard similarity s, and two
texts match if all rows of any band agree: with probability 1 - (1 - s^rows)^bands. FineWeb's 14 x 8 over word 5-grams
finds 56 % of the pairs at 0.7, 92 % at 0.8 and 98.8 % at 0.85; the curve is steepest at 0.72. Some pairs are missed;
for prompts, where none may be, novelty.py is exact.

Departure: in FineWeb a text under five words has no 5-gram and never matches. Here it is a shingle by itself; and
PROMPT shingles, of one to three words, are for texts of a sentence or two, where one changed word changes five 5-grams.
"""

from collections.abc import Iterable
from hashlib import blake2b
from random import Random

import numpy as np
import numpy.typing as npt

from datagen.text import tokens

BANDS, ROWS = 14, 8
"""FineWeb: the curve is steepest at (1 / 14)^(1 / 8) = 0.72."""
DOCUMENT: tuple[int, ...] = (5,)
PROMPT: tuple[int, ...] = (1, 2, 3)
SEED = 1
"""Of the hash functions: the same matches in every run."""
Hashes = npt.NDArray[np.uint64]


class NearDuplicates:
    """Texts so far, numbered in the order in which they were added; about 2 kB each.

    Args:
        sizes: The lengths of shingles, in tokens.
        bands: Bands of hashes; two texts match if any band agrees.
        rows: Hashes in each band.
    """

    def __init__(self, sizes: tuple[int, ...] = DOCUMENT, bands: int = BANDS, rows: int = ROWS) -> None:
        random = Random(SEED)
        self._sizes, self._shape = sizes, (bands, rows)
        self._factors, self._summands = (
            np.array([random.getrandbits(64) | odd for _ in range(bands * rows)], np.uint64) for odd in (1, 0)
        )
        self._first: list[dict[int, int]] = [{} for _ in range(bands)]
        self._length = 0

    def add(self, text: str) -> int | None:
        """Append a text; return the place of the first earlier text that matches it, or None."""
        place = self._length
        self._length += 1
        # 1. The signature: the least value of each hash function over all shingles. Products wrap around at 64 bits.
        digests = (
            blake2b(shingle.encode("utf-8", "surrogatepass"), digest_size=8).digest()
            for shingle in shingles(text, self._sizes)
        )
        hashed = np.frombuffer(b"".join(digests), "<u8")
        signature: Hashes = (hashed[:, None] * self._factors + self._summands).min(axis=0)
        # 2. The first text with the same band, for each band.
        bands = signature.reshape(self._shape)
        earliest = min(
            first.setdefault(hash(band.tobytes()), place) for first, band in zip(self._first, bands, strict=True)
        )
        return earliest if earliest < place else None


def shingles(text: str, sizes: Iterable[int]) -> set[str]:
    """Return all runs of `sizes` tokens; a text shorter than the shortest is one shingle by itself."""
    words = tokens(text)
    runs = {" ".join(words[start : start + size]) for size in sizes for start in range(len(words) - size + 1)}
    return runs or {" ".join(words)}
