"""Files as bytes: open an input, its digest, a row as a line, replace a file in one step."""

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

READABLE = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


LINE_BREAKS = str.maketrans({"\u2028": "\\u2028", "\u2029": "\\u2029", "\x85": "\\u0085"})
"""Legal in JSON strings, and line ends to many readers."""


def dump_line(row: Row) -> bytes:
    """Encode a row as one line: readable UTF-8; ASCII where it holds half a character."""
    text = READABLE(row).translate(LINE_BREAKS)
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(row, allow_nan=False).encode() + b"\n"


def open_input(name: str) -> BinaryIO:
    """Open a file, or standard input (`-`), read to its end, so that it can be gone through again."""
    if name == "-":
        spool = tempfile.TemporaryFile()
        while block := sys.stdin.buffer.read(1 << 20):
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
    """Name the bytes of an input."""
    file.seek(0)
    sha = sha256()
    while block := file.read(1 << 20):
        sha.update(block)
    return sha.hexdigest()


def content_digest(path: Path) -> str:
    """Name a file, or a folder with all that lies in it, by its bytes."""
    if not path.is_dir():
        with open_input(str(path)) as file:
            return input_digest(file)
    files = (each for each in sorted(path.rglob("*")) if each.is_file())
    return digest([[str(each.relative_to(path)), content_digest(each)] for each in files])


def part_path(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace a JSON file in one step."""
    write_whole(path, json.dumps(value, indent=2, ensure_ascii=True).encode() + b"\n")


def write_whole(path: Path, data: bytes) -> None:
    """Replace a file in one step: it holds all of this, or what it held before."""
    part = part_path(path)
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
