"""Closed streams, old locales, names that are not UTF-8, a folder that is gone: one line or none, and no traceback."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from datagen.records.files import dump_line
from tests.jobs import write_seeds
from tests.server import Server, running

COMMANDS = {
    "respond": "respond seeds.jsonl --model sim -o a.jsonl",
    "pipe": "respond seeds.jsonl --model sim -o -",
    "filter": "filter rows.jsonl -o f.jsonl",
    "convert": "convert rows.jsonl -o -",
    "dry run": "evolve seeds.jsonl --model sim --dry-run",
    "trace": "trace 0123456789abcdef",
    "help": "--help",
}
CODES = {"trace": 2}
STREAMS = [">&-", "2>&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-"]
LOCALES = ["LC_ALL=C", "LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0", "PYTHONIOENCODING=ascii:strict"]
STRANGE = os.fsdecode(b"\xe4 \xff\n\x1b]52;c;eA==\x07.jsonl")
"""A name that is not UTF-8, and that a terminal would obey."""


@pytest.fixture(autouse=True)
def files() -> None:
    write_seeds(5)
    Path("rows.jsonl").write_text('{"prompt": "A → B?", "response": "→ ä 你好"}\n', encoding="utf-8")


def shell(line: str, before: str = "", after: str = "") -> subprocess.CompletedProcess[bytes]:
    program = f"exec env {before} {sys.executable} -m datagen {line} {after}"
    return subprocess.run(["bash", "-c", program], capture_output=True, timeout=300)


def check(ran: subprocess.CompletedProcess[bytes], name: str) -> None:
    output = ran.stdout + ran.stderr
    assert ran.returncode == CODES.get(name, 0), output
    assert b"Traceback" not in output and b"a bug in datagen" not in output, output
    assert not list(Path().glob("datagen-error-*"))


@pytest.mark.slow
@pytest.mark.parametrize("streams", STREAMS)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_works_with_closed_streams(name: str, streams: str) -> None:
    check(shell(COMMANDS[name], after=streams), name)
    if name == "respond":
        assert len(Path("a.jsonl").read_text().splitlines()) == 5


def test_what_is_printed_to_a_closed_stream_does_not_land_in_the_next_file() -> None:
    check(shell(COMMANDS["respond"], after="<&- >&- 2>&-"), "respond")
    for path in (Path("a.jsonl"), Path("a.rejected.jsonl"), Path("a.meta.json")):
        for line in path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]:
            json.loads(line)
    ran = shell(COMMANDS["pipe"], after="2>&-")
    assert all(json.loads(line)["response"] for line in ran.stdout.splitlines()), "messages are no rows"


@pytest.mark.slow
@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_works_in_an_old_locale(name: str, locale: str) -> None:
    check(shell(COMMANDS[name], before=locale), name)


@pytest.mark.parametrize("line", ["respond {} --model sim", "filter {}", "convert {}", "evolve {} --model sim -n 1"])
def test_a_name_that_is_not_utf_8_is_a_name(line: str) -> None:
    shutil.copy("rows.jsonl", STRANGE)
    for _ in range(2):  # the second time it is finished
        arguments = [STRANGE if word == "{}" else word for word in line.split()]
        if line.startswith("convert"):
            arguments.append("--overwrite")
        ran = subprocess.run([sys.executable, "-m", "datagen", *arguments], capture_output=True, timeout=300)
        check(ran, "")
        assert b"\x1b]52" not in ran.stdout + ran.stderr and b"\x07" not in ran.stdout + ran.stderr


@pytest.mark.parametrize("name", ["respond", "convert", "trace"])
def test_a_working_folder_that_is_gone_is_one_line(name: str) -> None:
    Path("gone").mkdir()
    program = f"cd gone; rmdir ../gone; exec {sys.executable} -m datagen {COMMANDS[name]}"
    ran = subprocess.run(["bash", "-c", program], capture_output=True, text=True, timeout=300)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert [line for line in ran.stderr.splitlines() if "getcwd" not in line] == [
        "error: the working folder was removed; change to another one (cd)"
    ]


def truncate(file: BinaryIO) -> None:
    file.truncate(5_000_000)


def append(file: BinaryIO) -> None:
    file.seek(0, os.SEEK_END)
    file.write(b'{"prompt": "one more"}\n')


def edit(file: BinaryIO) -> None:
    file.seek(-10, os.SEEK_END)
    file.write(b"y")


@pytest.mark.parametrize("change", [truncate, append, edit])
def test_an_input_that_changes_during_the_run_ends_it_unfinished(change: Callable[[BinaryIO], None]) -> None:
    rows = ({"prompt": f"Describe thing {i}. {'x' * 4_000}"} for i in range(1_500))
    Path("big.jsonl").write_bytes(b"".join(map(dump_line, rows)))
    with running(Server(latency=0.02)) as server:
        command = ["respond", "big.jsonl", "--model", f"m@{server.url}", "-o", "o.jsonl", "--concurrency", "64"]
        run = subprocess.Popen([sys.executable, "-m", "datagen", *command], stderr=subprocess.PIPE, text=True)
        while len(server.log) < 20 and run.poll() is None:
            time.sleep(0.01)
        with open("big.jsonl", "r+b") as file:
            change(file)
        _, stderr = run.communicate(timeout=300)
    assert run.returncode == 2, stderr
    assert stderr.splitlines()[-1] == "error: big.jsonl: was changed while it was read; run the command again"
    assert json.loads(Path("o.meta.json").read_text())["result"]["status"] == "stopped"
