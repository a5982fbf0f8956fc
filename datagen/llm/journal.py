"""The record of every reply that was paid for: a SQLite file beside the outputs, shared by all of them.

A run is a replay: every command starts from the first row and finds here the replies of earlier runs, so resuming,
raising a cap and adding a row need no code of their own. Raw replies are kept, never verdicts on them: a changed
parser or filter sees them again for free.

A timer in the event loop commits all replies of COMMIT_EVERY seconds at once; a reply is returned after its commit.
There is no writer thread: it would compete with the loop for the interpreter lock. WAL with synchronous NORMAL is safe
against kill -9; a power cut may lose the last commits (those calls are sent again), never the file.
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
"""Holds the journal, and the files of runs that write to standard output."""
COMMIT_EVERY = 0.01
"""Seconds."""
BUSY_TIMEOUT = 30.0
"""Seconds to wait for another process that writes."""
SCHEMA = """
CREATE TABLE IF NOT EXISTS replies (
    key BLOB NOT NULL, attempt INTEGER NOT NULL, status INTEGER NOT NULL, body TEXT NOT NULL,
    UNIQUE (key, attempt));
CREATE TABLE IF NOT EXISTS runs (output TEXT PRIMARY KEY, in_flight INTEGER NOT NULL);
"""
Pending = tuple[bytes, int, Reply, "asyncio.Future[Reply]"]
"""Key, attempt, reply, and the future of whoever waits for the commit."""


class Journal:
    """A layer that answers from the record, and records the replies of the layers below.

    Args:
        folder: Holds the journal's own folder.
        below: Model identity to the layer that sends its calls.
    """

    def __init__(self, folder: Path, below: Mapping[str, Layer]) -> None:
        self._below = below
        self._flights: dict[tuple[bytes, int], asyncio.Future[Reply]] = {}
        self._pending: list[Pending] = []
        self._timer: asyncio.TimerHandle | None = None
        self._output: str | None = None
        self._peak: Callable[[], int] = lambda: 0
        self._recorded_peak = 0
        self.replayed = 0
        self.unrecorded = 0
        """The most requests that a killed predecessor of this run may have paid for without a record."""
        self._db = open_database(folder)
        self._last_earlier_row = self._db.execute("SELECT coalesce(max(rowid), 0) FROM replies").fetchone()[0]

    async def send(self, call: Call) -> Reply:
        """Look the call up, else join an equal call in flight, else send it and record the reply."""
        if (reply := self._find(call.key, call.attempt)) is not None:
            self.replayed += 1
            return reply
        name = (call.key, call.attempt)
        if (flight := self._flights.get(name)) is None:
            flight = self._flights[name] = asyncio.ensure_future(self._send_and_record(call))
            flight.add_done_callback(lambda _: self._flights.pop(name))
        return await asyncio.shield(flight)

    def _find(self, key: bytes, attempt: int) -> Reply | None:
        query = "SELECT status, body, rowid FROM replies WHERE key = ? AND attempt = ?"
        with sqlite_errors_as_one_line():
            row = self._db.execute(query, (key, attempt)).fetchone()
        return Reply(row[0], row[1], row[2] <= self._last_earlier_row) if row else None

    async def _send_and_record(self, call: Call) -> Reply:
        reply = await self._below[call.model].send(call)
        committed: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._pending.append((call.key, call.attempt, reply, committed))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(COMMIT_EVERY, self._commit)
        return await committed

    def _commit(self) -> None:
        """Record all pending replies in one transaction, then hand each to whoever waits for it."""
        self._timer, pending, self._pending = None, self._pending, []
        insert = "INSERT OR IGNORE INTO replies (key, attempt, status, body) VALUES (?, ?, ?, ?)"
        try:
            with sqlite_errors_as_one_line(), self._db:
                self._db.execute("BEGIN IMMEDIATE")
                if (peak := self._peak()) > self._recorded_peak:
                    self._recorded_peak = peak
                    self._db.execute("INSERT OR REPLACE INTO runs VALUES (?, ?)", (self._output, peak))
                inserted = [
                    self._db.execute(insert, (key, attempt, reply.status, reply.body)).rowcount == 1
                    for key, attempt, reply, _ in pending
                ]
        except DatagenError as error:
            for *_, committed in pending:
                committed.set_exception(error)
            return
        for (key, attempt, reply, committed), is_new in zip(pending, inserted, strict=True):
            # Where another process recorded an answer to the same call first, that answer stands.
            committed.set_result(reply if is_new else self._find(key, attempt) or reply)

    def begin_run(self, output: str, peak: Callable[[], int]) -> None:
        """Note how many requests of the run that writes `output` are in flight at most, and read the note of a killed
        predecessor.

        Args:
            output: The name of the output.
            peak: Returns the most requests that were in flight at once, so far.
        """
        with sqlite_errors_as_one_line():
            row = self._db.execute("SELECT in_flight FROM runs WHERE output = ?", (output,)).fetchone()
        self.unrecorded = int(row[0]) if row else 0
        self._output, self._peak, self._recorded_peak = output, peak, 0

    def end_run(self) -> None:
        """Remove the note: nothing is in flight any more."""
        if self._output is not None:
            with sqlite_errors_as_one_line():
                self._db.execute("DELETE FROM runs WHERE output = ?", (self._output,))

    def close(self) -> None:
        self._db.close()


@contextmanager
def sqlite_errors_as_one_line() -> Iterator[None]:
    """Turn an error of SQLite, such as a full disk or a damaged file, into a one-line error for the user."""
    try:
        yield
    except sqlite3.Error as error:
        raise DatagenError(f"the journal cannot be read or written: {error}. Recorded answers are kept.") from error


def journal_folder(folder: Path) -> Path:
    """Return the folder of the journal. It is created on first use, readable by its owner only and ignored by git."""
    path = folder / JOURNAL_FOLDER
    path.mkdir(mode=0o700, exist_ok=True)
    (path / ".gitignore").write_text("*\n")
    return path


def open_database(folder: Path) -> sqlite3.Connection:
    """Open the journal of a folder. It is created on first use, readable by its owner only."""
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
