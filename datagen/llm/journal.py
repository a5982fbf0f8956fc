"""The record of every answer paid for: SQLite beside the outputs, shared by all of them.

A run is a replay: every command starts from the first row and finds here what was answered before, so resuming,
raising a cap and adding a row need no code of their own. Raw replies are kept, never verdicts on them: a changed
parser or filter sees them again for free.

Commits come from a timer in the event loop, one for all answers of COMMIT_EVERY seconds; an answer is handed on
after its commit. There is no writer thread: it would fight the loop for the interpreter lock. WAL with synchronous
NORMAL is safe against kill -9; a power cut may lose the last commits (those calls are sent again), never the file.
"""

import asyncio
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from datagen.errors import DatagenError
from datagen.llm.call import Call, Layer, Reply

JOURNAL_FOLDER = ".datagen"
"""Holds the journal, and what went to standard output."""
COMMIT_EVERY = 0.01
"""Seconds."""
BUSY_TIMEOUT = 30.0
"""Seconds to wait for another process that is writing."""
SCHEMA = """
CREATE TABLE IF NOT EXISTS replies (
    key BLOB NOT NULL, attempt INTEGER NOT NULL, status INTEGER NOT NULL, body TEXT NOT NULL,
    UNIQUE (key, attempt));
CREATE TABLE IF NOT EXISTS runs (output TEXT PRIMARY KEY, in_flight INTEGER NOT NULL);
"""
Waiting = tuple[bytes, int, Reply, "asyncio.Future[Reply]"]


class Journal:
    """A layer that answers from the record, and records what the layers below answer."""

    def __init__(self, folder: Path, below: Mapping[str, Layer]) -> None:
        """`below` maps a model's identity to what sends its calls."""
        self._below = below
        self._flights: dict[tuple[bytes, int], asyncio.Future[Reply]] = {}
        self._pending: list[Waiting] = []
        self._timer: asyncio.TimerHandle | None = None
        self._run: tuple[str, Callable[[], int]] | None = None
        self._noted = 0
        self.replayed = 0
        self._db = open_database(folder)
        self._newest_old = self._db.execute("SELECT coalesce(max(rowid), 0) FROM replies").fetchone()[0]

    async def send(self, call: Call) -> Reply:
        """Look up, else join an equal call under way, else send and record."""
        if (reply := self._find(call.key, call.attempt)) is not None:
            self.replayed += 1
            return reply
        name = (call.key, call.attempt)
        if (flight := self._flights.get(name)) is None:
            flight = self._flights[name] = asyncio.ensure_future(self._fetch(call))
            flight.add_done_callback(lambda _: self._flights.pop(name))
        return await asyncio.shield(flight)

    async def _fetch(self, call: Call) -> Reply:
        reply = await self._below[call.model].send(call)
        done: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._pending.append((call.key, call.attempt, reply, done))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(COMMIT_EVERY, self._commit)
        return await done

    def _find(self, key: bytes, attempt: int) -> Reply | None:
        query = "SELECT status, body, rowid FROM replies WHERE key = ? AND attempt = ?"
        with told_clearly():
            found = self._db.execute(query, (key, attempt)).fetchone()
        return Reply(found[0], found[1], found[2] <= self._newest_old) if found else None

    def _commit(self) -> None:
        self._timer, pending, self._pending = None, self._pending, []
        try:
            stored = self._store(pending)
        except DatagenError as problem:
            for *_, done in pending:
                done.set_exception(problem)
            return
        for (key, attempt, reply, done), is_ours in zip(pending, stored, strict=True):
            done.set_result(reply if is_ours else self._find(key, attempt) or reply)

    def _store(self, pending: list[Waiting]) -> list[bool]:
        """Write a batch in one transaction; say of each reply whether it, not another process's, was recorded."""
        insert = "INSERT OR IGNORE INTO replies (key, attempt, status, body) VALUES (?, ?, ?, ?)"
        with told_clearly(), self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._note_peak()
            return [
                self._db.execute(insert, (key, attempt, reply.status, reply.body)).rowcount == 1
                for key, attempt, reply, _ in pending
            ]

    def begin_run(self, output: str, peak: Callable[[], int]) -> int:
        """Note that a run writes `output`; return how many requests its killed predecessor had in flight at most."""
        with told_clearly():
            row = self._db.execute("SELECT in_flight FROM runs WHERE output = ?", (output,)).fetchone()
        self._run, self._noted = (output, peak), 0
        return int(row[0]) if row else 0

    def end_run(self) -> None:
        """Note that nothing is in flight any more."""
        if self._run:
            with told_clearly():
                self._db.execute("DELETE FROM runs WHERE output = ?", (self._run[0],))

    def _note_peak(self) -> None:
        if self._run and (peak := self._run[1]()) > self._noted:
            self._noted = peak
            self._db.execute("INSERT OR REPLACE INTO runs VALUES (?, ?)", (self._run[0], peak))

    def close(self) -> None:
        self._db.close()


@contextmanager
def told_clearly() -> Iterator[None]:
    """Turn what SQLite says of a full disk or a damaged file into one line."""
    try:
        yield
    except sqlite3.Error as error:
        raise DatagenError(f"the journal cannot be read or written: {error}. What is recorded is kept.") from error


def journal_folder(folder: Path) -> Path:
    """Return the folder of the journal, made on first use, readable by its owner alone and ignored by git."""
    path = folder / JOURNAL_FOLDER
    path.mkdir(mode=0o700, exist_ok=True)
    (path / ".gitignore").write_text("*\n")
    return path


def open_database(folder: Path) -> sqlite3.Connection:
    """Open the journal of a folder, made on first use, readable by its owner alone and ignored by git."""
    path = folder / JOURNAL_FOLDER / "journal.sqlite3"
    try:
        journal_folder(folder)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        database = sqlite3.connect(path, isolation_level=None, timeout=BUSY_TIMEOUT)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.executescript(SCHEMA)
    except (OSError, sqlite3.Error) as error:
        raise DatagenError(f"{path.parent}: the journal cannot be opened: {error}") from error
    return database
