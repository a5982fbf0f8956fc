"""An order of rows in which a batch holds rows of about the same length, so that little of it is padding.

The library's sampler draws from the random state of the process, which a resumed run does not have at the start of its
epoch. This order depends on the seed and the epoch alone.
"""

from collections.abc import Iterator, Sequence
from random import Random

from torch.utils.data import Sampler

POOL = 50
"""Batches whose rows are sorted together; more would make the batches of an epoch less random."""


class LengthGroups(Sampler[int]):
    """Yields the indices of all rows once, in batches of rows of about the same length.

    Args:
        lengths: Tokens of each row.
        batch_size: Rows of a batch.
        seed: Of the order, together with the epoch.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths, self._batch_size, self._seed, self._epoch = lengths, batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch; the library calls this."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        chance, size = Random(f"{self._seed}:{self._epoch}:lengths"), self._batch_size
        rows = list(range(len(self._lengths)))
        chance.shuffle(rows)
        pools = (rows[start : start + POOL * size] for start in range(0, len(rows), POOL * size))
        ordered = [row for pool in pools for row in sorted(pool, key=lambda row: -self._lengths[row])]
        batches = [ordered[start : start + size] for start in range(0, len(ordered), size)]
        last = batches.pop() if len(ordered) % size else []  # an incomplete batch anywhere else would shift the others
        chance.shuffle(batches)
        yield from (row for batch in [*batches, last] for row in batch)
