"""A journal as a model: it answers what it has recorded, and sends nothing."""

from contextlib import closing
from pathlib import Path
from shutil import rmtree

from datagen.errors import Outage
from datagen.llm.call import Call, Layer, Reply
from datagen.llm.database import JOURNAL, connect, fill_new, new_name, one_line_errors, read_row_reply
from datagen.llm.gather import read_only
from datagen.llm.salvage import SavedRow

IN_ORDER = "SELECT rowid, key, attempt, status, body FROM replies ORDER BY key, attempt"
FIND = "SELECT status, body FROM replies WHERE key = ? AND attempt = ?"


class Recorded:
    """An innermost layer that reads the answers of a journal.

    Args:
        journal: The file; it is only read.
        ends_here: Whether the last recorded attempt of a call counts as one of this run, so that no other follows. If
            not, a call without a good answer asks once more, as it does in a later run of its command.
    """

    def __init__(self, journal: Path, *, ends_here: bool) -> None:
        self._path, self._ends_here = journal, ends_here
        with one_line_errors(journal):
            self._database = read_only(journal)

    async def send(self, call: Call) -> Reply:
        """Return the recorded reply.

        Raises:
            Outage: There is none.
        """
        reply = self._find(call.key, call.attempt, is_old=not self._ends_here)
        if reply is None:
            raise Outage(f"{self._path}: holds no answer to a call of {call.model} ({call.task})")
        if self._ends_here and self._find(call.key, call.attempt + 1, is_old=True):
            return Reply(reply.status, reply.body, from_earlier_run=True)
        return reply

    def gate(self, below: Layer) -> Layer:
        """Stand in the place of what would send the calls of a model."""
        return self

    def _find(self, key: bytes, attempt: int, *, is_old: bool) -> Reply | None:
        with one_line_errors(self._path):
            row = self._database.execute(FIND, (key, attempt)).fetchone()
        return read_row_reply(*row, is_old=is_old) if row else None

    def close(self) -> None:
        self._database.close()


def write_bare(folder: Path) -> int:
    """Write the journal of a folder anew with its answers and nothing else, in the order of their keys.

    What is left behind: names of outputs, addresses of servers, times, payments. Return the number of answers.
    """
    path = folder / JOURNAL
    with one_line_errors(path):
        with closing(read_only(path)) as database:
            rows = database.execute(IN_ORDER)
            count = fill_new(path, (SavedRow(number, *row[1:]) for number, row in enumerate(rows, 1)), [])
        new_name(path).replace(path)
        with closing(connect(path)) as database:
            database.execute("PRAGMA journal_mode = DELETE")  # who only reads it makes no file beside it
        for other in [entry for entry in path.parent.iterdir() if entry != path]:
            rmtree(other) if other.is_dir() else other.unlink()
    return count
