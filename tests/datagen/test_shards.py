"""Shards fill journals, `gather` merges them, and the whole command writes the bytes of one machine."""

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from datagen.engine.job import Outcome
from datagen.engine.shards import parse_shard
from datagen.errors import InputError
from datagen.generators.self_instruct import SelfInstruct
from datagen.llm.gather import find_journal, gather
from tests.datagen.test_cli import datagen
from tests.datagen.test_kills import ThreeBadAnswers
from tests.jobs import digest, evolve, perform, respond, write_seeds
from tests.server import Server, running

IN_FLIGHT = 2
SIM = "sim:refuse=0.1,leak=0.05,noop=0.05,malformed=0.2"
"""So many malformed answers that some calls fail in all their attempts."""
COMMANDS: dict[str, Callable[..., Outcome]] = {
    "evolve": lambda seeds, output, **run: evolve(seeds, SIM, output, rounds=2, **run),
    "respond": lambda seeds, output, **run: respond(seeds, SIM, output, strategy="cot", k=3, **run),
    "vote": lambda seeds, output, **run: respond(seeds, SIM, output, strategy="vote", k=3, **run),
}


@pytest.fixture
def seeds() -> Path:
    """Seeds of which some are there twice."""
    path = write_seeds(14)
    path.write_bytes(path.read_bytes() + b"".join(path.read_bytes().splitlines(keepends=True)[:5]))
    return path


def replies(folder: str) -> int:
    with sqlite3.connect(Path(folder, ".datagen", "journal.sqlite3")) as database:
        return int(database.execute("SELECT count(*) FROM replies").fetchone()[0])


def run_shards(command: Callable[..., Outcome], seeds: Path, total: int) -> list[str]:
    """Run every shard in a folder of its own; return the folders."""
    folders = [f"shard-{number}" for number in range(1, total + 1)]
    for number, folder in enumerate(folders, 1):
        command(seeds, f"{folder}/out.jsonl", shard=f"{number}/{total}")
        assert sorted(path.name for path in Path(folder).iterdir()) == [".datagen"], "a shard writes no rows"
    return folders


@pytest.mark.parametrize(
    ("name", "total"), [("evolve", 1), ("evolve", 3), ("evolve", 8), ("evolve", 30), ("respond", 3), ("vote", 3)]
)
def test_shards_and_gather_give_the_bytes_of_one_machine(name: str, total: int, seeds: Path) -> None:
    command = COMMANDS[name]
    whole = command(seeds, "whole/out.jsonl")
    folders = run_shards(command, seeds, total)
    Path("all").mkdir()
    for folder in Random(total).sample(folders, len(folders)):
        gather(find_journal(folder), Path("all"))
    gathered = command(seeds, "all/out.jsonl")
    assert digest("all/out.jsonl") == digest("whole/out.jsonl")
    assert gathered.run["requests"] == 0
    assert replies("all") == whole.run["requests"] <= sum(map(replies, folders))


def test_shards_in_one_folder_need_no_gather(seeds: Path) -> None:
    command = COMMANDS["evolve"]
    whole = command(seeds, "whole/out.jsonl")
    for number in (2, 1, 3):
        command(seeds, "one/out.jsonl", shard=f"{number}/3")
    assert command(seeds, "one/out.jsonl").run["requests"] == 0
    assert digest("one/out.jsonl") == digest("whole/out.jsonl")
    assert replies("one") == whole.run["requests"]


def test_failures_of_shards_are_those_of_the_whole_run_and_are_asked_again_after_it(seeds: Path) -> None:
    """A third of the calls gets three empty answers, and then a good one."""
    with running(ThreeBadAnswers()) as server:

        def command(seeds: Path, output: str, **run: Any) -> Outcome:
            return evolve(seeds, f"m@{server.url}", output, rounds=2, **run)

        whole = command(seeds, "whole/out.jsonl")
        assert whole.result["funnel"]["failed"]
        folders = run_shards(command, seeds, 3)
        Path("all").mkdir()
        for folder in folders:
            gather(find_journal(folder), Path("all"))
        assert command(seeds, "all/out.jsonl").run["requests"] == 0
        assert digest("all/out.jsonl") == digest("whole/out.jsonl")
        again = command(seeds, "all/out.jsonl")
    assert again.run["requests"] > 0
    assert again.result["funnel"]["kept"] > whole.result["funnel"]["kept"]


def test_gather_counts_what_is_new_known_paid_twice_and_unreadable(seeds: Path) -> None:
    command = COMMANDS["evolve"]
    command(seeds, "a/out.jsonl", shard="1/2")
    shutil.copytree("a", "b")
    with sqlite3.connect("b/.datagen/journal.sqlite3") as database:
        database.execute("UPDATE replies SET body = (SELECT body FROM replies WHERE rowid = 4) WHERE rowid = 1")
        database.execute("UPDATE replies SET body = 'no reply' WHERE rowid = 2")
        database.execute("UPDATE replies SET attempt = 9 WHERE rowid = 3")
    Path("all").mkdir()
    total = replies("a")
    first = gather(find_journal("a"), Path("all"))
    assert (first.new, first.known, first.paid_twice, first.unreadable) == (total, 0, 0, 0)
    second = gather(find_journal("b/.datagen"), Path("all"))
    assert (second.new, second.known, second.paid_twice, second.unreadable) == (1, total - 3, 1, 1)
    again = gather(find_journal("b/.datagen/journal.sqlite3"), Path("all"))
    assert (again.new, again.known, again.paid_twice, again.unreadable) == (0, total - 2, 1, 1)
    assert not (again.is_damaged or first.is_damaged)


