"""Sets of JSON values that keep a digest of each: for duplicates among millions of rows."""

from array import array
from collections.abc import Iterable
from hashlib import sha256

from datagen.records.record import canonical


class Seen:
    """A set of JSON values that keeps only a 64-bit digest of each, in 16 to 32 bytes; a Python set takes 80."""

    def __init__(self, values: Iterable[object] = ()) -> None:
        self._slots = array("Q", bytes(8 * 1024))
        self._count = 0
        for value in values:
            self.add(value)

    def __contains__(self, value: object) -> bool:
        return bool(self._slots[self._place(short_digest(value))])

    def add(self, value: object) -> bool:
        """Add a JSON value; return whether it is new."""
        return self.add_digest(short_digest(value))

    def add_digest(self, number: int) -> bool:
        """Add a value by 64 bits of its digest, not 0; return whether it is new."""
        place = self._place(number)
        if self._slots[place]:
            return False
        self._slots[place] = number
        self._count += 1
        if 2 * self._count > len(self._slots):
            old, self._slots = self._slots, array("Q", bytes(16 * len(self._slots)))
            for number in filter(None, old):
                self._slots[self._place(number)] = number
        return True

    def _place(self, number: int) -> int:
        """Return the place of a digest, or the empty one where it belongs."""
        slots, mask = self._slots, len(self._slots) - 1
        place = number & mask
        while slots[place] and slots[place] != number:
            place = (place + 1) & mask
        return place


class Numbered(Seen):
    """A set of JSON values that knows under which number each was added first, in 8 bytes more for a slot."""

    def __init__(self) -> None:
        super().__init__()
        self._numbers = array("Q", bytes(8 * len(self._slots)))

    def first(self, value: object, number: int) -> int | None:
        """Add a JSON value under a number of 64 bits; return that of an equal one added before, if there is one."""
        name = short_digest(value)
        if self._slots[place := self._place(name)]:
            return self._numbers[place]
        before = self._slots, self._numbers
        self.add_digest(name)
        if len(self._slots) > len(before[0]):
            self._numbers = array("Q", bytes(8 * len(self._slots)))
            for old, known in zip(*before, strict=True):
                if old:
                    self._numbers[self._place(old)] = known
        self._numbers[self._place(name)] = number
        return None


def short_digest(value: object) -> int:
    """Return 64 bits of a digest of a JSON value, never 0.

    Texts, and those in a list, count as they are: to encode long ones in JSON takes longer than all else here.
    """
    sha = sha256(b"[" if isinstance(value, list) else b"")
    for part in value if isinstance(value, list) else [value]:
        kind, data = (b"t", part.encode(errors="surrogatepass")) if isinstance(part, str) else (b"j", canonical(part))
        sha.update(b"%b%d:%b" % (kind, len(data), data))
    return int.from_bytes(sha.digest()[:8]) or 1
