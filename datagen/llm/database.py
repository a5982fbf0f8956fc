"""The file of the journal: opened, checked, and replaced by a new one with all that can be read if it is damaged."""

import fcntl
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import NamedTuple

from datagen.errors import DatagenError
from datagen.llm.batches.copies import Copied, insert_batches, read_batches
from datagen.llm.call import Reply
from datagen.llm.salvage import PAGE, SavedRow, read_rows
from datagen.text import count_of

JOURNAL_FOLDER = ".datagen"
"""Holds the journal, and the files of runs that write to standard output."""
JOURNAL = Path(JOURNAL_FOLDER, "journal.sqlite3")
BUSY_TIMEOUT = 30.0
"""Seconds to wait for another process that writes."""
SCHEMA = """
CREATE TABLE IF NOT EXISTS replies (
    key BLOB NOT NULL, attempt INTEGER NOT NULL, status INTEGER NOT NULL, body TEXT NOT NULL,
    UNIQUE (key, attempt));
CREATE TABLE IF NOT EXISTS runs (output TEXT PRIMARY KEY, in_flight INTEGER NOT NULL, last_old_row INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS facts (place TEXT PRIMARY KEY, learned REAL NOT NULL, facts TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS processes (id INTEGER PRIMARY KEY, pid INTEGER NOT NULL, beat INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS claims (
    key BLOB NOT NULL, attempt INTEGER NOT NULL, process INTEGER NOT NULL,
    PRIMARY KEY (key, attempt)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS payments (job TEXT PRIMARY KEY, paid INTEGER NOT NULL, spent_cap INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS batches (
    token TEXT PRIMARY KEY, model TEXT NOT NULL, place TEXT NOT NULL, file TEXT NOT NULL, id TEXT NOT NULL,
    began REAL NOT NULL);
CREATE TABLE IF NOT EXISTS batched (
    key BLOB NOT NULL, attempt INTEGER NOT NULL, batch TEXT NOT NULL, rounds INTEGER NOT NULL, sent TEXT,
    PRIMARY KEY (key, attempt)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS batched_by_batch ON batched (batch);
CREATE TABLE IF NOT EXISTS answers (
    key BLOB NOT NULL, attempt INTEGER NOT NULL, status INTEGER NOT NULL, body TEXT NOT NULL,
    UNIQUE (key, attempt));
CREATE TABLE IF NOT EXISTS leases (job TEXT PRIMARY KEY, calls INTEGER NOT NULL);
"""
CHECKS = (
    "SELECT key, attempt, status, body FROM replies LIMIT 1",
    "SELECT output, in_flight, last_old_row FROM runs LIMIT 1",
    "SELECT place, learned, facts FROM facts LIMIT 1",
    "SELECT id, pid, beat FROM processes LIMIT 1",
    "SELECT key, attempt, process FROM claims LIMIT 1",
    "SELECT job, paid, spent_cap FROM payments LIMIT 1",
    "SELECT token, model, place, file, id, began FROM batches LIMIT 1",
    "SELECT key, attempt, batch, rounds, sent FROM batched LIMIT 1",
    "SELECT key, attempt, status, body FROM answers LIMIT 1",
    "SELECT job, calls FROM leases LIMIT 1",
    "SELECT max(rowid) FROM replies",
)
"""Statements that fail if the file has another form."""
DAMAGE = ("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_ERROR", "SQLITE_TOOBIG", "SQLITE_FORMAT", "SQLITE_IOERR_SHORT")
"""Beginnings of the names of errors that come from the contents of the file."""
WAYS_OUT = {
    "SQLITE_FULL": "free some space on the disk and run the same command again",
    "SQLITE_BUSY": "another program holds it; end that program, or wait, and run the same command again",
    "SQLITE_LOCKED": "another program holds it; end that program, or wait, and run the same command again",
    "SQLITE_READONLY": "make it and its folder writable, or write the output to another folder with -o",
    "SQLITE_CANTOPEN": "make it and its folder readable and writable, or write the output to another folder with -o",
    "SQLITE_IOERR": "check the disk and its free space, and run the same command again",
}
"""What to do about an error, by the beginning of its name."""


class Opened(NamedTuple):
    """An open journal."""

    database: sqlite3.Connection
    file: tuple[int, int]
    """Which file it is: device and inode."""
    note: str
    """What is to be said about it; empty if nothing is."""


def journal_folder(folder: Path) -> Path:
    """Return the folder of the journal. It is created on first use, readable by its owner only and ignored by git."""
    path = folder / JOURNAL_FOLDER
    path.mkdir(mode=0o700, exist_ok=True)
    (path / ".gitignore").write_text("*\n")
    return path


