"""kill -9 at any moment: no row lost, none doubled, no recorded answer requested again."""

import os
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from shutil import copytree
from typing import TypeAlias

import pytest

from tests.every_command import DATAGEN, output_of
from tests.every_command import finish as finish_command
from tests.every_command import start as start_command
from tests.forked import Forked
from tests.jobs import rows, write_seeds
from tests.server import Faults, Server, running

IN_FLIGHT = 32
FAULTS = Faults(0.2, retry_after=0.02, hang_seconds=0.5)
"""None lets a client give up on an answer that is on its way, which would be lost without a kill as well."""
Answer = tuple[str, int]


Run: TypeAlias = "subprocess.Popen[str] | Forked"
Start = Callable[[Path, Server, Path], Run]


def words(seeds: Path, server: Server, output: Path) -> list[str]:
    output.parent.mkdir(exist_ok=True)
    options = ["--model", f"m@{server.url}", "-o", str(output), "--concurrency", str(IN_FLIGHT)]
    return ["evolve", str(seeds), *options]


def spawn(seeds: Path, server: Server, output: Path) -> Run:
    """Start a run as a user does."""
    command = [sys.executable, "-m", "datagen", *words(seeds, server, output)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def fork(seeds: Path, server: Server, output: Path) -> Run:
    """Start a run in a process that has imported everything: all its kills come while it works."""
    return Forked(shlex.join(words(seeds, server, output)))


def query_journal(folder: Path, query: str) -> list[tuple[bytes, int]]:
    """Query the journal, as another process would."""
    journal = folder / ".datagen" / "journal.sqlite3"
    if not journal.exists():
        return []
    database = sqlite3.connect(journal)
    try:
        return database.execute(query).fetchall()
    except sqlite3.OperationalError:
        return []  # killed before the tables were made
    finally:
        database.close()


def wait_until_idle(server: Server) -> None:
    """Wait until the server has read what a dead client had sent."""
    before = -1
    while server.in_flight or len(server.log) != before:
        before = len(server.log)
        time.sleep(0.05)


def finish(run: Run, expected: tuple[int, ...] = (0,)) -> str:
    """Wait for a run to end with an expected code; return its messages (stderr)."""
    _, stderr = run.communicate(timeout=300)
    assert run.returncode in expected, stderr
    return stderr


def kill_at(run: Run, seconds: float) -> bool:
    """Kill a run after some seconds; return whether it was still running."""
    try:
        run.wait(seconds)
    except subprocess.TimeoutExpired:
        run.kill()
    run.communicate()
    return run.returncode == -signal.SIGKILL


def run_with_kills(start: Start, seeds: Path, server: Server, output: Path, moments: list[float]) -> None:
    """Kill a run at each moment and start it again, let the last run finish, and check what was sent again."""
    marks: list[tuple[int, int, set[Answer]]] = []
    for moment in moments:
        begin = len(server.log)
        kill_at(start(seeds, server, output), moment)
        wait_until_idle(server)
        recorded = {
            (key.hex(), attempt) for key, attempt in query_journal(output.parent, "SELECT key, attempt FROM replies")
        }
        marks.append((begin, len(server.log), recorded))
    bound = query_journal(output.parent, "SELECT output, in_flight FROM runs WHERE in_flight > 0")
    stderr = finish(start(seeds, server, output))
    assert ("An earlier run was killed: up to" in stderr) == bool(bound)
    for begin, mark, recorded in marks:
        delivered = {(entry.call, entry.attempt) for entry in server.log[begin:mark] if entry.delivered}
        sent_again = {(entry.call, entry.attempt) for entry in server.log[mark:]}
        assert recorded.isdisjoint(sent_again), "a recorded answer was requested again"
        assert len(delivered - recorded) < 2 * IN_FLIGHT, "more than those in flight and those of one commit"
    ids = [row["id"] for row in rows(output)]
    assert len(ids) == len(set(ids))


def measure(start: Start, seeds: Path, server: Server) -> tuple[bytes, float]:
    """Run once without a kill: the rows, and how long it takes."""
    began = time.monotonic()
    finish(start(seeds, server, Path("whole/out.jsonl")))
    return Path("whole/out.jsonl").read_bytes(), time.monotonic() - began


def kill_and_compare(start: Start, seeds: Path, kills: int, chance: Random) -> None:
    with running(Server(latency=0.005)) as clean:
        expected, seconds = measure(start, seeds, clean)
    done = 0
    while done < kills:
        folder = Path(f"killed-{done}")
        moments = [chance.uniform(seconds / 8, seconds) for _ in range(min(chance.randint(1, 3), kills - done))]
        with running(Server(latency=0.005, faults=FAULTS)) as server:
            run_with_kills(start, seeds, server, folder / "out.jsonl", moments)
        assert (folder / "out.jsonl").read_bytes() == expected
        done += len(moments)


@pytest.fixture
def few_seeds(real_seeds: Path) -> Path:
    """So few that a run takes a second."""
    few = Path("few.jsonl")
    few.write_bytes(b"".join(real_seeds.read_bytes().splitlines(keepends=True)[:60]))
    return few


def test_three_kills_leave_the_file_as_it_would_have_been(few_seeds: Path) -> None:
    kill_and_compare(spawn, few_seeds, 3, Random(0))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(5))
