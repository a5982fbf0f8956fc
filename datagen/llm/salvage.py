"""Read the replies in a damaged journal: every row that is whole, whatever the rest of the file says.

SQLite gives up a table where one page above its rows is damaged. The rows themselves lie in the leaves of a tree, and
each leaf can be read alone. So all pages of the file are looked at, and those of its write-ahead log; a page that is
no leaf, and a row that is not whole, are passed over. The form is that of https://www.sqlite.org/fileformat2.html,
sections 1.6 (leaves and overflow pages), 2.1 (records) and 4.1 (the log).
"""

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PAGE = 4096
"""Bytes of a page; the journal is made with this size."""
FILE_HEADER, LOG_HEADER, FRAME_HEADER = 100, 32, 24
"""Bytes before the content of the first page, before the first frame of the log, and before the page of a frame."""
TABLE_LEAF = 0x0D
MOST_LOCAL, LEAST_LOCAL = PAGE - 35, (PAGE - 12) * 32 // 255 - 23
"""Bytes of a record that stay in its leaf; the rest is in a chain of overflow pages."""
KEY_BYTES = 32
INTEGER_BYTES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8, 8: 0, 9: 0}
"""The serial types of whole numbers; 8 and 9 are 0 and 1."""


class SavedRow(NamedTuple):
    """A row of the table of replies."""

    number: int
    key: bytes
    attempt: int
    status: int
    body: bytes


class Pages:
    """The pages of a database file, by number from 1; a page in the log replaces that in the file."""

    def __init__(self, path: Path) -> None:
        self._file, self._log = map_file(path), map_file(path.with_name(f"{path.name}-wal"))
        self._in_log: dict[int, int] = {}
        """Page number to where its newest image in the log begins."""
        self._log_starts = []
        for start in range(LOG_HEADER, len(self._log) - FRAME_HEADER - PAGE + 1, FRAME_HEADER + PAGE):
            if self._log[start + 8 : start + 16] != self._log[16:24]:
                break  # the salts differ: a frame of an earlier log
            self._in_log[integer(self._log, start, 4)] = start + FRAME_HEADER
            self._log_starts.append(start + FRAME_HEADER)

    def images(self) -> Iterator[bytes]:
        """Yield every image of a page: all of the log, the newest first, and all of the file."""
        for start in reversed(self._log_starts):
            yield self._log[start : start + PAGE]
        for start in range(0, len(self._file), PAGE):
            yield self._file[start : start + PAGE]

    def page(self, number: int) -> bytes:
        """Return the newest image of a page; raise ValueError if there is none."""
        if number in self._in_log:
            start = self._in_log[number]
            return self._log[start : start + PAGE]
        page = self._file[(number - 1) * PAGE : number * PAGE] if number > 0 else b""
        if len(page) != PAGE:
            raise ValueError(f"no page {number}")
        return page

    @property
    def size(self) -> int:
        """Bytes of the file and its log: no record is longer."""
        return len(self._file) + len(self._log)


def map_file(path: Path) -> bytes | mmap.mmap:
    """Return the contents of a file, which may be larger than the memory; nothing if it does not exist."""
    if not path.exists() or not path.stat().st_size:
        return b""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def read_rows(path: Path) -> Iterator[SavedRow]:
    """Yield the rows of the table of replies that are whole; a row that lies in two images is yielded twice."""
    pages = Pages(path)
    for image in pages.images():
        if not image or image[0] != TABLE_LEAF:
            continue
        for place in range(integer(image, 3, 2)):
            try:
                yield read_row(pages, image, integer(image, 8 + 2 * place, 2))
            except (ValueError, IndexError):
                continue  # it is damaged, or of another table


def read_row(pages: Pages, leaf: bytes, at: int) -> SavedRow:
    """Read the row whose cell begins at a place in a leaf. Raises ValueError or IndexError if it is not whole."""
    # 1. The length of the record, and the number of the row.
    length, at = variable_integer(leaf, at)
    number, at = variable_integer(leaf, at)
    if length > pages.size:
        raise ValueError("too long")

    # 2. The record: its beginning is in the leaf, the rest in a chain of pages.
    local = length
    if length > MOST_LOCAL:
        local = LEAST_LOCAL + (length - LEAST_LOCAL) % (PAGE - 4)
        local = LEAST_LOCAL if local > MOST_LOCAL else local
    pieces, have = [leaf[at : at + local]], local
    following = integer(leaf, at + local, 4) if local < length else 0
    while have < length:
        page = pages.page(following)
        pieces.append(page[4:])
        following, have = integer(page, 0, 4), have + PAGE - 4
    record = b"".join(pieces)[:length]

    # 3. Its columns: key, attempt, status, body.
    header, at = variable_integer(record, 0)
    types = []
    while at < header:
        kind, at = variable_integer(record, at)
        types.append(kind)
    if len(types) != 4 or types[0] != 12 + 2 * KEY_BYTES or types[3] < 13 or types[3] % 2 == 0:
        raise ValueError("no reply")
    key, at = record[at : at + KEY_BYTES], at + KEY_BYTES
    numbers = []
    for kind in types[1:3]:
        if kind not in INTEGER_BYTES:
            raise ValueError("no number")
        numbers.append(kind - 8 if kind >= 8 else integer(record, at, INTEGER_BYTES[kind]))
        at += INTEGER_BYTES[kind]
    body = record[at:]
    if len(body) != (types[3] - 13) // 2:
        raise ValueError("cut")
    return SavedRow(number, key, numbers[0], numbers[1], body)


def integer(data: bytes | mmap.mmap, start: int, size: int) -> int:
    """Return an unsigned integer; raise IndexError if the data end before it does."""
    if start < 0 or start + size > len(data):
        raise IndexError("beyond the end")
    return int.from_bytes(data[start : start + size], "big")


def variable_integer(data: bytes, at: int) -> tuple[int, int]:
    """Return an integer of 1 to 9 bytes, 7 bits in each but the ninth, and where it ends."""
    value = 0
    for place in range(at, at + 8):
        value = value << 7 | data[place] & 0x7F
        if data[place] < 0x80:
            return value, place + 1
    return value << 8 | data[at + 8], at + 9
