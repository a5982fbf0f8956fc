"""The record of every reply that was paid for: a SQLite file beside the outputs, shared by all of them.

A run is a replay: every command starts from the first row and finds here the replies of earlier runs, so resuming,
raising a cap and adding a row need no code of their own. Raw replies are kept, never verdicts on them: a changed
parser or filter sees them again for free. What is read here is checked as what a server sends: a row that holds no
reply is asked again, and its new reply takes its place. What servers do not take is kept beside them (facts.py).

A reply is old if it was recorded before the first run of its output since the last one that ended, killed and stopped
runs included. So the calls that failed before are asked again by the next command, and a killed run that is continued
sees what it would have seen.

A timer in the event loop commits all replies of COMMIT_EVERY seconds at once, or sooner where as many wait as requests
were in flight at most. So a kill loses fewer than twice those. A reply is returned after its commit.
There is no writer thread: it would compete with the loop for the interpreter lock. WAL with synchronous NORMAL is safe
against kill -9; a power cut may lose the last commits (those calls are sent again), never the file.

One flight per key: a second identical request awaits the first, and where another process has the journal open, also
that of the other (claims.py).
"""

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from time import time
from typing import Any, TypeVar

from datagen.llm.batches.copies import batch_rows
from datagen.llm.call import Call, Layer, Reply
from datagen.llm.claims import LOOK_EVERY, Claims, Name, last_row
from datagen.llm.database import (
    JOURNAL_FOLDER,
    Opened,
    close_quietly,
    identity,
    is_damage,
    one_line_errors,
    open_database,
    read_row_reply,
    restore_database,
)
from datagen.llm.facts import Facts, decode
from datagen.llm.gather import Gathered, insert_batch
from datagen.llm.purse import UNIT, Purse
from datagen.llm.salvage import SavedRow
from datagen.records.record import canonical
from datagen.text import count_of

T = TypeVar("T")
FIND = (
    "SELECT status, body, rowid, EXISTS (SELECT 1 FROM batched WHERE key = ?1 AND attempt = ?2) "
    "FROM replies WHERE key = ?1 AND attempt = ?2"
)
COMMIT_EVERY = 0.01
"""Seconds."""
Pending = tuple[bytes, int, Reply, "asyncio.Future[Reply]"]
"""Key, attempt, reply, and the future of whoever waits for the commit."""


