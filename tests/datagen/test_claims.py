"""Several commands of a folder that ask for the same at the same time pay for it once, and none waits for ever."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from time import monotonic, sleep

import pytest

from datagen.errors import DatagenError, Stopped
from datagen.llm import claims as claims_module
from datagen.llm.call import Call, Reply
from tests.datagen.test_journal import Source, ask, call, completion, open_journal
from tests.jobs import digest, rows, write_seeds
from tests.server import Server, running

CALLS = [call(f"call {number}") for number in range(40)]
FILE = Path(".datagen/journal.sqlite3")


class Slow(Source):
    """A layer that takes a while, and fails where it is broken."""

    def __init__(self, seconds: float = 0.05, *, broken: bool = False) -> None:
        super().__init__()
        self._seconds, self._broken = seconds, broken

    async def send(self, call: Call) -> Reply:
        self.calls.append(call)
        await asyncio.sleep(self._seconds)
        if self._broken:
            raise DatagenError("no")
        return Reply(200, completion(f"answer to {call.key.decode()}"))


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims_module, "BEAT_EVERY", 0.05)
    monkeypatch.setattr(claims_module, "LOST_AFTER", 0.4)


def insert_process(name: int, pid: int, *calls: Call) -> None:
    """Write another process into the journal, with its claims."""
    with closing(sqlite3.connect(FILE)) as database, database:
        database.execute("INSERT INTO processes VALUES (?, ?, 7)", (name, pid))
        database.executemany("INSERT INTO claims VALUES (?, ?, ?)", [(one.key, one.attempt, name) for one in calls])


def table(name: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(FILE)) as database:
        return database.execute(f"SELECT * FROM {name}").fetchall()


def test_two_that_ask_the_same_pay_once() -> None:
    one, other = Slow(), Slow()

    async def both() -> list[list[Reply]]:
        with open_journal(one) as first, open_journal(other) as second:
            replies = await asyncio.gather(
                *(asyncio.gather(*(journal.send(item) for item in CALLS)) for journal in (first, second))
            )
            assert table("claims") == [], "a claim goes where the answer is recorded"
            assert (first.replayed, second.replayed) == (0, len(CALLS))
            (note,) = second.notes
            assert note.startswith("40 answers came from another command")
        return replies

    replies = asyncio.run(both())
    assert replies[0] == replies[1]
    assert (len(one.calls), len(other.calls)) == (len(CALLS), 0)
    assert table("processes") == []


def test_what_the_first_has_sent_while_it_was_alone_is_not_sent_again() -> None:
    one, other = Slow(1.0), Slow()

    async def both() -> None:
        with open_journal(one) as first:
            sent = asyncio.gather(*(first.send(item) for item in CALLS))
            await asyncio.sleep(0.02)
            assert table("claims") == [], "a process that is alone claims nothing"
            with open_journal(other) as second:
                await asyncio.gather(*(second.send(item) for item in CALLS))
            await sent

    asyncio.run(both())
    assert (len(one.calls), len(other.calls)) == (len(CALLS), 0)


def test_each_pays_for_what_it_asks_first() -> None:
    one, other = Slow(), Slow()

    async def both() -> None:
        with open_journal(one) as first, open_journal(other) as second:
            for _ in range(3):  # the first calls tell them of each other
                await asyncio.gather(first.send(call("a")), second.send(call("b")))
            await asyncio.sleep(0.3)
            forward, backward = (asyncio.gather(*(j.send(item) for item in order)) for j, order in (
                (first, CALLS[:20]), (second, CALLS[20:])))  # fmt: skip
            await asyncio.sleep(0.02)
            await asyncio.gather(*(j.send(item) for j in (first, second) for item in CALLS))
            await asyncio.gather(forward, backward)

    asyncio.run(both())
    assert (len(one.calls), len(other.calls)) == (21, 21)


def test_a_call_whose_sender_fails_is_sent_by_the_other() -> None:
    one, other = Slow(0.3, broken=True), Slow()

    async def both() -> list[object]:
        with open_journal(one) as first, open_journal(other) as second:
            return list(await asyncio.gather(first.send(call()), second.send(call()), return_exceptions=True))

    failure, reply = asyncio.run(both())
    assert isinstance(failure, DatagenError) and isinstance(reply, Reply)
    assert len(other.calls) == 1


def test_the_claims_of_a_dead_process_do_not_hold() -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    with open_journal(Source()):
        pass
    insert_process(1, dead.pid, *CALLS)
    source, began = Slow(), monotonic()
    with open_journal(source) as journal:
        ask(journal, *CALLS)
    assert len(source.calls) == len(CALLS) and monotonic() - began < claims_module.LOST_AFTER
    assert table("claims") == table("processes") == []


@pytest.mark.parametrize("pid", [os.getpid(), "no number"], ids=["this process", "no number"])
def test_the_claims_of_a_process_without_a_sign_of_life_do_not_hold(pid: int) -> None:
    with open_journal(Source()):
        pass
    insert_process(1, pid, *CALLS)
    source = Slow()
    with open_journal(source) as journal:
        ask(journal, *CALLS)
    assert len(source.calls) == len(CALLS)


def test_a_call_that_waits_for_another_process_ends_with_the_run() -> None:
    async def wait() -> None:
        with open_journal(Source()) as journal:
            asyncio.get_running_loop().call_later(0.1, journal.stop_waiting)
            with pytest.raises(Stopped):
                await journal.send(call())
            with pytest.raises(Stopped):
                await journal.send(call("b"))

    with open_journal(Source()):
        pass
    insert_process(1, os.getpid(), call(), call("b"))
    asyncio.run(wait())


def test_a_journal_that_fails_lets_nobody_wait() -> None:
    async def wait() -> None:
        with open_journal(Source()) as journal:
            waiting = asyncio.ensure_future(journal.send(call()))
            await asyncio.sleep(0.05)
            journal._db.close()
            with pytest.raises(DatagenError, match="the journal cannot be read or written"):
                await waiting

    with open_journal(Source()):
        pass
    insert_process(1, os.getpid(), call())
    asyncio.run(wait())


def start(server: Server, output: str) -> "subprocess.Popen[str]":
    options = ["--model", f"m@{server.url}", "-o", output, "--concurrency", "16"]
    command = [sys.executable, "-m", "datagen", "respond", "seeds.jsonl", *options]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("kill", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_two_equal_commands_pay_once_and_one_that_is_killed_stops_nobody(*, kill: bool) -> None:
    count = 400 if kill else 150
    write_seeds(count)
    with running(Server(latency=0.05)) as server:
        one, other = start(server, "one.jsonl"), start(server, "other.jsonl")
        while kill and len(server.log) < 100:
            sleep(0.01)
        if kill:
            one.send_signal(signal.SIGKILL)
            one.communicate()
        for run in (other,) if kill else (one, other):
            _, messages = run.communicate(timeout=300)
            assert run.returncode == 0, messages
    assert server.requests <= count + 16 + (32 if kill else 0), "in flight at the start, and what a kill loses"
    assert len(rows("other.jsonl")) == count
    assert kill or digest("one.jsonl") == digest("other.jsonl")
