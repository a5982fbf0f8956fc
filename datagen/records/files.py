"""Files as bytes: open an input, digest a file or folder, encode a row as a line, replace a file in one step."""

import json
import os
import sys
import tempfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

from datagen.errors import InputError
from datagen.records.record import Row, digest

BLOCK = 1 << 20
READABLE = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
LINE_BREAKS = str.maketrans({"\u2028": "\\u2028", "\u2029": "\\u2029", "\x85": "\\u0085"})
"""Characters that are legal in JSON strings, and that many readers take for line ends."""


def open_input(name: str) -> BinaryIO:
    """Open a file to read it several times; `-` is standard input, copied to a temporary file first.

    Raises:
        InputError: There is no such file, or it is a folder or cannot be read.
    """
    if name == "-":
        spool = tempfile.TemporaryFile()
        while block := sys.stdin.buffer.read(BLOCK):
            spool.write(block)
        spool.seek(0)
        return spool
    path = Path(name)
    if path.is_dir():
        raise InputError(f"{name}: is a folder; name a file in it")
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise InputError(f"{name}: no such file") from None
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error.strerror}") from error


def input_digest(file: BinaryIO) -> str:
    """Return the SHA-256 of an input's bytes, 64 hex digits."""
    file.seek(0)
    sha = sha256()
    while block := file.read(BLOCK):
        sha.update(block)
    return sha.hexdigest()


def content_digest(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder with the names and contents of all files in it."""
    if not path.is_dir():
        with open_input(str(path)) as file:
            return input_digest(file)
    files = (file for file in sorted(path.rglob("*")) if file.is_file())
    return digest([[str(file.relative_to(path)), content_digest(file)] for file in files])


def dump_line(row: Row) -> bytes:
    """Encode a row as one line of readable UTF-8, or of ASCII if it holds a lone surrogate."""
    text = READABLE(row).translate(LINE_BREAKS)
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(row, allow_nan=False).encode() + b"\n"


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace a JSON file in one step."""
    replace_file(path, json.dumps(value, indent=2, ensure_ascii=True).encode() + b"\n")


def replace_file(path: Path, data: bytes) -> None:
    """Replace a file in one step: whatever happens, it holds either its old content or all of `data`."""
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