class Journal:
    """A layer that answers from the record, and records the replies of the layers below.

    Args:
        folder: Holds the journal's own folder.
        below: Model identity to the layer that sends its calls.

    Raises:
        DatagenError: The journal cannot be opened.
    """

    def __init__(self, folder: Path, below: Mapping[str, Layer]) -> None:
        self._folder, self._below = folder, below
        self._path = folder / JOURNAL_FOLDER / "journal.sqlite3"
        self._flights: dict[Name, asyncio.Future[Reply]] = {}
        self._pending: list[Pending] = []
        self._timer: asyncio.TimerHandle | None = None
        self._claims, self._shared = Claims(), 0
        self._watch_loop: asyncio.AbstractEventLoop | None = None
        self._watch_timer: asyncio.TimerHandle | None = None
        self._output: str | None = None
        self._peak: Callable[[], int] = lambda: 0
        self._recorded_peak = 0
        self._purse: Purse | None = None
        self._job, self._noted = "", 0
        self._bad_rows: set[Name] = set()
        self._notes: list[str] = []
        self.replayed = 0
        """Answers given without a request: recorded before, or to an equal call in flight."""
        self.unrecorded = 0
        """The most answers that a killed predecessor of this run may have paid for without a record."""
        self._use(open_database(folder))
        self._last_old_row = self._run(lambda: last_row(self._db))
        self._run(self._enter)

    def _use(self, opened: Opened) -> None:
        self._db, self._file = opened.database, opened.file
        if opened.note:
            self._notes.append(opened.note)

    @property
    def notes(self) -> list[str]:
        """What is to be said about the journal at the end of the run, a sentence each."""
        bad = count_of(len(self._bad_rows), "recorded answer")
        shared = count_of(self._shared, "answer")
        return [
            *self._notes,
            *([f"{bad} could not be read and had to be asked again"] if self._bad_rows else []),
            *([f"{shared} came from another command, which asked for the same at that time"] if self._shared else []),
        ]

    async def send(self, call: Call) -> Reply:
        """Look the call up, else join an equal call in flight, else send it and record the reply."""
        if (reply := self.recorded(call.key, call.attempt)) is not None:
            self.replayed += 1
            return reply
        self._begin_watch()
        name = (call.key, call.attempt)
        flight = self._flights.get(name)
        is_joined = flight is not None
        if flight is None:
            flight = self._flights[name] = asyncio.ensure_future(self._send_and_record(call))
            flight.add_done_callback(lambda _: self._flights.pop(name))
        reply = await asyncio.shield(flight)
        self.replayed += is_joined
        return reply

    def _run(self, work: Callable[..., T], *arguments: Any) -> T:
        """Do what reads or writes the file. Where that shows that it is damaged, replace it and do it again."""
        try:
            return work(*arguments)
        except (sqlite3.Error, OSError) as error:
            with one_line_errors(self._path):
                if not (isinstance(error, sqlite3.Error) and is_damage(error, self._path)):
                    raise
                close_quietly(self._db)
                self._use(open_database(self._folder, replace=self._file))
                self._enter()
                return work(*arguments)

    def use(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Let others read and write their tables of the file."""
        return self._run(lambda: work(self._db))

    def recorded(self, key: bytes, attempt: int) -> Reply | None:
        """Return the recorded reply to a call, or None if there is none that can be read."""
        return self._run(self._find, key, attempt)

    def rows_after(self, number: int) -> list[SavedRow]:
        """Return the rows with higher numbers, in their order."""
        query = "SELECT rowid, key, attempt, status, body FROM replies WHERE rowid > ? ORDER BY rowid"
        return [SavedRow(*row) for row in self._run(lambda: self._db.execute(query, (number,)).fetchall())]

    def add_rows(self, rows: Iterable[SavedRow]) -> Gathered:
        """Record replies of another journal, in one transaction; those that are there stay."""
        gathered = Gathered()
        self.check_place()
        self._run(lambda: insert_batch(self._db, rows, gathered))
        return gathered

    def leased_calls(self, job: str) -> int:
        """Return the calls that workers of a command may have paid for without a record."""
        row = self._run(lambda: self._db.execute("SELECT calls FROM leases WHERE job = ?", (job,)).fetchone())
        return int(row[0]) if row and isinstance(row[0], int) else 0

    def note_leases(self, job: str, calls: int) -> None:
        """Note them, and the dollars that are leased, before anything is sent for them."""
        self._run(lambda: self._db.execute("INSERT OR REPLACE INTO leases VALUES (?, ?)", (job, calls)))
        self._run(self._note_payments)

    def _find(self, key: bytes, attempt: int) -> Reply | None:
        row = self._db.execute(FIND, (key, attempt)).fetchone()
        if row is None:
            return None
        reply = read_row_reply(row[0], row[1], is_old=row[2] <= self._last_old_row)
        if reply is None:
            self._bad_rows.add((key, attempt))
        return replace(reply, is_batched=True) if reply and row[3] else reply

    async def _send_and_record(self, call: Call) -> Reply:
        self._run(self._note_peak)
        if self._claims.has_company and (shared := await self._claim(call)) is not None:
            return shared
        try:
            reply = await self._below[call.model].send(call)
        except BaseException:
            self._claims.release((call.key, call.attempt))
            if self._claims.is_due:
                self._commit_soon()
            raise
        committed: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._pending.append((call.key, call.attempt, reply, committed))
        if 0 < self._peak() <= len(self._pending):
            self._commit()
        else:
            self._commit_soon()
        return await committed

    async def _claim(self, call: Call) -> Reply | None:
        """Claim a call before it is sent; return the reply instead if another process has it, or gets it first."""
        name = (call.key, call.attempt)
        self._commit_soon()
        is_ours = await self._claims.claim(name)
        reply = None if is_ours else self.recorded(*name)
        self._shared += reply is not None
        self.replayed += reply is not None
        return reply

    def _commit_soon(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(COMMIT_EVERY, self._commit)

    def _commit(self) -> None:
        """Record all pending replies in one transaction, with what happens to claims, then hand each to whoever waits
        for it."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, pending, self._pending = None, self._pending, []
        names = [(key, attempt) for key, attempt, *_ in pending]
        try:
            self.check_place()
            inserted, settled = self._run(lambda: self._insert(pending, names))
            self._claims.resolve(names, settled)
            for (key, attempt, reply, committed), is_new in zip(pending, inserted, strict=True):
                # Where another process recorded an answer to the same call first, that answer stands.
                committed.set_result(reply if is_new else self.recorded(key, attempt) or reply)
        except Exception as error:  # whatever it is, nobody may wait for ever
            self._claims.fail(error)
            for *_, committed in pending:
                if not committed.done():
                    committed.set_exception(error)

    def _insert(self, pending: list[Pending], names: list[Name]) -> tuple[list[bool], dict[Name, bool]]:
        """Record replies, the peak of the requests, and claims; return for each reply whether it is new, and for calls
        to be claimed what is decided."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._note_peak()
            self._note_payments()
            inserted = []
            for key, attempt, reply, _ in pending:
                or_what = "REPLACE" if (key, attempt) in self._bad_rows else "IGNORE"
                insert = f"INSERT OR {or_what} INTO replies (key, attempt, status, body) VALUES (?, ?, ?, ?)"
                inserted.append(self._db.execute(insert, (key, attempt, reply.status, reply.body)).rowcount == 1)
                if not reply.is_batched:  # whatever batch it was in before, this is the price of a request
                    self._db.execute("DELETE FROM batched WHERE key = ? AND attempt = ?", (key, attempt))
            return inserted, self._claims.settle(self._db, names)

    def _begin_watch(self) -> None:
        if self._watch_loop is not (loop := asyncio.get_running_loop()):
            self._watch_loop = loop
            self._watch()

    def _watch(self) -> None:
        """Look again and again whether another process has come, and what it has recorded."""
        pause = COMMIT_EVERY if self._claims.is_waiting else LOOK_EVERY
        self._watch_timer = asyncio.get_running_loop().call_later(pause, self._watch)
        try:
            self._run(lambda: self._claims.look(self._db, self._flights))
        except Exception as error:  # whatever it is, nobody may wait for ever
            self._claims.fail(error)
        if self._claims.is_due:
            self._commit()

    def stop_waiting(self) -> None:
        """Let no call wait for the answer of another process any more: the run ends."""
        self._claims.stop()

    def check_place(self) -> None:
        """Check that the file lies where it was opened; if somebody removed it, write it again and note that."""
        if identity(self._path) == self._file:
            return
        old, query = self._db, "SELECT rowid, key, attempt, status, body FROM replies"
        with one_line_errors(self._path):
            rows = (SavedRow(*row) for row in old.execute(query))
            self._use(restore_database(self._folder, rows, batch_rows(old)))
            self._enter()
        close_quietly(old)

    def begin_run(self, output: str, peak: Callable[[], int]) -> None:
        """Note that the run that writes `output` has begun, and read the note of a predecessor that has not ended.

        Args:
            output: The name of the output.
            peak: Returns the most requests that were in flight at once, so far.
        """
        query = "SELECT in_flight, last_old_row FROM runs WHERE output = ?"
        row = self._run(lambda: self._db.execute(query, (output,)).fetchone())
        if row and all(isinstance(number, int) for number in row):
            in_flight, self._last_old_row = row
            self.unrecorded = max(0, 2 * in_flight - 1)  # those, and the answers that wait for a commit: one less
        self._output, self._peak, self._recorded_peak = output, peak, 0
        self._run(self._note_run)

    def begin_payments(self, job: str, purse: Purse) -> None:
        """Note from now on what a purse pays; read what earlier runs of the same command have paid.

        Args:
            job: The digest of the command.
            purse: Where its payments are counted.
        """
        query = "SELECT paid, spent_cap FROM payments WHERE job = ?"
        row = self._run(lambda: self._db.execute(query, (job,)).fetchone())
        if row and all(isinstance(number, int) for number in row):
            purse.paid_before, purse.spent_cap = Decimal(row[0]) / UNIT, Decimal(row[1]) / UNIT
        self._job, self._purse = job, purse

    def _note_payments(self) -> None:
        """Add what was paid since the last note; other processes may run the same command."""
        if self._purse is None:
            return
        paid, spent_cap = int(self._purse.committed * UNIT), int(self._purse.end_cap * UNIT)
        if paid != self._noted or spent_cap:
            add = (
                "INSERT INTO payments VALUES (?, ?, ?) ON CONFLICT (job) DO UPDATE "
                "SET paid = paid + excluded.paid, spent_cap = max(spent_cap, excluded.spent_cap)"
            )
            self._db.execute(add, (self._job, paid - self._noted, spent_cap))
            self._noted = paid

    def _enter(self) -> None:
        """Write into a journal that was just opened that this process, and this run, use it."""
        self._claims.enter(self._db)
        if self._purse is not None:
            self._noted = -int(self._purse.paid_before * UNIT)
        self._note_run()

    def _note_peak(self) -> None:
        """Note how many requests were in flight at most, if these are more than noted."""
        if (peak := self._peak()) > self._recorded_peak:
            self._recorded_peak = peak
            self._note_run()

    def _note_run(self) -> None:
        """Write the note of this run: where the old replies end, and how many requests are in flight at most."""
        if self._output is not None:
            values = (self._output, self._recorded_peak, self._last_old_row)
            self._db.execute("INSERT OR REPLACE INTO runs VALUES (?, ?, ?)", values)

    def facts(self, place: str) -> Facts | None:
        """Return what earlier runs have learned about a place; None if that is nothing, or too old."""
        query = "SELECT learned, facts FROM facts WHERE place = ?"
        row = self._run(lambda: self._db.execute(query, (place,)).fetchone())
        if row is None or not isinstance(row[0], float):
            return None
        facts = Facts(decode(row[1]), row[0])
        return facts if facts.values and facts.are_fresh(time()) else None

    def keep_facts(self, place: str, facts: Facts) -> None:
        """Record what is known of a place, in the stead of what was known before."""
        if not facts.values:
            self._run(lambda: self._db.execute("DELETE FROM facts WHERE place = ?", (place,)))
            return
        row = place, facts.learned, canonical(facts.values).decode()
        self._run(lambda: self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?, ?)", row))

    def end_run(self, *, ended: bool) -> None:
        """Change the note: nothing is in flight any more.

        Args:
            ended: Whether the run came to its end. If not, the next one continues it.
        """
        self.check_place()
        self._run(self._note_payments)
        if ended and self._output is not None:
            self._run(lambda: self._db.execute("DELETE FROM runs WHERE output = ?", (self._output,)))
        else:
            self._recorded_peak = 0
            self._run(self._note_run)

    def close(self) -> None:
        for timer in (self._timer, self._watch_timer):
            if timer is not None:
                timer.cancel()
        self._claims.leave(self._db)
        close_quietly(self._db)
