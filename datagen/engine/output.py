"""The files of an output.

    x.jsonl             the rows              x.rejected.jsonl   rejected and failed rows, with the reason
    x.meta.json         how they were made; its presence marks a finished output, and that the files are ours
    .datagen/           the call journal
    .datagen/parts/     the rows of a run that has not ended, each file under its own name with .part at its end

On every start, rows are written to the parts from the first byte, since everything that was paid for is in the journal.
At the end the parts are moved to their places. Meanwhile x.meta.json has the status `writing`; its final contents come
last. A symlink stays one: the file that it leads to is replaced, and its part lies in the .datagen/ of its folder.

A file that datagen did not make is never replaced, with --overwrite either. Nor is an output replaced by a run that
accounts for less (`accounts_for_less`): what is in place stays, and the parts stay beside it.

Rows that go to standard output are kept in .datagen/piped/ too, so nothing is lost in a pipe and `datagen trace` finds
them.
"""

import errno
import fcntl
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import copyfileobj
from typing import Any, BinaryIO

from datagen.errors import DatagenError, InputError
from datagen.llm.database import JOURNAL_FOLDER, journal_folder
from datagen.records.files import check_folder, dump_line, replacing, write_json
from datagen.records.places import real_path
from datagen.records.record import ID_LENGTH, Row, digest

JOURNAL_FILES = ("journal.sqlite3", "journal.sqlite3-wal", "journal.sqlite3-shm", "journal.new.sqlite3", "judges.json")
"""What lies in .datagen/ beside the parts."""
RAISABLE_LIMITS = ("n", "max_calls", "max_cost", "max_failed")
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
            InputError: The file was made by another command.
        """
        meta = self.read_meta()
        if meta is None:
            return False
        earlier = meta["result"]["fingerprint"]
        # An output without a row holds nothing to keep: it never blocks the corrected command.
        if self.has_rows and (lines := differences(earlier, fingerprint)):
            raise InputError(
                f"{self.path}: made by another command:\n  " + "\n  ".join(lines) + "\n"
                "Choose another name with -o, or add --overwrite (recorded answers are reused at no cost)."
            )
        return bool(earlier == fingerprint and meta["result"]["status"] == "finished" and self.path.exists())

    @property
    def label(self) -> str:
        """The file's name as text: one that is not UTF-8 is written with escapes."""
        return os.fsencode(self.path.name).decode(errors="backslashreplace")

    @property
    def has_rows(self) -> bool:
        """Whether the file of rows is in place and holds a row."""
        return self.path.exists() and self.path.stat().st_size > 0

    @property
    def has_lines(self) -> bool:
        """Whether a row or a rejected row is in place."""
        return self.has_rows or (self.rejected_path.exists() and self.rejected_path.stat().st_size > 0)

    def read_meta(self) -> Row | None:
        """Return x.meta.json of an earlier run, or None if there was none."""
        return None if self.piped else read_meta(self.meta_path)

    def refuse_strangers(self) -> None:
        """Raise InputError if a file has the name of one of the output's, and was not made by datagen."""
        if self.piped or self.read_meta() is not None:
            return
        for path in (self.path, self.rejected_path, self.meta_path):
            if path.exists():
                raise InputError(f"{path}: exists and was not made by datagen; choose another -o, or move it away")

    @property
    def touched(self) -> list[Path]:
        """Every file that a run writes or removes."""
        rows = [self.path, self.rejected_path]
        journal = (self.folder / JOURNAL_FOLDER / name for name in JOURNAL_FILES)
        streams = [Path("/dev/stdout")] if self.piped and Path("/dev/stdout").is_file() else []
        return [*rows, self.meta_path, *map(self.part_of, rows), *journal, *streams]

    def part_of(self, path: Path) -> Path:
        """Return where a file is written until the run ends."""
        place = real_path(path)
        folder = place.parent if self.piped else place.parent / JOURNAL_FOLDER / "parts"
        return folder / f"{place.name}.part"

    @contextmanager
    def open_parts(self) -> Iterator[None]:
        """Hold the parts open for writing.

        Raises:
            DatagenError: Another process is writing this output.
        """
        new_folders: list[Path] = []
        self._parts, self.rows, self.rejected_rows = [], 0, 0
        try:
            for path in (self.path, self.rejected_path):
                name = self.part_of(path)
                new_folders += [folder for folder in (name.parent, name.parents[1]) if not folder.exists()]
                journal_folder(self.folder if self.piped else name.parents[2])
                name.parent.mkdir(exist_ok=True)
                self._parts.append(open_locked(name, path))
            yield
        except BaseException:  # such as a mistake that ends the run at once: what was made for nothing is removed
            for part in self._parts:
                if is_in_place(part) and not part.tell():
                    os.unlink(part.name)
            for folder in new_folders:
                remove_unused(folder)
            raise
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

    def finish(self, meta: Mapping[str, Any], *, complete: bool) -> int | None:
        """Move the parts to their places and write x.meta.json, unless what is in place accounts for more.

        Args:
            meta: What x.meta.json is to hold.
            complete: Whether the run came to its end, and nothing has stopped it before.

        Returns:
            None, or the number of rows in place if they stay; then the parts stay as well.

        Raises:
            InputError: While the run lasted, somebody else made a file of one of these names.
        """
        if self.piped:
            sys.stdout.buffer.flush()
        self.refuse_strangers()
        earlier = self.read_meta()
        if earlier and self.path.exists() and accounts_for_less(meta["result"], earlier["result"], complete=complete):
            return int(earlier["result"]["funnel"]["kept"])
        write_json(self.meta_path, {**meta, "result": {**meta["result"], "status": "writing"}})
        for part, path in zip(self._parts, (self.path, self.rejected_path), strict=True):
            part.flush()
            os.fsync(part.fileno())
            put_in_place(part, real_path(path))
        write_json(self.meta_path, meta)
        return None


