"""The journal: a recorded call is never sent again, by this process or another."""

import asyncio
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from datagen.errors import DatagenError
from datagen.llm.call import Call, Reply
from datagen.llm.journal import Journal

FOLDER = Path()


class Source:
    """A layer that replies with a counter."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    async def send(self, call: Call) -> Reply:
        self.calls.append(call)
        await asyncio.sleep(0.001)
        return Reply(200, f"answer {len(self.calls)}")


def call(name: str = "a", attempt: int = 1) -> Call:
    return Call(name.encode().ljust(32, b"."), "m", [], {}, 0, attempt, "", {})


@contextmanager
def open_journal(source: Source) -> Iterator[Journal]:
    journal = Journal(FOLDER, {"m": source})
    try:
        yield journal
    finally:
        journal.close()


def ask(journal: Journal, *calls: Call) -> list[Reply]:
    async def all_of_them() -> list[Reply]:
        return await asyncio.gather(*(journal.send(call) for call in calls))

    return asyncio.run(all_of_them())


def test_an_answer_survives_the_process_and_is_marked_as_from_an_earlier_run() -> None:
    source = Source()
    with open_journal(source) as journal:
        (first,) = ask(journal, call())
    with open_journal(source) as journal:
        (second,) = ask(journal, call())
        assert journal.replayed == 1
    assert (first.body, first.from_earlier_run) == ("answer 1", False)
    assert (second.body, second.from_earlier_run) == ("answer 1", True)
    assert len(source.calls) == 1


def test_equal_calls_under_way_are_one_flight() -> None:
    source = Source()
    with open_journal(source) as journal:
        replies = ask(journal, *[call()] * 50)
    assert len(source.calls) == 1
    assert {reply.body for reply in replies} == {"answer 1"}


def test_attempts_and_keys_are_apart() -> None:
    source = Source()
    with open_journal(source) as journal:
        ask(journal, call("a"), call("b"), call("a", attempt=2))
    assert len(source.calls) == 3


def test_an_answer_is_handed_on_after_its_commit() -> None:
    """An answer is returned only when another connection can read it too."""
    counts: list[int] = []

    async def count_rows() -> None:
        with open_journal(Source()) as journal:
            await journal.send(call())
            other = sqlite3.connect(".datagen/journal.sqlite3")
            counts.extend(other.execute("SELECT count(*) FROM replies").fetchone())
            other.close()

    asyncio.run(count_rows())
    assert counts == [1]


def test_of_two_processes_that_asked_the_same_the_first_recorded_answer_stands() -> None:
    here, there = Source(), Source()
    there.calls = [call()] * 6

    async def both() -> list[Reply]:
        with open_journal(here) as one, open_journal(there) as other:
            first = await one.send(call())
            # `other` looked before the answer was there: play its late insert through the same commit
            late = asyncio.ensure_future(other._send_and_record(call()))
            return [first, await late]

    replies = asyncio.run(both())
    assert [reply.body for reply in replies] == ["answer 1", "answer 1"]


def test_a_failure_below_is_not_recorded_and_reaches_all_who_wait() -> None:
    class Broken(Source):
        async def send(self, call: Call) -> Reply:
            await super().send(call)
            raise DatagenError("no")

    source = Broken()
    with open_journal(source) as journal:

        async def ask_all() -> list[object]:
            return await asyncio.gather(*(journal.send(call()) for _ in range(3)), return_exceptions=True)

        assert [type(result) for result in asyncio.run(ask_all())] == [DatagenError] * 3
    working = Source()
    with open_journal(working) as journal:
        ask(journal, call())
    assert len(working.calls) == 1


def test_half_a_character_in_a_reply_is_stored_as_it_came() -> None:
    class Odd(Source):
        async def send(self, call: Call) -> Reply:
            return Reply(200, '{"text": "\\ud83d"}')

    with open_journal(Odd()) as journal:
        ask(journal, call())
    with open_journal(Source()) as journal:
        assert ask(journal, call())[0].body == '{"text": "\\ud83d"}'


def test_the_folder_is_for_its_owner_alone_and_ignored_by_git() -> None:
    with open_journal(Source()):
        pass
    assert stat.S_IMODE(Path(".datagen").stat().st_mode) == 0o700
    assert stat.S_IMODE(Path(".datagen/journal.sqlite3").stat().st_mode) == 0o600
    assert Path(".datagen/.gitignore").read_text() == "*\n"


def test_a_run_that_ended_leaves_no_note_and_a_killed_one_does() -> None:
    peak: Callable[[], int] = lambda: 7  # noqa: E731
    for ended, expected in ((True, 0), (False, 7)):
        with open_journal(Source()) as journal:
            journal.begin_run("x.jsonl", peak)
            assert journal.unrecorded == 0
            ask(journal, call(f"run {ended}"))
            if ended:
                journal.end_run()
        with open_journal(Source()) as journal:
            journal.begin_run("x.jsonl", peak)
            assert journal.unrecorded == expected
            journal.begin_run("another.jsonl", peak)
            assert journal.unrecorded == 0


@pytest.mark.parametrize("damage", ["not a database", "a folder"])
def test_a_journal_that_cannot_be_opened_is_one_clear_line(damage: str) -> None:
    Path(".datagen").mkdir()
    journal = Path(".datagen/journal.sqlite3")
    if damage == "a folder":
        journal.mkdir()
    else:
        journal.write_bytes(b"not a database" * 1000)
    with pytest.raises(DatagenError, match="the journal cannot be opened"):
        Journal(FOLDER, {})
