"""Merging journals: the answers of other journals join that of a folder, each once.

A journal is merged in transactions of BATCH rows, so a gather that was killed is repeated. An answer that is there
already stays; where the other one is another, both were paid for, and that is counted. The notes of runs that have not
ended are taken over, so that the run that follows continues them.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from datagen.errors import InputError
from datagen.llm.batches.copies import insert_batches, read_batches
from datagen.llm.database import (
    JOURNAL,
    is_damage,
    one_line_errors,
    open_database,
    read_row_reply,
)
from datagen.llm.salvage import SavedRow, read_rows

BATCH = 10_000
CACHE = 1 << 16
"""KiB of the database in memory: the keys of a million answers, which come in no order."""
READ = "SELECT rowid, key, attempt, status, body FROM replies ORDER BY rowid"
INSERT = "INSERT OR IGNORE INTO replies (key, attempt, status, body) VALUES (?, ?, ?, ?)"


@dataclass
class Gathered:
    """What became of the answers of a journal."""

    new: int = 0
    known: int = 0
    """They are in the journal of the folder already, the same."""
    paid_twice: int = 0
    """Another answer to the same call is there, which stays."""
    unreadable: int = 0
    is_damaged: bool = False
    """Whether the file was damaged, so that only what is whole could be read."""


def find_journal(name: str) -> Path:
    """Return the file of a journal from its own name, or from that of a folder; raise InputError if there is none."""
    path = Path(name)
    names = (path, path / "journal.sqlite3", path / JOURNAL)
    journal = next((file for file in names if file.is_file()), None)
    if journal is None:
        raise InputError(f"{name}: no journal; name a folder that holds {JOURNAL}, or that file")
    return journal


def gather(source: Path, folder: Path, on_rows: Callable[[int], None] = lambda number: None) -> Gathered:
    """Merge a journal into that of a folder.

    Args:
        source: The file of the other journal; it is only read.
        folder: Holds the journal's own folder.
        on_rows: Called with the number of answers read so far.

    Raises:
        InputError: The two are the same file, or the other one holds nothing that can be read.
        DatagenError: A file cannot be read or written.
    """
    gathered = Gathered()
    with closing(open_database(folder).database) as database:
        place = folder / JOURNAL
        if place.exists() and source.samefile(place):
            raise InputError(f"{source}: is the journal of this folder itself")
        with one_line_errors(place):
            database.execute(f"PRAGMA cache_size = -{CACHE}")
            last_old_row = int(database.execute("SELECT coalesce(max(rowid), 0) FROM replies").fetchone()[0])
            rows, number = iter(saved_rows(source, gathered)), 0
            while batch := list(islice(rows, BATCH)):
                insert_batch(database, batch, gathered)
                number += len(batch)
                on_rows(number)
            insert_batches(database, read_batches(source))
            for output in open_runs(source):
                database.execute("INSERT OR IGNORE INTO runs VALUES (?, 0, ?)", (output, last_old_row))
    if gathered.is_damaged and not number:
        raise InputError(f"{source}: nothing in it can be read as the answers of a journal")
    return gathered


def saved_rows(source: Path, gathered: Gathered) -> Iterator[SavedRow]:
    """Yield the rows of a journal; of a damaged one those that are whole."""
    with one_line_errors(source):
        try:
            with closing(read_only(source)) as database:
                yield from (SavedRow(*row) for row in database.execute(READ))
        except sqlite3.Error as error:
            if not is_damage(error, source):
                raise
            gathered.is_damaged = True
            yield from read_rows(source)  # those that were yielded before are known by now


def insert_batch(database: sqlite3.Connection, batch: Iterable[SavedRow], gathered: Gathered) -> None:
    """Insert rows in one transaction, and count what became of them."""
    database.execute("BEGIN IMMEDIATE")
    for row in batch:
        if row.attempt < 1 or read_row_reply(row.status, row.body, is_old=True) is None:
            gathered.unreadable += 1
            continue
        values = row.key, row.attempt, row.status, row.body.decode()
        if database.execute(INSERT, values).rowcount == 1:
            gathered.new += 1
            continue
        query = "SELECT status, body FROM replies WHERE key = ? AND attempt = ?"
        same = database.execute(query, (row.key, row.attempt)).fetchone() == (row.status, row.body)
        gathered.known += same
        gathered.paid_twice += not same
    database.execute("COMMIT")


def open_runs(source: Path) -> list[str]:
    """Return the outputs of the runs in a journal that have not ended; none of a damaged one."""
    try:
        with closing(read_only(source)) as database:
            return [str(row[0].decode()) for row in database.execute("SELECT output FROM runs")]
    except (sqlite3.Error, UnicodeDecodeError, AttributeError):
        return []


def read_only(path: Path) -> sqlite3.Connection:
    """Open a database that is not written to."""
    database = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)
    database.text_factory = bytes
    return database
