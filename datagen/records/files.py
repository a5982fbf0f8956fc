"""Files as bytes: open an input, digest a file or folder, encode a row as a line, replace a file in one step."""

import io
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cache
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from shutil import copyfileobj
from typing import Any, BinaryIO, cast

from datagen.errors import InputError
from datagen.records.folders import ManyFiles, files_of, folder_and_split
from datagen.records.hub import HubRows, hub_stem, is_on_hub, open_hub
from datagen.records.places import real_path
from datagen.records.record import Row, digest

BLOCK = 1 << 20
READABLE = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False).encode
UNSAFE = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Characters that are legal in JSON strings, and that many readers take for line ends, or that a terminal obeys."""


class SteadyFile(io.RawIOBase):
    """A file that is read several times: InputError if it is read to its end and is not what it was the first time.

    Args:
        name: Its name, for the message.
        file: The open file, without a buffer.
        digests: What each file was the first time, by name; it is added to.
    """

    def __init__(self, name: str, file: io.FileIO, digests: dict[str, bytes]) -> None:
        self._name, self._file, self._digests = name, file, digests
        self._sha, self._from_start = sha256(), True

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(buffer) or 0
        self._sha.update(memoryview(buffer)[:count])
        if not count and self._from_start:
            now = self._sha.digest()
            if self._digests.setdefault(self._name, now) != now:
                raise InputError(f"{self._name}: was changed while it was read; run the command again")
        return count

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        position = self._file.seek(offset, whence)
        self._sha, self._from_start = sha256(), position == 0
        return position

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()
        super().close()


def open_input(name: str) -> BinaryIO:
    """Open an input to read it several times: a file, a folder, a data set of the hub, or `-` for standard input.

    Standard input and pipes are copied to a temporary file first. What is returned for a folder or a data set of the
    hub holds no bytes of its own: `records.kinds` reads its rows.

    Raises:
        InputError: There is no such input, or it cannot be read; when it is read, that it was changed since it was read
            before.
    """
    if name == "-":
        spool = tempfile.TemporaryFile()
        copyfileobj(sys.stdin.buffer, spool, BLOCK)
        spool.seek(0)
        return spool
    if is_on_hub(name):
        return open_hub(name)
    digests: dict[str, bytes] = {}
    if folder := folder_and_split(name):
        files = ManyFiles(files_of(*folder), lambda file: open_file(file, digests))
        return cast(BinaryIO, files)
    return open_file(name, digests)


def open_file(name: str, digests: dict[str, bytes] | None = None) -> BinaryIO:
    """Open a file or a pipe to read it several times; for `digests` see `SteadyFile`, for the errors `open_input`."""
    path = Path(name)
    if path.is_dir():
        raise InputError(f"{name}: is a folder; name a file in it")
    try:
        if path.is_fifo():
            status = path.stat()
            return open(pipe_contents(name, status.st_dev, status.st_ino).name, "rb")
        return io.BufferedReader(SteadyFile(name, io.FileIO(path), {} if digests is None else digests), BLOCK)
    except FileNotFoundError:
        raise InputError(f"{name}: no such file{nearest(path, Path.is_file)}") from None
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error.strerror}") from error


def output_stem(name: str) -> str:
    """Return what the name of an output begins with: that of its input, without folders and endings."""
    folder, split = folder_and_split(name) or (None, "")
    if folder is not None:
        return "-".join(filter(None, (folder.resolve().name or "input", split)))
    if is_on_hub(name):
        return hub_stem(name)
    path = Path(name)
    return Path(path.stem).stem if path.suffix.lower() in (".gz", ".zst") else path.stem


@cache
def pipe_contents(name: str, device: int, inode: int) -> Any:
    """Copy what comes out of a pipe, such as <(...) of a shell, to a temporary file: a pipe can be read only once."""
    spool = tempfile.NamedTemporaryFile()
    with open(name, "rb") as pipe:
        copyfileobj(pipe, spool, BLOCK)
    spool.flush()
    return spool


def nearest(path: Path, is_kind: Callable[[Path], bool]) -> str:
    """Return a hint at what lies beside a path that does not exist, under a name like its own; empty if nothing."""
    names = [other.name for other in path.parent.iterdir() if is_kind(other)] if path.parent.is_dir() else []
    near = get_close_matches(path.name, names, 1, cutoff=0.75)
    return f" (there is {path.parent / near[0]})" if near else ""


def check_folder(output: Path) -> None:
    """Raise InputError if the folder of an output does not exist, or that of the file that a symlink leads to."""
    for folder in (output.parent, real_path(output).parent):
        if not folder.is_dir():
            raise InputError(f"-o {output}: no such folder {folder}")


def input_digest(file: BinaryIO) -> str:
    """Return the SHA-256 of an input's bytes, 64 hex digits; of a data set of the hub, that of its name and commit."""
    source = getattr(file, "raw", file)
    if isinstance(source, ManyFiles | HubRows):
        return source.digest()
    file.seek(0)
    sha = sha256()
    while block := file.read(BLOCK):
        sha.update(block)
    return sha.hexdigest()


def content_digest(path: Path | str) -> str:
    """Return the SHA-256 of a file, or of a folder with the names and contents of all files in it."""
    folder = Path(path)
    if not folder.is_dir():
        with open_input(str(path)) as file:
            return input_digest(file)
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return digest([[str(file.relative_to(folder)), content_digest(file)] for file in files])


def dump_line(row: Row) -> bytes:
    """Encode a row as one line of readable UTF-8, or of ASCII if it holds a lone surrogate."""
    text = READABLE(row)
    if "\x7f" in text or not text.isascii():  # both are known at once, and most rows are ASCII
        text = UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(row, allow_nan=False).encode() + b"\n"


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace a JSON file in one step."""
    replace_file(path, json.dumps(value, indent=2, ensure_ascii=True).encode() + b"\n")


def replace_file(path: Path, data: bytes) -> None:
    """Replace a file in one step: whatever happens, it holds either its old content or all of `data`."""
    with replacing(path) as file:
        file.write(data)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a new file, under a name that nobody else has; at the end it takes the place of `path`.

    A symlink stays one: the file that it leads to is replaced.
    """
    place = real_path(path)
    part = place.with_name(f".{token_hex(8)}.part")
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, place)
    finally:
        part.unlink(missing_ok=True)
