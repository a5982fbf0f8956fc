"""What `kill -9` costs: a run of `evolve` killed at 20 random moments and started again each time.

    python -m benchmarks.kills

After each kill a copy of the journal says what was recorded. The server's log says what was asked for, by the client's
own (key, attempt). Asked again after a kill: recorded answers (must be none), and what was under way or not committed.
At the end, the files are those of a run that nobody killed. The bound is the requests in flight plus the answers of
one commit window, taken as the most replies that left the server within two of them.
"""

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from random import Random
from statistics import mean
from tempfile import TemporaryDirectory
from time import monotonic, sleep
from urllib.request import urlopen

from benchmarks.common import Line, main, write_rows
from benchmarks.remote import Remote, serving
from datagen.llm.journal import COMMIT_EVERY
from tests.jobs import digest
from tests.server import Seen, evolve_answer, lognormal

KILLS, SLOTS, LATENCY, LONGEST = 20, 64, (0.08, 0.7), 0.4
ROOT = Path(__file__).resolve().parent.parent
Name = tuple[str, int]
"""(key, attempt) of a call."""


def start(folder: Path, model: str) -> "subprocess.Popen[bytes]":
    """Start the command."""
    command = [sys.executable, "-m", "datagen", "evolve", str(folder / "rows.jsonl")]
    told = ["-o", str(folder / "out.jsonl"), "--model", model, "--concurrency", str(SLOTS), "-q"]
    return subprocess.Popen([*command, *told], cwd=ROOT, stderr=subprocess.DEVNULL)


def requests(server: Remote) -> bytes:
    """Return a text that changes with every request."""
    with urlopen(server.url.removesuffix("/v1") + "/stats") as reply:
        return bytes(reply.read())


def kill_once(folder: Path, server: Remote, chance: Random) -> float | None:
    """Start, wait for the first new request and a random time more, kill; return when, None if it had ended."""
    before, process = requests(server), start(folder, server.model)
    while requests(server) == before and process.poll() is None:
        sleep(0.01)
    sleep(chance.uniform(0, LONGEST))
    process.kill()
    return monotonic() if process.wait() < 0 else None


def recorded(folder: Path) -> set[Name]:
    """Read what a copy of the journal holds; the next run finds the original as the dead one left it."""
    with TemporaryDirectory() as copy:
        shutil.copytree(folder / ".datagen", Path(copy, "journal"))
        with closing(sqlite3.connect(Path(copy, "journal", "journal.sqlite3"))) as database:
            return {(key.hex(), attempt) for key, attempt in database.execute("SELECT key, attempt FROM replies")}


def name(seen: Seen) -> Name:
    return seen.call, seen.attempt


def most_within(times: Iterable[float], seconds: float) -> int:
    """Return the most of these times that lie within so many seconds."""
    ordered, first, most = sorted(times), 0, 0
    for last, time in enumerate(ordered):
        while ordered[first] < time - seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


def measure(quick: bool) -> list[Line]:
    chance, kills, records = Random(0), *((4, 100) if quick else (KILLS, 450))
    with serving(evolve_answer, LATENCY) as calm, TemporaryDirectory() as folder:
        assert start(write_rows(Path(folder), records).parent, calm.model).wait() == 0
        expected = digest(Path(folder, "out.jsonl"))
    deaths: list[tuple[float, set[Name]]] = []
    with serving(evolve_answer, LATENCY) as server, TemporaryDirectory() as name_:
        folder_ = write_rows(Path(name_), records).parent
        while len(deaths) < kills and (when := kill_once(folder_, server, chance)):
            deaths.append((when, recorded(folder_)))
        assert start(folder_, server.model).wait() == 0
        same, log = digest(folder_ / "out.jsonl") == expected, server.record().log
    births = [0.0, *(when for when, _ in deaths)]
    again = [_again(log, since, when, kept) for since, (when, kept) in zip(births, deaths, strict=False)]
    wait = lognormal(*LATENCY)
    window = most_within((seen.at + wait(seen.key) for seen in log), 2 * COMMIT_EVERY)
    lost = [lost for _, lost in again]
    return [
        Line(
            f"kill -9, {len(deaths)} times: recorded answers sent again",
            "0",
            f"{sum(paid for paid, _ in again)}, final files {'identical' if same else 'DIFFERENT'}",
            "-",
        ),
        Line(
            "sent again after a kill, at most",
            f"≤ {SLOTS} + one commit window ({window})",
            f"{max(lost)} (mean {mean(lost):.1f})",
            "requests in flight",
        ),
    ]


def _again(log: list[Seen], since: float, when: float, kept: set[Name]) -> tuple[int, int]:
    """Count what was sent after a kill although it was recorded, or although the run just killed had sent it."""
    before = {name(seen) for seen in log if since < seen.at <= when}
    after = {name(seen) for seen in log if seen.at > when}
    return len(after & kept), len((after & before) - kept)


if __name__ == "__main__":
    main(measure)
