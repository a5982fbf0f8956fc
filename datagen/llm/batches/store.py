"""What the journal knows of batches.

    batches     one row for each that is open, from before its file is uploaded until its answers are here
    batched     the calls that are, or were, in a batch; beside a recorded answer: it costs what a batch does
    answers     what batches have answered, until the calls come that read it

A kill between any two steps loses nothing. A batch is created from a file whose name is recorded before. So a row
without a file belongs to no batch; one with a file and without a batch is looked for at the server by that file.
"""

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from time import time
from typing import Any, NamedTuple, TypeVar
from uuid import uuid4

from datagen.llm.claims import Name
from datagen.llm.journal import Journal

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class OpenBatch:
    """A batch that was submitted, or was about to be."""

    token: str
    """Our name for it, which is part of its metadata."""
    file: str
    """Of its requests; empty where it was not uploaded."""
    id: str
    """The provider's name; empty where that is not known."""
    began: float
    """Seconds since 1970."""
    calls: int


class Place(NamedTuple):
    """A call that is, or was, in a batch."""

    batch: str
    """The token of the open batch; empty if it is in none."""
    rounds: int
    """The number of batches that it has been in."""
    sent: Mapping[str, Any] | None
    """The parameters that were sent, where they are others than those of the call."""


class BatchStore:
    """The tables of batches in a journal.

    Args:
        journal: It holds them.
        model: The identity of the model that all calls are for.
        place: Its address.
    """

    def __init__(self, journal: Journal, model: str, place: str) -> None:
        self._use, self._model, self._place = journal.use, model, place

    # Calls

    def place(self, name: Name) -> Place | None:
        """Return what is known of a call; None if it was in no batch."""
        query = "SELECT batch, rounds, sent FROM batched WHERE key = ? AND attempt = ?"
        row = self._use(lambda database: database.execute(query, name).fetchone())
        return None if row is None else Place(row[0].decode(), row[1], None if row[2] is None else json.loads(row[2]))

    def answer(self, name: Name) -> tuple[int, bytes] | None:
        """Return status and body of the answer that a batch has brought; None if there is none."""
        query = "SELECT status, body FROM answers WHERE key = ? AND attempt = ?"
        row: tuple[int, bytes] | None = self._use(lambda database: database.execute(query, name).fetchone())
        return row

    def drop(self, name: Name, *, is_new: bool) -> None:
        """Forget the answer to a call: it is asked for again.

        Args:
            name: The call.
            is_new: It will be another request, so its rounds are counted anew.
        """

        def work(database: sqlite3.Connection) -> None:
            database.execute("DELETE FROM answers WHERE key = ? AND attempt = ?", name)
            if is_new:
                database.execute("UPDATE batched SET rounds = 0 WHERE key = ? AND attempt = ?", name)

        self._write(work)

    # Batches

    def open(self) -> list[OpenBatch]:
        """Return the open batches of the model, the oldest first."""
        query = (
            "SELECT token, file, id, began, (SELECT count(*) FROM batched WHERE batch = token) FROM batches "
            "WHERE model = ? AND place = ? ORDER BY began"
        )
        rows = self._use(lambda database: database.execute(query, (self._model, self._place)).fetchall())
        return [OpenBatch(*(part.decode() for part in row[:3]), *row[3:]) for row in rows]

    def has_answers(self) -> bool:
        """Whether some answers of batches were not read yet."""
        return bool(self._use(lambda database: database.execute("SELECT 1 FROM answers LIMIT 1").fetchone()))

    def begin(self, calls: Mapping[Name, Mapping[str, Any] | None]) -> OpenBatch:
        """Record, before anything is sent, that a batch is submitted. The row is on the disk when this returns.

        Args:
            calls: Each with the parameters that are sent, where they are not its own. Those that are in an open batch
                of another process, or answered meanwhile, are left out: `names` has the others.
        """
        token, began = uuid4().hex, time()

        def work(database: sqlite3.Connection) -> int:
            row = token, self._model, self._place, "", "", began
            database.execute("INSERT INTO batches VALUES (?, ?, ?, ?, ?, ?)", row)
            rows = ((*name, token, 1, None if sent is None else json.dumps(sent)) for name, sent in calls.items())
            return database.executemany(INSERT_CALL, rows).rowcount

        return OpenBatch(token, "", "", began, self._write(work))

    def names(self, token: str) -> set[Name]:
        """Return the calls of a batch."""
        query = "SELECT key, attempt FROM batched WHERE batch = ?"
        return set(self._use(lambda database: database.execute(query, (token,)).fetchall()))

    def set_file(self, token: str, file: str) -> bool:
        """Record the file of a batch, before the batch is created; tell whether it is still to be. Its time counts from
        now on: an upload may have taken long."""
        return self._update("UPDATE batches SET file = ?, began = ? WHERE token = ?", file, time(), token)

    def set_id(self, token: str, identity: str) -> bool:
        """Record the provider's name of a batch."""
        return self._update("UPDATE batches SET id = ? WHERE token = ?", identity, token)

    def _update(self, statement: str, *values: str | float) -> bool:
        return self._write(lambda database: database.execute(statement, values).rowcount) == 1

    def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Write in one transaction, which is on the disk when this returns: a power cut loses no batch."""

        def transaction(database: sqlite3.Connection) -> T:
            database.execute("PRAGMA synchronous = FULL")
            try:
                with database:
                    database.execute("BEGIN IMMEDIATE")
                    return work(database)
            finally:
                database.execute("PRAGMA synchronous = NORMAL")

        return self._use(transaction)

    def forget(self, token: str) -> None:
        """Remove a batch that does not exist, or that no request of could be answered: its calls are free again."""
        self.conclude(token, (), counts=False)

    def conclude(self, token: str, answers: Iterable[tuple[Name, int, str]], *, counts: bool = True) -> None:
        """Record the answers of a batch that has ended, and remove it: in one transaction.

        Args:
            token: The batch.
            answers: Name, status and body of each.
            counts: Whether its calls have been in one batch more.
        """

        def work(database: sqlite3.Connection) -> None:
            rows = ((*name, status, body) for name, status, body in answers)
            database.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?)", rows)
            if not counts:
                database.execute("UPDATE batched SET rounds = rounds - 1 WHERE batch = ?", (token,))
            database.execute("UPDATE batched SET batch = '' WHERE batch = ?", (token,))
            database.execute("DELETE FROM batches WHERE token = ?", (token,))

        self._write(work)

    def clean(self, *, ended: bool) -> None:
        """Remove answers that were read and recorded; at the end of a run also how often a call was in vain."""

        def work(database: sqlite3.Connection) -> None:
            database.execute(f"DELETE FROM answers WHERE {RECORDED.format(table='answers')}")
            if ended:
                unanswered = f"batch = '' AND NOT {RECORDED.format(table='batched')}"
                database.execute(f"DELETE FROM batched WHERE {unanswered}")

        self._write(work)


INSERT_CALL = (
    "INSERT INTO batched SELECT ?1, ?2, ?3, ?4, ?5 "
    "WHERE NOT EXISTS (SELECT 1 FROM replies WHERE key = ?1 AND attempt = ?2) "
    "ON CONFLICT (key, attempt) DO UPDATE SET batch = ?3, rounds = rounds + 1, sent = ?5 WHERE batch = ''"
)
"""A call joins a batch unless it is in another one, or is answered."""
RECORDED = "EXISTS (SELECT 1 FROM replies WHERE replies.key = {table}.key AND replies.attempt = {table}.attempt)"
