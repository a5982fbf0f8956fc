"""An output and what lies beside it.

    x.jsonl             the rows              x.rejected.jsonl   what was dropped or failed, with the reason
    x.meta.json         what made it: the mark of a finished output          .datagen/          the call journal

Rows go to x.jsonl.part from the first byte on every start, since everything that was paid for is in the journal; the
parts take their places at the end. x.meta.json says `writing` while they do, and comes last.
"""

import fcntl
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

from datagen.errors import DatagenError, InputError
from datagen.rows import Row

LINE_BREAKS = str.maketrans({"\u2028": "\\u2028", "\u2029": "\\u2029", "\x85": "\\u0085"})
"""Legal in JSON strings, and line ends to many readers."""
RAISED = ("n", "max_calls", "max_failed")
"""Limits that may grow between two runs of one output."""


def dump_line(row: Row) -> bytes:
    """Encode a row as one line: readable UTF-8; ASCII where it holds half a character."""
    text = json.dumps(row, ensure_ascii=False, allow_nan=False).translate(LINE_BREAKS)
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


class Output:
    """The files of one run, or standard output (`path` None), which has no files beside it."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.folder = path.parent if path else Path()
        self._parts: list[BinaryIO] = []
        self.rows = self.drops = 0
        """Lines written so far."""
        if path and path.suffix != ".jsonl":
            raise InputError(f"-o {path}: the name of an output ends in .jsonl")
        if path and not self.folder.is_dir():
            raise InputError(f"-o {path}: no such folder {self.folder}")

    @property
    def rejected_path(self) -> Path | None:
        return self.path.with_suffix(".rejected.jsonl") if self.path else None

    @property
    def meta_path(self) -> Path | None:
        return self.path.with_suffix(".meta.json") if self.path else None

    @property
    def is_there(self) -> bool:
        """Are the rows in place?"""
        return bool(self.path and self.path.exists())

    def earlier(self) -> dict[str, Any] | None:
        """Return what x.meta.json says of an earlier run; raise if x.jsonl is not ours."""
        if not self.path or not self.meta_path:
            return None
        if self.meta_path.exists():
            try:
                return dict(json.loads(self.meta_path.read_bytes()))
            except ValueError:
                raise InputError(f"{self.meta_path}: not readable; choose another -o, or --overwrite") from None
        if self.path.exists():
            raise InputError(f"{self.path}: exists and was not made by datagen; choose another -o, or --overwrite")
        return None

    @property
    def name(self) -> str:
        """What the output is called in its folder."""
        return self.path.name if self.path else "-"

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the parts open; refuse if another process does."""
        try:
            self._open_parts()
            yield
        finally:
            for part in self._parts:
                part.close()

    def _open_parts(self) -> None:
        if not self.path or not self.rejected_path:
            return
        for path in (self.path, self.rejected_path):
            part = open(_part(path), "ab")
            try:
                fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                part.close()
                raise DatagenError(f"{path}: another run is writing it") from None
            part.truncate(0)
            self._parts.append(part)

    def kept(self, row: Row) -> None:
        self.rows += 1
        if self._parts:
            self._parts[0].write(dump_line(row))
        else:
            sys.stdout.buffer.write(dump_line(row))

    def dropped(self, row: Row) -> None:
        """Write a rejected or failed row; beside standard output there is no place for it."""
        self.drops += 1
        if self._parts:
            self._parts[1].write(dump_line(row))

    def finish(self, meta: Mapping[str, Any]) -> None:
        """Put the files in place."""
        if not self.path or not self.rejected_path or not self.meta_path:
            sys.stdout.buffer.flush()
            return
        write_json(self.meta_path, {**meta, "result": {**meta["result"], "status": "writing"}})
        for part, path in zip(self._parts, (self.path, self.rejected_path), strict=True):
            part.flush()
            os.fsync(part.fileno())
            os.replace(_part(path), path)
        write_json(self.meta_path, meta)


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace a JSON file in one step."""
    part = _part(path)
    with part.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=2, ensure_ascii=True)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say what keeps this command from going on with an earlier output: anything but raised limits."""
    found = [
        f"{name}: {earlier.get(name)!r} then, {now.get(name)!r} now"
        for name in sorted(earlier.keys() | now.keys())
        if name not in RAISED and earlier.get(name) != now.get(name)
    ]
    return found + [
        f"{name}: {earlier.get(name)} then, {now.get(name)} now (it can only be raised)"
        for name in RAISED
        if _as_number(now.get(name)) < _as_number(earlier.get(name))
    ]


def _as_number(limit: int | None) -> float:
    return float("inf") if limit is None else limit
