"""Calls that several commands of a folder ask for at the same time are paid for once: each claims a call in the journal
before it sends it, and a call that another one has claimed waits for the answer of that one.

Every process that has the journal open has a row there. While it is the only one, no call is claimed, and a look at
whether another has come is one PRAGMA every LOOK_EVERY seconds. A claim holds while its process lives: one that is
dead, or suspended and so has shown no sign of life for LOST_AFTER seconds, has none. A claim that ends without an
answer is free again. Nobody waits in a circle: a call is claimed just before it is sent, and a call that is sent waits
for no other.
"""

import asyncio
import os
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from random import SystemRandom
from time import monotonic

from datagen.errors import Stopped

LOOK_EVERY = 0.1
"""Seconds; while calls wait, the journal looks as often as it commits."""
NEWCOMER_WAITS = 2 * LOOK_EVERY
"""Seconds before the first claim of a process that is not the first: the others claim what they have sent meanwhile."""
BEAT_EVERY, LOST_AFTER = 1.0, 10.0
"""Seconds between the signs of life of a process that is not alone; and without one, until its claims hold no more."""
Name = tuple[bytes, int]
"""The key of a call, and its attempt."""


@dataclass(slots=True)
class Life:
    """What is known of another process."""

    pid: int
    beat: int
    """A number that it changes as a sign of life."""
    since: float
    """When the last one was seen, by our own clock."""

    @property
    def is_over(self) -> bool:
        return monotonic() - self.since > LOST_AFTER or not is_running(self.pid)


