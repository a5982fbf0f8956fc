"""A journal that is damaged, foreign or gone: it is told, what is whole is kept, and nothing raises."""

import asyncio
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from datagen.errors import DatagenError
from datagen.llm import database as database_module
from datagen.llm.call import Call, Reply
from datagen.llm.journal import Journal
from tests.jobs import digest, evolve, write_seeds

FOLDER = Path()
FILE = Path(".datagen/journal.sqlite3")
LOG = Path(".datagen/journal.sqlite3-wal")
PAGE = 4096
ROWS = 300
MOST_ROWS_OF_A_PAGE = 35


class Source:
    """A layer whose answers are decided by the call, most of them short, some of many pages."""

    def __init__(self) -> None:
        self.sent: list[Call] = []

    async def send(self, call: Call) -> Reply:
        self.sent.append(call)
        return answer(call)


def answer(call: Call) -> Reply:
    dice = Random(call.key)
    text = "数 word " * dice.choice([1, 2, 5, 10] * 4 + [400, 3000])
    return Reply(200, json.dumps({"choices": [{"message": {"content": text}}]}, ensure_ascii=False))


CALLS = [Call(str(i).encode().ljust(32, b"."), "m", [], {}, 0, 1, "", {}) for i in range(ROWS)]


def ask(journal: Journal) -> list[Reply]:
    async def all_of_them() -> list[Reply]:
        return await asyncio.gather(*(journal.send(call) for call in CALLS))

    return asyncio.run(all_of_them())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a journal of ROWS replies, in the file; and in `log/` one whose replies are in the log."""
    folder = tmp_path_factory.mktemp("whole")
    journal = Journal(folder, {"m": Source()})
    journal._db.execute("PRAGMA wal_autocheckpoint = 0")
    ask(journal)
    shutil.copytree(folder / ".datagen", folder / "log")
    journal.close()
    return folder


def check(sent_again: int, whole: Path, *, lost_later: int = 0) -> str:
    """Use the journal of the working folder; return what is said about it. No more is sent than what was damaged.

    Args:
        sent_again: The most calls that are sent again.
        whole: The folder with the undamaged journal.
        lost_later: The most answers that the run itself loses, before the damage shows.
    """
    layer = Source()
    journal = Journal(FOLDER, {"m": layer})
    journal.begin_run("x.jsonl", lambda: 1)
    replies = ask(journal)
    journal.end_run(ended=True)
    note = " ".join(journal.notes)
    journal.close()
    assert [reply.body for reply in replies] == [answer(call).body for call in CALLS]
    assert len(layer.sent) <= sent_again, f"{len(layer.sent)} sent again, {note}"
    again = Source()
    second = Journal(FOLDER, {"m": again})
    ask(second)
    assert len(again.sent) <= lost_later, "all of it is recorded now"
    assert lost_later or second.notes == []
    second.close()
    return note


def overwrite(start: int, content: bytes) -> None:
    data = bytearray(FILE.read_bytes())
    data[start : start + len(content)] = content
    FILE.write_bytes(data)


def pages_of(kind: int) -> list[int]:
    """Return the numbers of the pages of a kind: 13 table leaf, 5 inner table, 10 index leaf, 2 inner index."""
    data = FILE.read_bytes()
    return [start // PAGE for start in range(PAGE, len(data), PAGE) if data[start] == kind]


HEADER = {
    "magic": (0, b"SQLite format 4\0"),
    "magic gone": (0, bytes(16)),
    "page size": (16, b"\x00\x07"),
    "other page size": (16, b"\x02\x00"),
    "write version": (18, b"\x09"),
    "read version": (19, b"\x09"),
    "reserved": (20, b"\xff"),
    "fractions": (21, b"\x01\x02\x03"),
    "change counter": (24, b"\xff\xff\xff\xff"),
    "pages": (28, b"\x00\x00\x00\x02"),
    "free list": (32, b"\x00\x00\x00\x03\x00\x00\x00\x09"),
    "schema cookie": (40, b"\x7f\xff\xff\xff"),
    "schema format": (44, b"\x00\x00\x00\x63"),
    "encoding": (56, b"\x00\x00\x00\x02"),
    "whole header": (0, bytes(100)),
    "header of ones": (0, b"\xff" * 100),
    "root type": (100, b"\x02"),
    "cells of the root": (103, b"\xff\xff"),
    "schema text": (PAGE - 500, b"CREATE GARBAGE" * 30),
    "first page": (0, bytes(PAGE)),
}


@pytest.mark.parametrize("name", HEADER)
def test_damage_of_the_first_page_loses_no_answer(name: str, whole: Path) -> None:
    shutil.copytree(whole / ".datagen", ".datagen")
    overwrite(*HEADER[name])
    check(0, whole)


@pytest.mark.parametrize("content", [bytes(PAGE), b"\xff" * PAGE, Random(0).randbytes(PAGE)], ids=["0", "1", "random"])
@pytest.mark.parametrize("kind", [13, 5, 10, 2], ids=["leaf", "inner", "index leaf", "inner index"])
def test_damage_of_a_page_loses_no_more_than_its_rows(kind: int, content: bytes, whole: Path) -> None:
    shutil.copytree(whole / ".datagen", ".datagen")
    damaged = (pages_of(kind) or [3])[:3]
    for page in damaged:
        overwrite(page * PAGE, content)
    check(len(damaged) * MOST_ROWS_OF_A_PAGE if kind == 13 else 0, whole)


@pytest.mark.parametrize("seed", range(10))
def test_bits_that_flip_lose_no_more_than_their_rows(seed: int, whole: Path) -> None:
    shutil.copytree(whole / ".datagen", ".datagen")
    dice, data = Random(seed), bytearray(FILE.read_bytes())
    leaf = dice.choice(pages_of(13))
    for _ in range(8):
        at = leaf * PAGE + dice.randrange(60)  # the head of the page, with the places of its rows
        data[at] ^= 1 << dice.randrange(8)
    FILE.write_bytes(data)
    check(MOST_ROWS_OF_A_PAGE, whole, lost_later=MOST_ROWS_OF_A_PAGE)  # of those written into this very page


@pytest.mark.parametrize("share", [0.0, 0.02, 0.25, 0.5, 0.9, 0.999])
def test_a_truncated_journal_keeps_what_is_left(share: float, whole: Path) -> None:
    shutil.copytree(whole / ".datagen", ".datagen")
    with FILE.open("r+b") as file:
        file.truncate(int(FILE.stat().st_size * share))
    note = check(int(ROWS * (1 - share)) + 2 * MOST_ROWS_OF_A_PAGE, whole)
    assert share == 0.0 or "was damaged" in note or "could not be read" in note, "an empty file is a new journal"


@pytest.mark.parametrize("damage", ["gone", "zeros", "cut", "random tail", "index random", "file gone", "file zero"])
def test_damage_of_the_log_keeps_what_is_left(damage: str, whole: Path) -> None:
    shutil.copytree(whole / "log", ".datagen")
    index, size = LOG.with_name("journal.sqlite3-shm"), LOG.stat().st_size
    if damage == "gone":
        LOG.unlink()
    elif damage == "zeros":
        LOG.write_bytes(bytes(size))
    elif damage == "cut":
        LOG.write_bytes(LOG.read_bytes()[: size // 2])
    elif damage == "random tail":
        LOG.write_bytes(LOG.read_bytes()[: size // 2] + Random(1).randbytes(size // 2))
    elif damage == "index random":
        index.write_bytes(Random(2).randbytes(index.stat().st_size))
    else:
        FILE.write_bytes(Random(3).randbytes(PAGE * 3) if damage == "file zero" else b"")
    check(0 if damage in ("index random", "file zero") else ROWS, whole)


FOREIGN: dict[str, str] = {
    "other columns": "DROP TABLE replies; CREATE TABLE replies (a, b)",
    "no table": "DROP TABLE replies",
    "a view": "DROP TABLE replies; CREATE VIEW replies AS SELECT 1 AS key",
    "more columns": "ALTER TABLE replies ADD COLUMN more",
    "other note": "DROP TABLE runs; CREATE TABLE runs (output TEXT PRIMARY KEY, in_flight INTEGER NOT NULL)",
    "strange note": "INSERT INTO runs VALUES ('x.jsonl', 'many', x'00')",
    "no index": "PRAGMA writable_schema = 1; DELETE FROM sqlite_schema WHERE type = 'index'",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_journal_of_another_form_is_set_aside_or_used(name: str, whole: Path) -> None:
    shutil.copytree(whole / ".datagen", ".datagen")
    database = sqlite3.connect(FILE)
    database.executescript(FOREIGN[name])
    database.close()
    check(0 if name in ("other note", "strange note", "no index", "more columns") else ROWS, whole)


ROW_DAMAGE = {
    "redirect": "status = 301",
    "status of text": "status = 'ok'",
    "status zero": "status = 0",
    "early status": "status = 101",
    "no JSON": "body = 'half'",
    "cut JSON": "body = substr(body, 1, 20)",
    "no choices": "body = '{}'",
    "another JSON": "body = '[1, 2]'",
    "deep JSON": f"body = '{'[' * 50_000}'",
    "no UTF-8": "body = CAST(x'7b22ff' AS TEXT)",
    "bytes": "body = x'00ff'",
    "a number": "body = 7.5",
    "empty": "body = ''",
}


@pytest.mark.parametrize("name", ROW_DAMAGE)
def test_a_row_that_holds_no_reply_is_asked_again_and_said(name: str, whole: Path) -> None:
    shutil.copytree(whole / ".datagen", ".datagen")
    database = sqlite3.connect(FILE)
    with database:
        database.execute(f"UPDATE replies SET {ROW_DAMAGE[name]} WHERE rowid % 100 = 7")
    database.close()
    assert check(3, whole) == "3 recorded answers could not be read and had to be asked again"


def test_a_damaged_file_is_kept_under_another_name_and_said(whole: Path) -> None:
    shutil.copytree(whole / ".datagen", ".datagen")
    overwrite(0, b"no database at all" * 4)
    before = FILE.read_bytes()
    note = check(0, whole)
    aside = Path(".datagen/journal.damaged-1.sqlite3")
    assert aside.read_bytes() == before
    assert f"was damaged or of another form. {ROWS} answers in it could be read and are kept" in note
    assert str(aside) in note
    assert FILE.stat().st_mode & 0o777 == 0o600


def test_damage_that_shows_in_mid_run_is_mended_in_mid_run(whole: Path) -> None:
    shutil.copytree(whole / ".datagen", ".datagen")
    leaves = pages_of(13)
    damaged = leaves[len(leaves) // 2]
    overwrite(damaged * PAGE, b"\xff" * PAGE)
    layer = Source()
    journal = Journal(FOLDER, {"m": layer})
    assert journal.notes == [], "a leaf is not read at the start"
    ask(journal)
    assert 0 < len(layer.sent) <= MOST_ROWS_OF_A_PAGE
    assert "was damaged" in journal.notes[0]
    journal.close()


def test_a_journal_that_vanishes_in_mid_run_is_written_again_and_said() -> None:
    def run(remove: Callable[[], object], name: str) -> None:
        journal = Journal(FOLDER, {"m": Source()})
        ask(journal)
        remove()
        asyncio.run(journal.send(Call(name.encode().ljust(32), "m", [], {}, 0, 1, "", {})))
        assert "was removed during the run; it was written again" in journal.notes[0]
        journal.end_run(ended=True)
        journal.close()
        again = Source()
        second = Journal(FOLDER, {"m": again})
        ask(second)
        assert not again.sent
        second.close()

    run(FILE.unlink, "the file")
    run(lambda: shutil.rmtree(".datagen"), "the folder")


def test_a_journal_that_is_locked_is_one_line_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT", 0.05)
    Journal(FOLDER, {}).close()
    other = sqlite3.connect(FILE)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(DatagenError, match="database is locked; another program holds it; end that program"):
        Journal(FOLDER, {"m": Source()})
    other.close()


def test_a_full_disk_is_one_line_with_the_way_out() -> None:
    journal = Journal(FOLDER, {"m": Source()})
    journal._db.execute("PRAGMA max_page_count = 10")
    with pytest.raises(DatagenError, match="full; free some space on the disk and run the same command again"):
        ask(journal)
    journal.close()


def test_a_run_on_a_damaged_journal_writes_the_same_files() -> None:
    seeds = write_seeds(12)
    evolve(seeds, "sim", "out/x.jsonl", rounds=2)
    expected, file = digest("out/x.jsonl"), Path("out") / FILE
    data = bytearray(file.read_bytes())
    data[PAGE : 3 * PAGE] = bytes(2 * PAGE)
    file.write_bytes(data)
    outcome = evolve(seeds, "sim", "out/x.jsonl", rounds=2, overwrite=True)
    assert digest("out/x.jsonl") == expected
    assert "was damaged" in outcome.notes[0]
