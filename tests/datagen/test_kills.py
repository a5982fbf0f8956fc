"""kill -9 at any moment: no row lost, none doubled, no recorded answer requested again."""

import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest

from tests.jobs import rows
from tests.server import Faults, Server, running

IN_FLIGHT = 32
FAULTS = Faults(0.2, retry_after=0.02, hang_seconds=3)
Answer = tuple[str, int]


def start(seeds: Path, server: Server, output: Path) -> "subprocess.Popen[str]":
    output.parent.mkdir(exist_ok=True)
    options = ["--model", f"m@{server.url}", "-o", str(output), "--concurrency", str(IN_FLIGHT), "--timeout", "0.5"]
    command = [sys.executable, "-m", "datagen", "evolve", str(seeds), *options]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


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


def finish(run: "subprocess.Popen[str]") -> str:
    """Wait for a run to succeed; return its messages (stderr)."""
    _, stderr = run.communicate(timeout=120)
    assert run.returncode == 0, stderr
    return stderr


def kill_at(run: "subprocess.Popen[str]", seconds: float) -> None:
    try:
        run.wait(seconds)
    except subprocess.TimeoutExpired:
        run.kill()
    run.communicate()


def run_with_kills(seeds: Path, server: Server, output: Path, moments: list[float]) -> None:
    """Kill a run at each moment and start it again, let the last run finish, and check what was sent again."""
    marks: list[tuple[int, set[Answer]]] = []
    for moment in moments:
        kill_at(start(seeds, server, output), moment)
        wait_until_idle(server)
        recorded = {
            (key.hex(), attempt) for key, attempt in query_journal(output.parent, "SELECT key, attempt FROM replies")
        }
        marks.append((len(server.log), recorded))
    bound = query_journal(output.parent, "SELECT output, in_flight FROM runs")
    stderr = finish(start(seeds, server, output))
    assert ("An earlier run was killed: up to" in stderr) == bool(bound)
    for mark, recorded in marks:
        delivered = {(entry.call, entry.attempt) for entry in server.log[:mark] if entry.delivered}
        sent_again = {(entry.call, entry.attempt) for entry in server.log[mark:]}
        assert recorded.isdisjoint(sent_again), "a recorded answer was requested again"
        assert len((delivered - recorded) & sent_again) <= 2 * IN_FLIGHT, "more than those in flight and one commit"
    ids = [row["id"] for row in rows(output)]
    assert len(ids) == len(set(ids))


def measure(seeds: Path, server: Server) -> tuple[bytes, float]:
    """Run once without a kill: the rows, and how long it takes."""
    began = time.monotonic()
    finish(start(seeds, server, Path("whole/out.jsonl")))
    return Path("whole/out.jsonl").read_bytes(), time.monotonic() - began


def kill_and_compare(seeds: Path, kills: int, chance: Random) -> None:
    with running(Server(latency=0.005)) as clean:
        expected, seconds = measure(seeds, clean)
    done = 0
    while done < kills:
        folder = Path(f"killed-{done}")
        moments = [chance.uniform(0.3, seconds) for _ in range(min(chance.randint(1, 3), kills - done))]
        with running(Server(latency=0.005, faults=FAULTS)) as server:
            run_with_kills(seeds, server, folder / "out.jsonl", moments)
        assert (folder / "out.jsonl").read_bytes() == expected
        done += len(moments)


def test_three_kills_leave_the_file_as_it_would_have_been(real_seeds: Path) -> None:
    few = Path("few.jsonl")
    few.write_bytes(b"".join(real_seeds.read_bytes().splitlines(keepends=True)[:60]))
    kill_and_compare(few, 3, Random(0))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(5))
def test_fifty_kills_leave_the_file_as_it_would_have_been(real_seeds: Path, part: int) -> None:
    kill_and_compare(real_seeds, 10, Random(part + 1))
