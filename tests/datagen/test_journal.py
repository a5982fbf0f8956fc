"""The journal: a recorded call is never sent again, by this process or another."""

import asyncio
import json
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from datagen.errors import DatagenError
from datagen.llm.budget import Stop
from datagen.llm.call import Call, Reply
from datagen.llm.journal import Journal
from datagen.llm.limiter import Limiter

FOLDER = Path()


class Source:
    """A layer that replies with a counter."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    async def send(self, call: Call) -> Reply:
        self.calls.append(call)
        await asyncio.sleep(0.001)
        return Reply(200, completion(f"answer {len(self.calls)}"))


def completion(text: str) -> str:
    """The body of an answer."""
    return json.dumps({"choices": [{"message": {"content": text}}]})


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
    assert (first.text, first.from_earlier_run) == ("answer 1", False)
    assert (second.text, second.from_earlier_run) == ("answer 1", True)
    assert len(source.calls) == 1


def test_equal_calls_under_way_are_one_flight() -> None:
    source = Source()
    with open_journal(source) as journal:
        replies = ask(journal, *[call()] * 50)
    assert len(source.calls) == 1
    assert {reply.text for reply in replies} == {"answer 1"}


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
    class Overtaken(Source):
        async def send(self, call: Call) -> Reply:
            with sqlite3.connect(".datagen/journal.sqlite3") as other:
                values = (call.key, call.attempt, 200, completion("from the other"))
                other.execute("INSERT INTO replies (key, attempt, status, body) VALUES (?, ?, ?, ?)", values)
            other.close()
            return await super().send(call)

    with open_journal(Overtaken()) as journal:
        assert [reply.text for reply in ask(journal, call())] == ["from the other"]


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
            return Reply(200, completion("\ud83d"))

    with open_journal(Odd()) as journal:
        ask(journal, call())
    with open_journal(Source()) as journal:
        assert ask(journal, call())[0].body == completion("\ud83d")


def test_the_folder_is_for_its_owner_alone_and_ignored_by_git() -> None:
    with open_journal(Source()):
        pass
    assert stat.S_IMODE(Path(".datagen").stat().st_mode) == 0o700
    assert stat.S_IMODE(Path(".datagen/journal.sqlite3").stat().st_mode) == 0o600
    assert Path(".datagen/.gitignore").read_text() == "*\n"


class AtOnce:
    """A layer that replies at once, and counts what a kill would lose: in flight, or replied and not recorded."""

    def __init__(self) -> None:
        self.in_flight = self.replies = self.most_lost = 0

    async def send(self, call: Call) -> Reply:
        self.in_flight += 1
        await asyncio.sleep(0)
        with sqlite3.connect(".datagen/journal.sqlite3") as database:
            (recorded,) = database.execute("SELECT count(*) FROM replies").fetchone()
        self.most_lost = max(self.most_lost, self.in_flight + self.replies - recorded)
        self.in_flight, self.replies = self.in_flight - 1, self.replies + 1
        return Reply(200, completion("yes"))


@pytest.mark.parametrize("concurrency", [1, 8, None])
def test_a_kill_loses_fewer_than_twice_the_requests_in_flight(concurrency: int | None) -> None:
    source = AtOnce()
    limiter = Limiter({"m": source}, Stop(), concurrency)
    journal = Journal(FOLDER, {"m": limiter})
    journal.begin_run("x.jsonl", lambda: limiter.peak)
    ask(journal, *(call(str(number)) for number in range(300)))
    journal.close()
    assert source.most_lost < 2 * limiter.peak
    with open_journal(Source()) as journal:
        journal.begin_run("x.jsonl", lambda: 0)
        assert journal.unrecorded >= source.most_lost


def test_a_run_killed_before_its_first_answer_says_what_may_be_lost() -> None:
    async def kill() -> None:
        sent = [asyncio.ensure_future(journal.send(call(str(number)))) for number in range(20)]
        await asyncio.sleep(0.01)
        for task in sent:
            task.cancel()

    limiter = Limiter({"m": Silent()}, Stop(), 8)
    journal = Journal(FOLDER, {"m": limiter})
    journal.begin_run("x.jsonl", lambda: limiter.peak)
    asyncio.run(kill())
    journal.close()
    with open_journal(Source()) as journal:
        journal.begin_run("x.jsonl", lambda: 0)
        assert journal.unrecorded >= 8


class Silent:
    """A layer that never replies."""

    async def send(self, call: Call) -> Reply:
        await asyncio.get_running_loop().create_future()
        raise AssertionError


def test_a_run_that_ended_leaves_no_note_and_a_killed_one_does() -> None:
    peak: Callable[[], int] = lambda: 7  # noqa: E731
    for ended, expected in ((True, 0), (False, 13)):
        with open_journal(Source()) as journal:
            journal.begin_run("x.jsonl", peak)
            assert journal.unrecorded == 0
            ask(journal, call(f"run {ended}"))
            if ended:
                journal.end_run(ended=True)
        with open_journal(Source()) as journal:
            journal.begin_run("x.jsonl", peak)
            assert journal.unrecorded == expected
            journal.begin_run("another.jsonl", peak)
            assert journal.unrecorded == 0


def test_a_reply_is_old_once_the_run_that_recorded_it_has_ended() -> None:
    """Killed and stopped runs are part of the run that continues them; runs of other outputs end apart."""

    def is_old(output: str, *, end: bool | None) -> bool:
        with open_journal(Source()) as journal:
            journal.begin_run(output, lambda: 1)
            (reply,) = ask(journal, call())
            if end is not None:
                journal.end_run(ended=end)
        return reply.from_earlier_run

    assert [is_old("x", end=end) for end in (None, False, None, True)] == [False] * 4
    assert is_old("x", end=None), "the run before has ended"
    assert is_old("y", end=True), "it was there before the first run of this output"


def test_a_journal_that_is_a_folder_is_one_clear_line() -> None:
    Path(".datagen/journal.sqlite3").mkdir(parents=True)
    with pytest.raises(DatagenError, match="the journal cannot be opened"):
        Journal(FOLDER, {})
