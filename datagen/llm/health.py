"""How a journal is: looked at and not changed, for `datagen doctor`; and mended, where that is asked for.

A run mends a journal by itself where it meets damage. It may meet it late, since it reads the answers that it needs.
The check here reads all of it, for a bounded time.
"""

import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, time
from urllib.parse import quote

from datagen.llm.database import (
    CHECKS,
    JOURNAL_FOLDER,
    identity,
    is_damage,
    one_line_errors,
    open_database,
    read_row_reply,
    with_logs,
)
from datagen.llm.facts import Facts, decode

MOST_SECONDS = 1.5
"""For each of the two checks: of the pages, and of the answers."""
STEPS = 20_000
"""Of SQLite's machine between two looks at the clock."""


@dataclass
class Health:
    """How a journal is."""

    path: str
    bytes: int
    answers: int | None = None
    """Recorded answers; None if they cannot be counted."""
    bad_answers: int = 0
    """Rows that hold no answer; they are asked again where a run meets them."""
    is_whole: bool | None = None
    """None: there was no time to read all of it."""
    problem: str = ""
    facts: dict[str, Facts] = field(default_factory=dict)
    """What runs remember of servers, by place (facts.py)."""


def journal_health(folder: Path) -> Health | None:
    """Look at the journal of a folder; None if it has none."""
    path = folder / JOURNAL_FOLDER / "journal.sqlite3"
    if not path.is_file():
        return None
    health = Health(str(path), sum(name.stat().st_size for name in with_logs(path) if name.exists()))
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True, timeout=1)) as database:
            examine(database, health)
    except sqlite3.Error as error:
        health.is_whole = False if is_damage(error, path) else None
        health.problem = " ".join(str(error).split())
    return health


def examine(database: sqlite3.Connection, health: Health) -> None:
    """Read all of a journal, as far as there is time. Raises sqlite3.Error where it is damaged."""
    database.text_factory = bytes
    for check in CHECKS:
        if "FROM replies" in check:  # an older journal may lack the others
            database.execute(check).fetchall()
    health.facts = read_facts(database)
    health.answers = int(database.execute("SELECT count(*) FROM replies").fetchone()[0])
    deadline = monotonic() + MOST_SECONDS
    database.set_progress_handler(lambda: monotonic() > deadline, STEPS)
    try:
        verdict = database.execute("PRAGMA quick_check(1)").fetchone()[0].decode()
        health.is_whole = verdict == "ok"
        health.problem = "" if health.is_whole else " ".join(verdict.split())
    except sqlite3.OperationalError as error:
        if error.sqlite_errorname != "SQLITE_INTERRUPT":
            raise
    database.set_progress_handler(None, 0)
    deadline = monotonic() + MOST_SECONDS
    for status, body in database.execute("SELECT status, body FROM replies"):
        health.bad_answers += read_row_reply(status, body, is_old=True) is None
        if monotonic() > deadline:
            health.is_whole = health.is_whole and None
            return


def read_facts(database: sqlite3.Connection) -> dict[str, Facts]:
    """Return all facts that a run would use; an older journal has no table of them."""
    if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'facts'").fetchone():
        return {}
    rows = database.execute("SELECT place, learned, facts FROM facts")
    facts = {
        place.decode(errors="replace"): Facts(decode(text), learned)
        for place, learned, text in rows
        if isinstance(place, bytes) and isinstance(learned, float)
    }
    return {place: one for place, one in facts.items() if one.values and one.are_fresh(time())}


def mend_journal(folder: Path) -> str:
    """Put a new journal with all answers that can be read in the place of a damaged one; return what is said of it.

    Raises:
        DatagenError: It cannot be replaced.
    """
    path = folder / JOURNAL_FOLDER / "journal.sqlite3"
    opened = open_database(folder, replace=identity(path))
    with one_line_errors(path):
        opened.database.close()
    return opened.note
