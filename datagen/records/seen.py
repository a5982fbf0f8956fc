"""Sets of JSON values that keep a digest of each: for duplicates among millions of rows."""

from array import array
from collections.abc import Iterable
from hashlib import sha256

from datagen.records.record import canonical


class Seen:
    """A set of JSON values that keeps only a 64-bit digest of each, in 14 to 21 bytes; a Python set takes 80.

    The digests stand one after another; a table of slots, at most two thirds full, says where each one is.
    """

    def __init__(self, values: Iterable[object] = ()) -> None:
        self._digests, self._slots = array("Q"), empty_slots(1024)
        for value in values:
            self.add(value)

    def __contains__(self, value: object) -> bool:
        return bool(self._slots[self._slot(short_digest(value))])

    def add(self, value: object) -> bool:
        """Add a JSON value; return whether it is new."""
        return self.add_digest(short_digest(value))

    def add_digest(self, number: int) -> bool:
        """Add a value by 64 bits of its digest; return whether it is new."""
        slot = self._slot(number)
        if self._slots[slot]:
            return False
        self._digests.append(number)
        self._slots[slot] = len(self._digests)
        if 3 * len(self._digests) > 2 * len(self._slots):
            self._slots = empty_slots(2 * len(self._slots))
            for place, known in enumerate(self._digests, 1):
                self._slots[self._slot(known)] = place
        return True

    def _slot(self, number: int) -> int:
        """Return the slot that holds the place of a digest, counted from 1, or the empty one where it belongs."""
        slots, digests, mask = self._slots, self._digests, len(self._slots) - 1
        slot = number & mask
        while (place := slots[slot]) and digests[place - 1] != number:
            slot = (slot + 1) & mask
        return slot


class Numbered(Seen):
    """A set of JSON values that knows under which number each was added first, in 8 bytes more."""

    def __init__(self) -> None:
        super().__init__()
        self._numbers = array("Q")

    def first(self, value: object, number: int) -> int | None:
        """Add a JSON value under a number of 64 bits; return that of an equal one added before, if there is one."""
        name = short_digest(value)
        if place := self._slots[self._slot(name)]:
            return self._numbers[place - 1]
        self.add_digest(name)
        self._numbers.append(number)
        return None


def empty_slots(count: int) -> "array[int]":
    """Return a table of empty slots, a power of two of them."""
    return array("I", bytes(4 * count))


def short_digest(value: object) -> int:
    """Return 64 bits of a digest of a JSON value, never 0, which is no family of novelty.py.

    Texts, and those in a list, count as they are: to encode long ones in JSON takes longer than all else here.
    """
    sha = sha256(b"[" if isinstance(value, list) else b"")
    for part in value if isinstance(value, list) else [value]:
        kind, data = (b"t", part.encode(errors="surrogatepass")) if isinstance(part, str) else (b"j", canonical(part))
        sha.update(b"%b%d:%b" % (kind, len(data), data))
    return int.from_bytes(sha.digest()[:8]) or 1