def test_gather_takes_what_is_whole_of_a_damaged_journal(seeds: Path) -> None:
    COMMANDS["evolve"](seeds, "a/out.jsonl", shard="1/1")
    path, total = Path("a/.datagen/journal.sqlite3"), replies("a")
    content = bytearray(path.read_bytes())
    content[4096 * 3 : 4096 * 4] = bytes(4096)
    path.write_bytes(content)
    Path("all").mkdir()
    gathered = gather(path, Path("all"))
    assert gathered.is_damaged or gathered.new == total
    assert 0 < gathered.new <= total
    assert path.read_bytes() == content, "the other journal was written to"


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "1/0", "a/b", "1/3/5", "-1/3", "1/3 "])
def test_a_shard_is_a_number_of_a_number(text: str) -> None:
    with pytest.raises(InputError, match="expected I/N"):
        parse_shard(text)


def test_what_cannot_be_divided_says_why(seeds: Path) -> None:
    with pytest.raises(InputError, match="depends on the rows before"):
        perform(SelfInstruct, seeds, "sim", "out.jsonl", SelfInstruct.options_type(), n=5, shard="1/2")
    for options, says in (({"n": 4}, "--shard with -n"), ({"json": True}, "--shard with --json")):
        with pytest.raises(InputError, match=says):
            evolve(seeds, "sim", shard="1/2", **options)
    ran = datagen("judge", str(seeds), "--by", "verify", "--shard", "1/2")
    assert ran.returncode == 2
    assert "error" in ran.stderr


def test_gather_refuses_what_is_no_journal() -> None:
    with pytest.raises(InputError, match="nowhere: no journal"):
        find_journal("nowhere")
    Path("notes.txt").write_text("no database, but long enough to be one" * 100)
    with pytest.raises(InputError, match="nothing in it can be read as the answers of a journal"):
        gather(Path("notes.txt"), Path())


def test_a_folder_is_not_gathered_into_itself(seeds: Path) -> None:
    evolve(seeds, "sim", "out.jsonl", shard="1/1")
    with pytest.raises(InputError, match="the journal of this folder itself"):
        gather(find_journal("."), Path())


def test_the_commands_say_what_comes_next(seeds: Path) -> None:
    for number in (1, 2):
        Path(f"s{number}").mkdir()
        ran = datagen("evolve", str(seeds), "--model", "sim", "--shard", f"{number}/2", "-o", f"s{number}/o.jsonl")
        assert ran.returncode == 0, ran.stderr
        assert f"Shard {number}/2 is recorded in s{number}/.datagen/journal.sqlite3" in ran.stderr
        assert "--shard" not in ran.stderr.rpartition("to write the rows:")[2]
    ran = datagen("gather", "s1", "s2")
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.count("new answers") == 2
    ran = datagen("evolve", str(seeds), "--model", "sim", "-o", "o.jsonl")
    assert "0 requests sent" in ran.stderr


def test_a_shard_on_which_no_record_falls_is_done(seeds: Path) -> None:
    ran = datagen("evolve", str(seeds), "--limit", "2", "--model", "sim", "--shard", "3/3")
    assert ran.returncode == 0, ran.stderr


@pytest.mark.slow
def test_killed_shards_pay_for_little_again_and_lose_nothing(seeds: Path) -> None:
    """Each of four shards is killed three times; then it runs to its end, and all are gathered."""
    chance, env = Random(1), {**os.environ, "OMP_NUM_THREADS": "1"}
    with running(Server(latency=0.02)) as server:
        evolve(seeds, f"m@{server.url}", "whole/out.jsonl", rounds=2)
        paid = len(server.log)
        for number in range(1, 5):
            command = [sys.executable, "-m", "datagen", "evolve", str(seeds), "--rounds", "2", "--timeout", "1"]
            command += ["--model", f"m@{server.url}", "-o", f"s{number}/out.jsonl", "--shard", f"{number}/4"]
            command += ["--concurrency", str(IN_FLIGHT)]
            Path(f"s{number}").mkdir()
            for _ in range(3):
                run = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)
                time.sleep(chance.uniform(0.4, 0.9))
                run.kill()
                run.wait()
            subprocess.run(command, env=env, check=True, stderr=subprocess.DEVNULL)
        again = len(server.log) - 2 * paid
        print(f"{paid} paid for, {again} paid for again")
        Path("all").mkdir()
        for number in range(1, 5):
            gather(find_journal(f"s{number}"), Path("all"))
        assert evolve(seeds, f"m@{server.url}", "all/out.jsonl", rounds=2).run["requests"] == 0
    assert digest("all/out.jsonl") == digest("whole/out.jsonl")
    assert again < 12 * 2 * IN_FLIGHT < paid, "twice the requests in flight for each kill, and more"