def open_database(folder: Path, *, replace: tuple[int, int] | None = None) -> Opened:
    """Open the journal of a folder. It is created on first use, readable by its owner only.

    Args:
        folder: Holds the journal's own folder.
        replace: The file that was found damaged while it was used; another one in its place is taken as it is.

    Raises:
        DatagenError: It cannot be opened, or is damaged and cannot be replaced.
    """
    path = folder / JOURNAL_FOLDER / "journal.sqlite3"
    with one_line_errors(path), locked(journal_folder(folder)):
        if replace is None or replace != identity(path):
            try:
                return Opened(connect(path), require_identity(path), "")
            except sqlite3.Error as error:
                if not is_damage(error, path):
                    raise
        aside = next(name for i in count(1) if not (name := path.with_name(f"journal.damaged-{i}.sqlite3")).exists())
        saved = fill_new(path, read_rows(path), read_batches(path))
        for old, kept in zip(with_logs(path), with_logs(aside), strict=True):
            with suppress(FileNotFoundError):
                old.rename(kept)
        new_name(path).rename(path)
        note = (
            f"The journal {path} was damaged or of another form. {count_of(saved, 'answer')} in it could be read and "
            f"are kept; what is lost is asked again. The damaged file is kept as {aside}"
        )
        return Opened(connect(path), require_identity(path), note)


def restore_database(folder: Path, rows: Iterable[SavedRow], batches: Copied) -> Opened:
    """Put a journal in the place of one that was removed while it was used; add to it if another process has done so.

    Args:
        folder: Holds the journal's own folder.
        rows: The replies of the removed journal.
        batches: What it knows of batches.
    """
    path = folder / JOURNAL_FOLDER / "journal.sqlite3"
    with one_line_errors(path), locked(journal_folder(folder)):
        if path.exists():
            database = connect(path)
            insert_rows(database, rows)
            insert_batches(database, batches)
        else:
            fill_new(path, rows, batches)
            for log in with_logs(path):
                log.unlink(missing_ok=True)
            new_name(path).rename(path)
            database = connect(path)
        note = f"The journal {path} was removed during the run; it was written again"
        return Opened(database, require_identity(path), note)


def connect(path: Path) -> sqlite3.Connection:
    """Open a database, make its tables if it has none, and check that it has the form of a journal."""
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    database = sqlite3.connect(path, isolation_level=None, timeout=BUSY_TIMEOUT)
    database.text_factory = bytes  # what is no UTF-8 is a bad row, not an error of the whole query
    try:
        database.execute(f"PRAGMA page_size = {PAGE}")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.executescript(SCHEMA)
        for check in CHECKS:
            database.execute(check).fetchall()
    except BaseException:
        close_quietly(database)
        raise
    return database


def fill_new(path: Path, rows: Iterable[SavedRow], batches: Copied) -> int:
    """Make a new journal under a name of its own, so that nothing is lost until it is complete; return its replies."""
    new = new_name(path)
    for name in with_logs(new):
        name.unlink(missing_ok=True)
    with closing(connect(new)) as database:
        insert_batches(database, batches)
        return insert_rows(database, rows)


def new_name(path: Path) -> Path:
    """Return the name of a journal that is not complete yet."""
    return path.with_name("journal.new.sqlite3")


def insert_rows(database: sqlite3.Connection, rows: Iterable[SavedRow]) -> int:
    """Insert the rows that hold a reply, under their numbers where these are free; return how many there are."""
    database.execute("BEGIN IMMEDIATE")
    for row in rows:
        if row.attempt >= 1 and read_row_reply(row.status, row.body, is_old=True) is not None:
            values = (row.key, row.attempt, row.status, row.body.decode())
            same = database.execute("SELECT 1 FROM replies WHERE rowid = ?", (row.number,)).fetchone()
            number = None if same else row.number
            database.execute(
                "INSERT OR IGNORE INTO replies (rowid, key, attempt, status, body) VALUES (?, ?, ?, ?, ?)",
                (number, *values),
            )
    database.execute("COMMIT")
    return int(database.execute("SELECT count(*) FROM replies").fetchone()[0])


def read_row_reply(status: object, body: object, *, is_old: bool) -> Reply | None:
    """Return the reply in a row, checked as one that comes from a server; None if it is none."""
    if not isinstance(status, int) or not isinstance(body, bytes):
        return None
    try:
        reply = Reply(status, body.decode(), is_old)
    except UnicodeDecodeError:
        return None
    return reply if reply.is_whole else None


def with_logs(path: Path) -> list[Path]:
    """Return the names of a database file, its write-ahead log and the index of that."""
    return [path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")]


def identity(path: Path) -> tuple[int, int] | None:
    """Return device and inode of a file, or None if there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def require_identity(path: Path) -> tuple[int, int]:
    """Return device and inode of a file that was just opened."""
    status = os.stat(path)
    return status.st_dev, status.st_ino


def is_damage(error: sqlite3.Error, path: Path) -> bool:
    """Does this error come from the contents of the file? A writable file that SQLite calls read-only has a damaged
    header."""
    name = getattr(error, "sqlite_errorname", "")
    is_writable = os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
    return name.startswith(DAMAGE) or (name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN")) and is_writable)


def close_quietly(database: sqlite3.Connection) -> None:
    """Close a database whose file may be damaged."""
    with suppress(sqlite3.Error):
        database.close()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one process at a time open or replace the journal of a folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def one_line_errors(path: Path) -> Iterator[None]:
    """Turn an error of SQLite or of the file system into one line that says what to do."""
    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "")
        way_out = next((way for start, way in WAYS_OUT.items() if name.startswith(start)), "run the same command again")
        raise DatagenError(f"{path}: the journal cannot be read or written: {error}; {way_out}") from error
    except OSError as error:
        problem = f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror or error)
        raise DatagenError(f"{path}: the journal cannot be opened: {problem}") from error
