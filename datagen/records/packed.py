"""Packed files, .gz and .zst: unpacked as they are read, so no more of them than a line is in memory."""

import gzip
import io
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple

from datagen.errors import InputError
from datagen.libraries import import_data

BLOCK = 1 << 18
MOST_COPIED = 1 << 30
"""Bytes of the largest table that is unpacked to a temporary file: Parquet and Arrow are not read in order."""
NOT_IN_ORDER = (b"PAR1", b"ARROW1")


class Packing(NamedTuple):
    """A way to pack a file."""

    start: bytes
    ending: str
    open: Callable[[str, BinaryIO], Any]
    """Returns what is read from, from the start of the packed file."""


class Stream(io.RawIOBase):
    """Base of a source that is read in order and counts how far, in `_place`; a subclass seeks and reads."""

    _place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place


class Borrowed(io.RawIOBase):
    """A file that stays open when its reader is closed, which pyarrow does with whatever it reads."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def open_gzip(name: str, file: BinaryIO) -> Any:
    return gzip.GzipFile(fileobj=file, mode="rb")


def open_zstd(name: str, file: BinaryIO) -> Any:
    arrow = import_data("pyarrow", f"{name}: to read .zst")
    return arrow.CompressedInputStream(arrow.PythonFile(Borrowed(file), mode="r"), "zstd")


PACKINGS = (Packing(b"\x1f\x8b", ".gz", open_gzip), Packing(b"\x28\xb5\x2f\xfd", ".zst", open_zstd))


class Unpacked(Stream):
    """The content of a packed file, read in order; seeking begins again at the start.

    Raises:
        InputError: When it is read, that the file is damaged or cut off.
    """

    def __init__(self, name: str, file: BinaryIO, packing: Packing) -> None:
        self._name, self._file, self._packing = name, file, packing
        self._stream: Any = None

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET or offset < self._place or self._stream is None:
            if whence != io.SEEK_SET:
                raise io.UnsupportedOperation("a packed file has no known end")
            self._file.seek(0)
            self._stream, self._place = self._packing.open(self._name, self._file), 0
        while self._place < offset and self.read(min(BLOCK, offset - self._place)):
            pass
        return self._place

    def readinto(self, buffer: Any) -> int:
        if self._stream is None:
            self.seek(0)
        try:
            data = self._stream.read(len(buffer))
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{self._name}: damaged or cut off ({error}); pack it again") from error
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)


@contextmanager
def unpacked(name: str, file: BinaryIO) -> Iterator[tuple[str, BinaryIO]]:
    """Give the name of a file and the file, or if it is packed the name of its content and that.

    Raises:
        InputError: It is damaged, packed twice, or a large table.
    """
    packing = packing_of(file)
    if packing is None:
        yield name, file
        return
    inner = name[: -len(packing.ending)] if name.lower().endswith(packing.ending) else name
    content = io.BufferedReader(Unpacked(name, file, packing), BLOCK)
    if packing_of(content):
        raise InputError(f"{name}: packed twice; unpack it once")
    content.seek(0)
    if not content.read(6).startswith(NOT_IN_ORDER):
        yield inner, content
        return
    content.seek(0)
    with tempfile.TemporaryFile() as spool:
        copy(name, content, spool)
        yield inner, spool


def packing_of(file: BinaryIO) -> Packing | None:
    """Return how a file is packed; None if it is not."""
    file.seek(0)
    head = file.read(4)
    return next((packing for packing in PACKINGS if head.startswith(packing.start)), None)


def copy(name: str, content: BinaryIO, spool: BinaryIO) -> None:
    """Copy the content of a packed file to a temporary file; InputError if it is a large one."""
    size = 0
    while block := content.read(BLOCK):
        size += spool.write(block)
        if size > MOST_COPIED:
            raise InputError(f"{name}: unpacks to more than {MOST_COPIED >> 30} GiB; unpack it first")
