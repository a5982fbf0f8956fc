"""An output and what lies beside it.

    x.jsonl             the rows              x.rejected.jsonl   what was dropped or failed, with the reason
    x.meta.json         what made it: the mark of a finished output          .datagen/          the call journal

Rows go to x.jsonl.part from the first byte on every start, since everything that was paid for is in the journal; the
parts take their places at the end. x.meta.json says `writing` while they do, and comes last.

What goes to standard output is kept as well, in .datagen/piped/: in a pipe nothing disappears either, and
`datagen trace` finds it.
"""

import fcntl
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from datagen.errors import DatagenError, InputError
from datagen.llm.journal import JOURNAL_FOLDER, journal_folder
from datagen.records.files import dump_line, part_path, write_json
from datagen.records.record import ID_LENGTH, Row, digest

RAISED = ("n", "max_calls", "max_failed")
"""Limits that may grow between two runs of one output."""


class Output:
    """The files of one run; `piped`, its rows go to standard output too."""

    def __init__(self, path: Path, folder: Path, *, piped: bool = False) -> None:
        """`folder` is where the journal lies."""
        self.path, self.folder, self.piped = path, folder, piped
        self._parts: list[BinaryIO] = []
        self.rows = self.drops = 0
        """Lines written so far."""

    @property
    def rejected_path(self) -> Path:
        return self.path.with_suffix(".rejected.jsonl")

    @property
    def meta_path(self) -> Path:
        return self.path.with_suffix(".meta.json")

    @property
    def is_there(self) -> bool:
        """Are the rows in place?"""
        return self.path.exists()

    def earlier(self) -> dict[str, Any] | None:
        """Return what x.meta.json says of an earlier run; raise if x.jsonl is not ours."""
        if self.piped:
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
        return self.path.name

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
        if self.piped:
            journal_folder(self.folder)
            self.path.parent.mkdir(exist_ok=True)
        for path in (self.path, self.rejected_path):
            part = open(part_path(path), "ab")
            try:
                fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                part.close()
                raise DatagenError(f"{path}: another run is writing it") from None
            part.truncate(0)
            self._parts.append(part)

    def kept(self, row: Row) -> None:
        self.rows += 1
        line = dump_line(row)
        self._parts[0].write(line)
        if self.piped:
            sys.stdout.buffer.write(line)

    def dropped(self, row: Row) -> None:
        """Write a rejected or failed row."""
        self.drops += 1
        self._parts[1].write(dump_line(row))

    def finish(self, meta: Mapping[str, Any]) -> None:
        """Put the files in place."""
        if self.piped:
            sys.stdout.buffer.flush()
        write_json(self.meta_path, {**meta, "result": {**meta["result"], "status": "writing"}})
        for part, path in zip(self._parts, (self.path, self.rejected_path), strict=True):
            part.flush()
            os.fsync(part.fileno())
            os.replace(part_path(path), path)
        write_json(self.meta_path, meta)


def named_output(path: Path) -> Output:
    """Return the output of a name that the user gave."""
    if path.suffix != ".jsonl":
        raise InputError(f"-o {path}: the name of an output ends in .jsonl")
    if not path.parent.is_dir():
        raise InputError(f"-o {path}: no such folder {path.parent}")
    return Output(path, path.parent)


def piped_output(command: str, fingerprint: Row) -> Output:
    """Return the output of a run that writes to standard output, kept under a name that says what made it."""
    name = f"{command}-{digest(fingerprint)[:ID_LENGTH]}.jsonl"
    return Output(Path(JOURNAL_FOLDER, "piped", name), Path(), piped=True)


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