class Claims:
    """The claims of this process, and what it knows of those of others. It writes and reads through the journal."""

    def __init__(self) -> None:
        self._id = SystemRandom().getrandbits(62)
        self._lives: dict[int, Life] = {}
        self._company: set[int] = set()
        self._own: set[Name] = set()
        self._free: set[Name] = set()
        self._waiting: dict[Name, asyncio.Future[bool]] = {}
        self._due: set[Name] = set()
        self._version = self._last_row = 0
        self._next_beat = self._first_claim = 0.0
        self._is_stopped = False

    @property
    def has_company(self) -> bool:
        """Whether another process has the journal open."""
        return bool(self._company)

    @property
    def is_waiting(self) -> bool:
        """Whether a call waits to be claimed, or for the answer of another process."""
        return bool(self._waiting)

    @property
    def is_due(self) -> bool:
        """Whether there is something to write."""
        return bool(self._due or self._free)

    async def claim(self, name: Name) -> bool:
        """Wait until a call is ours to be sent (True), or another process has recorded its answer (False).

        Raises:
            Stopped: The run ends.
        """
        if self._is_stopped:
            raise Stopped
        self._waiting[name] = asyncio.get_running_loop().create_future()
        if monotonic() >= self._first_claim:
            self._due.add(name)
        try:
            return await self._waiting[name]
        finally:
            del self._waiting[name]

    def release(self, name: Name) -> None:
        """Give a claim up: there is no answer to be recorded."""
        if name in self._own:
            self._free.add(name)

    def stop(self) -> None:
        """Let nobody wait any more, now or later: the run ends."""
        self._is_stopped = True
        self.fail(Stopped())

    def fail(self, error: Exception) -> None:
        """Let every call that waits end with an error."""
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(error)

    # In the file

    def enter(self, database: sqlite3.Connection) -> None:
        """Write the row of this process into a journal that was just opened, and forget processes that are dead."""
        with database:
            database.execute("BEGIN IMMEDIATE")
            self._read_processes(database)
            for name in (name for name, life in self._lives.items() if not is_running(life.pid)):
                database.execute("DELETE FROM processes WHERE id = ?", (name,))
            self._beat(database)
            if self._company:
                self._next_beat = self._first_claim = monotonic() + NEWCOMER_WAITS
            database.execute("DELETE FROM claims WHERE process NOT IN (SELECT id FROM processes)")

    def leave(self, database: sqlite3.Connection) -> None:
        """Remove the row and the claims of this process."""
        with suppress(sqlite3.Error), database:  # if it cannot be written, the others will see that we are gone
            database.execute("BEGIN IMMEDIATE")
            database.execute("DELETE FROM claims WHERE process = ?", (self._id,))
            database.execute("DELETE FROM processes WHERE id = ?", (self._id,))

    def look(self, database: sqlite3.Connection, in_flight: Iterable[Name]) -> None:
        """See who else is there, and which answers that calls wait for have been recorded.

        Args:
            database: The journal.
            in_flight: The calls that were sent, or are about to be. They are claimed where another process has come.
        """
        (version,) = database.execute("PRAGMA data_version").fetchone()
        if version != self._version:
            before, self._version = self._company, version
            self._read_processes(database)
            if self._company and not before:
                self._claim_all(database, in_flight)
            self._read_replies(database)
            if before - self._company:
                self._due |= self._waiting.keys()
        if self._company and monotonic() >= self._next_beat:
            self._beat(database)
            self._company = {name for name in self._company if not self._lives[name].is_over}
            self._due |= self._waiting.keys()  # a claim may have been given up, or its process may be lost

    def settle(self, database: sqlite3.Connection, recorded: Iterable[Name]) -> dict[Name, bool]:
        """Within a transaction, free the claims that ended, and claim what can be claimed.

        Args:
            database: The journal.
            recorded: Calls whose answers have just been recorded.

        Returns:
            For each call that is decided, whether it is ours; `resolve` tells those who wait.
        """
        over = self._own.intersection(recorded) | self._free
        delete = "DELETE FROM claims WHERE key = ? AND attempt = ? AND process = ?"
        database.executemany(delete, ((*name, self._id) for name in over))
        settled = {}
        for name in self._due & self._waiting.keys():
            if database.execute("SELECT 1 FROM replies WHERE key = ? AND attempt = ?", name).fetchone():
                settled[name] = False
                continue
            holder = database.execute("SELECT process FROM claims WHERE key = ? AND attempt = ?", name).fetchone()
            if holder is None or holder[0] not in self._company:
                database.execute("INSERT OR REPLACE INTO claims VALUES (?, ?, ?)", (*name, self._id))
                settled[name] = True
        return settled

    def resolve(self, recorded: Iterable[Name], settled: Mapping[Name, bool]) -> None:
        """Tell the calls that wait what was decided, once it is written. The arguments are those of `settle`, and what
        it returned."""
        self._own -= self._free | set(recorded)
        self._due, self._free = set(), set()
        for name, is_ours in settled.items():
            if is_ours:
                self._own.add(name)
            if not self._waiting[name].done():
                self._waiting[name].set_result(is_ours)

    def _read_processes(self, database: sqlite3.Connection) -> None:
        known, self._lives = self._lives, {}
        for name, pid, beat in database.execute("SELECT id, pid, beat FROM processes WHERE id != ?", (self._id,)):
            if isinstance(pid, int) and isinstance(beat, int):
                life = known.get(name)
                self._lives[name] = life if life and life.beat == beat else Life(pid, beat, monotonic())
        self._company = {name for name, life in self._lives.items() if not life.is_over}

    def _read_replies(self, database: sqlite3.Connection) -> None:
        """Note which of the calls that wait have an answer now."""
        last, self._last_row = self._last_row, last_row(database)
        if self._waiting:
            new = database.execute("SELECT key, attempt FROM replies WHERE rowid > ?", (last,))
            self._due |= self._waiting.keys() & set(new)

    def _claim_all(self, database: sqlite3.Connection, names: Iterable[Name]) -> None:
        """Claim calls that were sent while this process was alone, but for those that the other has claimed already."""
        self._own.update(names)
        with database:
            database.execute("BEGIN IMMEDIATE")
            insert = "INSERT OR IGNORE INTO claims VALUES (?, ?, ?)"
            database.executemany(insert, ((*name, self._id) for name in self._own))

    def _beat(self, database: sqlite3.Connection) -> None:
        """Give a sign of life."""
        self._next_beat = monotonic() + BEAT_EVERY
        beat = int(self._next_beat * 1000)
        database.execute("INSERT OR REPLACE INTO processes VALUES (?, ?, ?)", (self._id, os.getpid(), beat))


def last_row(database: sqlite3.Connection) -> int:
    """Return the number of the newest reply; 0 if there is none."""
    return int(database.execute("SELECT coalesce(max(rowid), 0) FROM replies").fetchone()[0])


def is_running(pid: int) -> bool:
    """Return whether a process lives, as far as we can see."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return pid > 0