def test_fifty_kills_leave_the_file_as_it_would_have_been(few_seeds: Path, part: int) -> None:
    kill_and_compare(fork, few_seeds, 10, Random(part + 1))


class ThreeBadAnswers(Server):
    """A server that sends every third call three empty answers, whatever was sent before, and then a good one."""

    def fate(self, key: str, attempt: int) -> str:
        return "empty" if int(key, 16) % 3 == 0 and attempt <= 3 else "ok"


def kill_after(run: Run, server: Server, requests: int) -> None:
    """Kill a run when the server has seen so many requests, or let it end."""
    while run.poll() is None and len(server.log) < requests:
        time.sleep(0.001)
    run.kill()
    run.communicate()


def run_to_end(start: Start, seeds: Path, server: Server, output: Path) -> bytes:
    """Run to the end, where some rows may have failed; return the rows."""
    finish(start(seeds, server, output), expected=(0, 3))
    return output.read_bytes()


def kill_where_calls_fail(start: Start, seeds: Path, times: int, chance: Random) -> None:
    with running(ThreeBadAnswers(latency=0.005)) as server:
        first, requests = run_to_end(start, seeds, server, Path("whole/out.jsonl")), len(server.log)
        second = run_to_end(start, seeds, server, Path("whole/out.jsonl"))
    assert len(first) < len(second), "the second run asks the failed calls again"
    for number in range(times):
        output, how_often = Path(f"killed-{number}/out.jsonl"), chance.randint(1, 3)
        kills = chance.sample(range(requests // 4, requests), how_often)
        with running(ThreeBadAnswers(latency=0.005)) as server:
            for kill in sorted(kills):
                kill_after(start(seeds, server, output), server, kill)
            assert run_to_end(start, seeds, server, output) == first, kills
            assert run_to_end(start, seeds, server, output) == second, kills


def test_a_kill_changes_nothing_where_calls_have_failed_three_times() -> None:
    kill_where_calls_fail(spawn, write_seeds(12), 1, Random(1))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(3))
def test_many_kills_change_nothing_where_calls_have_failed_three_times(part: int) -> None:
    kill_where_calls_fail(fork, write_seeds(24), 5, Random(part + 10))


FOLDERS, KILLS, TRIES = 3, 3, 12
"""Outputs of each command; kills of each, and how often that is tried at most."""


def measure_command(command: str) -> tuple[float, float]:
    """Run a command; return after how many seconds it writes its first file beside the input, and ends."""
    began, before, begins = time.monotonic(), set(os.listdir()), 0.0
    run = start_command(command)
    while run.poll() is None:
        if not begins and set(os.listdir()) != before:
            begins = time.monotonic() - began
        time.sleep(0.002)
    run.communicate()
    return begins, time.monotonic() - began


def kill_often(command: str, chance: Random, begins: float, seconds: float) -> int:
    """Kill a command again and again; return how often it was running. `begins` is the share before its work."""
    kills = 0
    for _ in range(TRIES):
        began = time.monotonic()
        if kill_at(start_command(command), seconds * chance.uniform(chance.choice((0.1, begins)), 1)):
            kills += 1
        else:
            seconds = time.monotonic() - began  # it has less to do than before, or more of the machine
        if kills == KILLS:
            break
    return kills


@pytest.mark.slow
@pytest.mark.parametrize("name", DATAGEN)
def test_each_command_killed_at_any_moment_ends_as_an_undisturbed_one(name: str, inputs: Path) -> None:
    """Half of the kills come while it imports or works, half while it works."""
    copytree(inputs, ".", dirs_exist_ok=True)
    command, chance = DATAGEN[name], Random(name)
    begins, seconds = measure_command(f"{command} -o whole.jsonl")
    for folder in (f"killed-{number}" for number in range(FOLDERS)):
        Path(folder).mkdir()  # with a journal of its own
        again = f"{command} -o {folder}/out.jsonl"
        assert kill_often(again, chance, begins / seconds, seconds) == KILLS
        finish_command(again)
        assert output_of(name, f"{folder}/out.jsonl") == output_of(name, "whole.jsonl")
