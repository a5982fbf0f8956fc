"""What a journal knows of batches, taken over by another: where shards are gathered, and where a file was damaged."""

import sqlite3
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

COLUMNS = {
    "batches": "token, model, place, file, id, began",
    "batched": "key, attempt, batch, rounds, sent",
    "answers": "key, attempt, status, body",
}
"""The tables, and what is copied of each."""
Copied = list[tuple[str, list[tuple[Any, ...]]]]


def read_batches(path: Path) -> Copied:
    """Return the rows in the file of a journal."""
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            database.text_factory = bytes
            return batch_rows(database)
    except sqlite3.Error:  # it cannot be opened: the caller says so
        return []


def batch_rows(database: sqlite3.Connection) -> Copied:
    """Return the rows of each table that can be read. A journal of an earlier version has none."""
    tables: Copied = []
    for table, columns in COLUMNS.items():
        with suppress(sqlite3.Error):
            tables.append((table, database.execute(f"SELECT {columns} FROM {table}").fetchall()))
    return tables


def insert_batches(database: sqlite3.Connection, tables: Copied) -> None:
    """Insert rows; what is there already stays."""
    database.execute("BEGIN IMMEDIATE")
    for table, rows in tables:
        names = COLUMNS[table].split(", ")
        insert = f"INSERT OR IGNORE INTO {table} ({COLUMNS[table]}) VALUES ({', '.join('?' * len(names))})"
        for row in rows:
            with suppress(sqlite3.Error, UnicodeDecodeError):  # a damaged row is none
                database.execute(insert, list(decoded(zip(names, row, strict=True))))
    database.execute("COMMIT")


def decoded(values: Iterable[tuple[str, Any]]) -> Iterable[Any]:
    """Yield the values of a row; only a key is not text."""
    for name, value in values:
        yield value.decode() if isinstance(value, bytes) and name != "key" else value
