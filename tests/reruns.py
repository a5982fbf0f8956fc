"""Run `respond` against a server whose faults never heal: once, again, and again with the server down."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from typer.testing import CliRunner

from datagen.commands.main import app
from tests.wire import Pieces, wire


def respond(folder: str, url: str, concurrency: int, *options: str) -> int:
    """Run the command; return its exit code."""
    named = ["--model", f"m@{url}", "-o", f"{folder}/x.jsonl", "--concurrency", str(concurrency)]
    return CliRunner().invoke(app, ["respond", "prompts.jsonl", *named, "--timeout", "1", "-q", *options]).exit_code


def files(folder: str) -> tuple[bytes, bytes]:
    """Return the kept and the rejected rows."""
    return Path(folder, "x.jsonl").read_bytes(), Path(folder, "x.rejected.jsonl").read_bytes()


def recorded(folder: str) -> list[tuple[int, str]]:
    """Return status and body of every reply in the journal."""
    with closing(sqlite3.connect(Path(folder, ".datagen/journal.sqlite3"))) as database:
        return database.execute("SELECT status, body FROM replies").fetchall()


def run_three_times(
    folder: str,
    prompts: list[str],
    answer: Callable[[bytes], Pieces],
    concurrency: int,
    *options: str,
    codes: set[int],
) -> bytes:
    """Run, run again, and again with the server down; return the kept rows, which are the same each time.

    Args:
        folder: Where the output goes; it is made.
        prompts: One for each row.
        answer: From the body of a request to what the server sends.
        concurrency: Calls in flight.
        options: More options of `respond`.
        codes: Exit codes of the last run.
    """
    Path(folder).mkdir()
    Path("prompts.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in prompts))
    with wire(answer) as server:
        assert respond(folder, server.url, concurrency, *options) == 0
        kept, _ = files(folder)
        assert respond(folder, server.url, concurrency, *options) == 0
        before = files(folder)
        assert before[0] == kept, "the second run gives the same"
    assert respond(folder, server.url, concurrency, *options) in codes, "what is recorded needs no server"
    assert files(folder) == before, "rows never fall"
    return before[0]
