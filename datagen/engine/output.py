"""The files of an output.

    x.jsonl             the rows              x.rejected.jsonl   rejected and failed rows, with the reason
    x.meta.json         how they were made; its presence marks a finished output
    .datagen/           the call journal

On every start, rows are written to x.jsonl.part from the first byte, since everything that was paid for is in the
journal. At the end the parts are moved to their places. Meanwhile x.meta.json has the status `writing`; its final
contents come last.

Rows that go to standard output are kept in .datagen/piped/ too, so nothing is lost in a pipe and `datagen trace` finds
them.
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
from datagen.records.files import dump_line, write_json
from datagen.records.record import ID_LENGTH, Row, digest

RAISABLE_LIMITS = ("n", "max_calls", "max_failed")
"""Limits that may be raised between two runs of one output."""


class Output:
    """The files of one run.

    Args:
        path: The file of rows.
        folder: The folder that holds the journal.
        piped: Whether the rows go to standard output as well.
    """

    def __init__(self, path: Path, folder: Path, *, piped: bool = False) -> None:
        self.path, self.folder, self.piped = path, folder, piped
        self.rejected_path = path.with_suffix(".rejected.jsonl")
        self.meta_path = path.with_suffix(".meta.json")
        self._parts: list[BinaryIO] = []
        self.rows = self.rejected_rows = 0
        """Lines written so far."""

    def is_finished(self, fingerprint: Row) -> bool:
        """Whether the command with this fingerprint has finished here before.

        Raises:
            InputError: The file was made by another command, or not by datagen.
        """
        meta = self.read_meta()
        if meta is None:
            return False
        earlier = meta["result"]["fingerprint"]
        if lines := differences(earlier, fingerprint):
            raise InputError(
                f"{self.path}: made by another command:\n  " + "\n  ".join(lines) + "\n"
                "Choose another name with -o, or add --overwrite (recorded answers are reused at no cost)."
            )
        return bool(earlier == fingerprint and meta["result"]["status"] == "finished" and self.path.exists())

    def read_meta(self) -> dict[str, Any] | None:
        """Return x.meta.json of an earlier run, or None if there was none.

        Raises:
            InputError: The file cannot be read, or x.jsonl exists without one.
        """
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

    @contextmanager
    def open_parts(self) -> Iterator[None]:
        """Hold the parts open for writing.

        Raises:
            DatagenError: Another process is writing this output.
        """
        try:
            if self.piped:
                journal_folder(self.folder)
                self.path.parent.mkdir(exist_ok=True)
            for path in (self.path, self.rejected_path):
                part: BinaryIO = open(f"{path}.part", "ab")
                try:
                    fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    part.close()
                    raise DatagenError(f"{path}: another run is writing it") from None
                part.truncate(0)
                self._parts.append(part)
            yield
        finally:
            for part in self._parts:
                part.close()

    def write_row(self, row: Row) -> None:
        """Write an accepted row."""
        self.rows += 1
        line = dump_line(row)
        self._parts[0].write(line)
        if self.piped:
            sys.stdout.buffer.write(line)

    def write_rejected(self, row: Row) -> None:
        """Write a rejected or failed row."""
        self.rejected_rows += 1
        self._parts[1].write(dump_line(row))

    def finish(self, meta: Mapping[str, Any]) -> None:
        """Move the parts to their places and write x.meta.json."""
        if self.piped:
            sys.stdout.buffer.flush()
        write_json(self.meta_path, {**meta, "result": {**meta["result"], "status": "writing"}})
        for part, path in zip(self._parts, (self.path, self.rejected_path), strict=True):
            part.flush()
            os.fsync(part.fileno())
            os.replace(part.name, path)
        write_json(self.meta_path, meta)


def named_output(path: Path) -> Output:
    """Return the output of a given name, which must end in .jsonl and be in an existing folder."""
    if path.suffix != ".jsonl":
        raise InputError(f"-o {path}: the name of an output ends in .jsonl")
    if not path.parent.is_dir():
        raise InputError(f"-o {path}: no such folder {path.parent}")
    return Output(path, path.parent)


def piped_output(command: str, fingerprint: Row) -> Output:
    """Return the output of a run that writes to standard output, kept under a name made of the fingerprint."""
    name = f"{command}-{digest(fingerprint)[:ID_LENGTH]}.jsonl"
    return Output(Path(JOURNAL_FOLDER, "piped", name), Path(), piped=True)


def differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """List the differences of two fingerprints, a line each; a raised limit is none."""
    changed = [
        f"{name}: {earlier.get(name)!r} then, {now.get(name)!r} now"
        for name in sorted(earlier.keys() | now.keys())
        if name not in RAISABLE_LIMITS and earlier.get(name) != now.get(name)
    ]
    unlimited = float("inf")
    for name in RAISABLE_LIMITS:
        before, after = earlier.get(name), now.get(name)
        if (unlimited if after is None else after) < (unlimited if before is None else before):
            changed.append(f"{name}: {before} then, {after} now (it can only be raised)")
    return changed
