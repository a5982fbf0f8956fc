"""One prompt that always fails: it fails alone, as one row, at every concurrency and in every later run."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from datagen.commands.main import app
from datagen.llm import limiter
from tests.jobs import rows
from tests.permanent import ANSWERED, FAULTS, MARK, REFUSED, poisoned
from tests.wire import wire

PROMPTS, PLACE = 7, 2
pytestmark = pytest.mark.usefixtures("one_certificate")
QUICK = ("403", "closed")


@pytest.fixture(autouse=True)
def quick_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limiter, "FIRST_BACKOFF", 0.002)


def respond(folder: str, url: str, concurrency: int) -> int:
    """Run the command; return its exit code."""
    options = ["--model", f"m@{url}", "-o", f"{folder}/x.jsonl", "--concurrency", str(concurrency)]
    return CliRunner().invoke(app, ["respond", "prompts.jsonl", *options, "--timeout", "1", "-q"]).exit_code


def files(folder: str) -> tuple[bytes, bytes]:
    """Return the kept and the rejected rows."""
    return Path(folder, "x.jsonl").read_bytes(), Path(folder, "x.rejected.jsonl").read_bytes()


def recorded(folder: str) -> list[tuple[int, str]]:
    with closing(sqlite3.connect(Path(folder, ".datagen/journal.sqlite3"))) as database:
        return database.execute("SELECT status, body FROM replies").fetchall()


def check_rows(folder: str, name: str) -> None:
    """Check that all but one are kept, and that one failed, once."""
    kept, (failed,) = rows(f"{folder}/x.jsonl"), rows(f"{folder}/x.rejected.jsonl")
    assert [row["response"][:24] for row in kept] == [
        f"The answer to number {number} i"[:24] for number in range(PROMPTS) if number != PLACE
    ]
    assert failed["status"] == "failed" and MARK.decode() in failed["record"]["prompt"], name


def check(name: str, concurrency: int) -> bytes:
    """Run, run again, and again with the server down; return the kept rows."""
    folder = f"{name}-{concurrency}"
    words = [f"{MARK.decode() if number == PLACE else 'ask'} {number}" for number in range(PROMPTS)]
    Path(folder).mkdir()
    Path("prompts.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in words))
    with wire(lambda body: poisoned(name, body)) as server:
        for _ in range(2):
            assert respond(folder, server.url, concurrency) == 0
            check_rows(folder, name)
        before = files(folder)
    for status, body in recorded(folder):
        assert status == 200 or (status in (400, 403, 404, 429) and name in REFUSED), f"{status} is recorded"
        assert status != 200 or json.loads(body)["choices"], "what holds no answer is not recorded"
    code = respond(folder, server.url, concurrency)
    assert code in ({0, 5} if name in ANSWERED | REFUSED else {5}), "what is recorded needs no server"
    assert files(folder) == before, "rows never fall"
    return before[0]


@pytest.mark.parametrize("name", QUICK)
def test_one_prompt_fails_alone_and_rows_never_fall(name: str) -> None:
    assert check(name, 1) == check(name, 64)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FAULTS.keys() - set(QUICK)))
def test_one_prompt_fails_alone_whatever_its_fault(name: str) -> None:
    assert check(name, 1) == check(name, 64)
