"""What `kill -9` costs: a run of `evolve` killed at 20 random moments and started again each time.

    python -m benchmarks.kills

After each kill, a copy of the journal shows which answers were recorded, and the server's log shows which requests it
received, identified by the client's (key, attempt). Two numbers of requests sent again after a kill: those with a
recorded answer (must be 0), and those that were in flight or not yet committed. At the end, the files must be equal to
those of a run without kills. The bound is twice the requests in flight: a commit never waits for more answers.
"""

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from random import Random
from statistics import mean
from tempfile import TemporaryDirectory
from time import monotonic, sleep
from urllib.request import urlopen

from benchmarks.common import Line, main, write_rows
from benchmarks.remote import Remote, serving
from tests.jobs import digest
from tests.server import LogEntry, evolve_answer

KILLS, SLOTS, LATENCY, LONGEST = 20, 64, (0.08, 0.7), 0.4
ROOT = Path(__file__).resolve().parent.parent
Name = tuple[str, int]
"""(key, attempt) of a call."""


def start(folder: Path, model: str) -> "subprocess.Popen[bytes]":
    """Start the command."""
    command = [sys.executable, "-m", "datagen", "evolve", str(folder / "rows.jsonl")]
    options = ["-o", str(folder / "out.jsonl"), "--model", model, "--concurrency", str(SLOTS), "-q"]
    return subprocess.Popen([*command, *options], cwd=ROOT, stderr=subprocess.DEVNULL)


def requests(server: Remote) -> bytes:
    """Return a text that changes with every request."""
    with urlopen(server.url.removesuffix("/v1") + "/stats") as reply:
        return bytes(reply.read())


def kill_once(folder: Path, server: Remote, chance: Random) -> float | None:
    """Start a run and kill it a random time after its first request; return the time, None if it had ended."""
    before, process = requests(server), start(folder, server.model)
    while requests(server) == before and process.poll() is None:
        sleep(0.01)
    sleep(chance.uniform(0, LONGEST))
    process.kill()
    return monotonic() if process.wait() < 0 else None


def recorded_calls(folder: Path) -> set[Name]:
    """Return the calls in a copy of the journal; the original stays as the killed run left it."""
    with TemporaryDirectory() as copy:
        shutil.copytree(folder / ".datagen", Path(copy, "journal"))
        with closing(sqlite3.connect(Path(copy, "journal", "journal.sqlite3"))) as database:
            return {(key.hex(), attempt) for key, attempt in database.execute("SELECT key, attempt FROM replies")}


def call_name(entry: LogEntry) -> Name:
    return entry.call, entry.attempt


def measure(quick: bool) -> list[Line]:
    chance, kills, records = Random(0), *((4, 100) if quick else (KILLS, 450))
    with serving(evolve_answer, LATENCY) as calm, TemporaryDirectory() as folder:
        assert start(write_rows(Path(folder), records).parent, calm.model).wait() == 0
        expected = digest(Path(folder, "out.jsonl"))
    deaths: list[tuple[float, set[Name]]] = []
    with serving(evolve_answer, LATENCY) as server, TemporaryDirectory() as name_:
        folder_ = write_rows(Path(name_), records).parent
        while len(deaths) < kills and (killed_at := kill_once(folder_, server, chance)):
            deaths.append((killed_at, recorded_calls(folder_)))
        assert start(folder_, server.model).wait() == 0
        same, log = digest(folder_ / "out.jsonl") == expected, server.record().log
    births = [0.0, *(killed_at for killed_at, _ in deaths)]
    counts = [
        count_repeats(log, since, killed_at, kept) for since, (killed_at, kept) in zip(births, deaths, strict=False)
    ]
    lost = [lost for _, lost in counts]
    return [
        Line(
            f"kill -9, {len(deaths)} times: recorded answers sent again",
            "0",
            f"{sum(paid for paid, _ in counts)}, final files {'identical' if same else 'DIFFERENT'}",
            "-",
        ),
        Line(
            "sent again after a kill, at most",
            f"< 2 × {SLOTS} in flight",
            f"{max(lost)} (mean {mean(lost):.1f})",
            "requests in flight",
        ),
    ]


def count_repeats(log: list[LogEntry], since: float, killed_at: float, kept: set[Name]) -> tuple[int, int]:
    """Count the requests sent again after a kill: those recorded before it, and those only sent before it."""
    before = {call_name(entry) for entry in log if since < entry.at <= killed_at}
    after = {call_name(entry) for entry in log if entry.at > killed_at}
    return len(after & kept), len((after & before) - kept)


if __name__ == "__main__":
    main(measure)