def accounts_for_less(result: Row, earlier: Row, *, complete: bool) -> bool:
    """Tell whether a run has less to show than the one whose output is in place, for no better reason than a failure.

    Fewer rows are right if the command has come to its end without a failure: another option or input wants fewer.

    Args:
        result: Of the run, as in x.meta.json.
        earlier: Of the run before.
        complete: Whether the run came to its end.
    """
    now, before = result["funnel"], earlier["funnel"]
    if now["kept"] >= before["kept"] and lines_of(now) >= lines_of(before):
        return False
    failed = sum(now["failed"].values())
    if complete and not failed:
        return False
    is_same = not differences(earlier["fingerprint"], result["fingerprint"])
    return is_same or not complete or failed > int(now["kept"])


def lines_of(funnel: Row) -> int:
    """Return the number of candidates and lines that a funnel accounts for."""
    return int(funnel["asked"]) + int(funnel["unreadable"])


def read_meta(path: Path) -> Row | None:
    """Return what an x.meta.json of datagen holds; None if there is no such file, or if it is somebody else's."""
    try:
        meta = json.loads(path.read_bytes())
        result, run = meta["result"], meta["run"]
        tables = [run, result["fingerprint"], *(result["funnel"][name] for name in ("rejected", "failed"))]
        numbers = [result["funnel"][name] for name in ("asked", "kept", "unreadable")]
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return None
    is_ours = all(isinstance(table, dict) for table in tables) and all(isinstance(number, int) for number in numbers)
    return meta if is_ours and isinstance(result.get("status"), str) else None


def open_locked(part: Path, path: Path) -> BinaryIO:
    """Open the part of a file, empty, and lock it; DatagenError if another process holds it."""
    while True:
        file: BinaryIO = open(part, "a+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            raise DatagenError(f"{path}: another run is writing it") from None
        if is_in_place(file):
            file.truncate(0)
            return file
        file.close()  # another run has moved it to its place meanwhile, where it must not be touched


def remove_unused(folder: Path) -> None:
    """Remove a folder unless something is in it, beside the .gitignore of a journal's folder."""
    if folder.is_dir() and {path.name for path in folder.iterdir()} <= {".gitignore"}:
        (folder / ".gitignore").unlink(missing_ok=True)
        with suppress(OSError):  # another run has made a file in it meanwhile
            folder.rmdir()


def is_in_place(file: BinaryIO) -> bool:
    """Does an open file still have the name under which it was opened?"""
    return os.path.exists(file.name) and os.path.samestat(os.fstat(file.fileno()), os.stat(file.name))


def put_in_place(part: BinaryIO, place: Path) -> None:
    """Move a part to its place; copy it where its name is gone, or where .datagen/ is on another file system."""
    if is_in_place(part):
        try:
            os.replace(part.name, place)
            return
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
    part.seek(0)
    with replacing(place) as file:
        copyfileobj(part, file)
    if is_in_place(part):
        os.unlink(part.name)


def named_output(path: Path) -> Output:
    """Return the output of a given name, which must end in .jsonl and be in an existing folder."""
    if path.suffix != ".jsonl":
        raise InputError(f"-o {path}: the name of an output ends in .jsonl")
    check_folder(path)
    return Output(path, path.parent)


def piped_output(command: str, fingerprint: Row) -> Output:
    """Return the output of a run that writes to standard output, kept under a name made of the fingerprint."""
    name = f"{command}-{digest(fingerprint)[:ID_LENGTH]}.jsonl"
    return Output(Path(JOURNAL_FOLDER, "piped", name), Path(), piped=True)


def differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """List the differences of two fingerprints, a line each; a raised limit is none.

    Of another command only the command is listed, and of a digest only that it differs: nobody can read more from it.
    """
    names = [
        name
        for name in sorted(earlier.keys() | now.keys())
        if name not in RAISABLE_LIMITS and earlier.get(name) != now.get(name)
    ]
    if "command" in names:
        names = ["command"]
    templates = [name.removeprefix("prompt ") for name in names if name.startswith("prompt ")]
    changed = [f"other prompt templates: {', '.join(templates)}"] if templates else []
    for name in (name for name in names if not name.startswith("prompt ")):
        before, after = earlier.get(name), now.get(name)
        is_content = is_digest(before) or is_digest(after)
        changed.append(f"{name}: other contents" if is_content else f"{name}: {before!r} then, {after!r} now")
    for name in RAISABLE_LIMITS:  # a share and a number are not compared
        before, after = earlier.get(name), now.get(name)
        if isinstance(before, float) == isinstance(after, float) and limit_of(after) < limit_of(before):
            changed.append(f"{name}: {before} then, {after} now (it can only be raised)")
    return changed


def job_digest(fingerprint: Row) -> str:
    """Return the digest of a command without the limits that may be raised."""
    return digest({name: value for name, value in fingerprint.items() if name not in RAISABLE_LIMITS})


def limit_of(value: object) -> float:
    """Return a limit as a number: none is no limit."""
    return float(value) if isinstance(value, int | float) else float("inf")


def is_digest(value: object) -> bool:
    """Is this value of a fingerprint the digest of a file or a template?"""
    return isinstance(value, str) and bool(re.fullmatch("[0-9a-f]{16,64}", value))
