"""What lies in place is replaced only by a run that accounts for as much."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from datagen.commands.main import app
from datagen.engine.output import accounts_for_less
from datagen.records.record import Row
from tests.jobs import respond, rows, write_seeds
from tests.server import Server, running

FILES = "out.jsonl", "out.rejected.jsonl", "out.meta.json"


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datagen.llm.limiter.FIRST_BACKOFF", 0.002)


class OneAlwaysFails(Server):
    """A server on which one prompt fails, whatever happens."""

    def fate(self, key: str, attempt: int) -> str:
        return "500" if key == self.poisoned else "ok"

    poisoned = ""


def in_place() -> list[bytes]:
    return [Path(name).read_bytes() for name in FILES]


def fail_one(server: OneAlwaysFails, seeds: Path) -> None:
    """Make one prompt of an output fail: run once to learn its key."""
    respond(seeds, f"m@{server.url}", "first/out.jsonl", concurrency="4")
    server.poisoned = server.log[7].key


def test_the_same_command_again_never_shortens_an_output() -> None:
    seeds = write_seeds(12)
    server = OneAlwaysFails()
    with running(server):
        fail_one(server, seeds)
        first = respond(seeds, f"m@{server.url}", concurrency="4")
        assert first.result["funnel"]["kept"] == 11 and first.rows_in_place is None
        before = in_place()
        again = respond(seeds, f"m@{server.url}", concurrency="4")
    assert again.rows_in_place in (None, 11)
    assert len(rows("out.jsonl")) == 11
    assert again.rows_in_place is None or in_place() == before


def test_with_the_server_down_everything_stays_and_the_message_says_so() -> None:
    write_seeds(12)
    server = OneAlwaysFails()
    with running(server):
        fail_one(server, Path("seeds.jsonl"))
        model = f"m@{server.url}"
        respond(Path("seeds.jsonl"), model)
    before = in_place()
    ran = CliRunner().invoke(app, ["respond", "seeds.jsonl", "--model", model, "-o", "out.jsonl"])
    assert ran.exit_code == 5
    assert in_place() == before
    assert "out.jsonl stays as it was, with 11 rows: this run accounts for less" in " ".join(ran.stderr.split())
    assert ".datagen/parts/out.jsonl.part" in ran.stderr

    # Another input and --overwrite: there is nothing to put in its place.
    write_seeds(3)
    ran = CliRunner().invoke(app, ["respond", "seeds.jsonl", "--model", model, "-o", "out.jsonl", "--overwrite"])
    assert ran.exit_code in (0, 5)
    Path("seeds.jsonl").write_text('{"prompt": "Something new."}\n' + Path("seeds.jsonl").read_text())
    before = in_place()
    ran = CliRunner().invoke(app, ["respond", "seeds.jsonl", "--model", model, "-o", "out.jsonl", "--overwrite"])
    assert ran.exit_code == 5 and in_place() == before


def test_a_smaller_input_is_right_to_give_fewer_rows() -> None:
    respond(write_seeds(12), "sim")
    fewer = respond(write_seeds(5), "sim", overwrite=True)
    assert fewer.rows_in_place is None and len(rows("out.jsonl")) == 5


def test_a_cap_leaves_a_longer_output_in_place() -> None:
    respond(write_seeds(12), "sim")
    capped = respond(write_seeds(12), "sim", max_calls=3, overwrite=True, seed=1)
    assert capped.reason == "cap" and capped.rows_in_place == 12 and len(rows("out.jsonl")) == 12


Counts = tuple[int, int, int]
"""Of kept, rejected and failed candidates."""


def result(counts: Counts, command: str) -> Row:
    kept, rejected, failed = counts
    funnel: dict[str, Any] = {"kept": kept, "asked": kept + rejected + failed, "unreadable": 0}
    fault = {"failed": {"no answer": failed} if failed else {}, "rejected": {"rule": rejected} if rejected else {}}
    return {"fingerprint": {"command": command}, "funnel": funnel | fault}


@pytest.mark.parametrize(
    ("before", "now", "complete", "is_less"),
    [
        ((299, 0, 1), (299, 0, 1), True, False),
        ((299, 0, 1), (300, 0, 0), True, False),
        ((299, 0, 1), (299, 0, 0), False, True),  # the row that failed has vanished from the rejected ones
        ((299, 0, 1), (5, 0, 0), False, True),
        ((299, 0, 1), (298, 0, 2), True, True),
        ((50, 250, 0), (60, 100, 0), False, True),
        ((299, 0, 1), (100, 200, 0), True, False),  # rules that have changed
    ],
)
def test_the_same_command(before: Counts, now: Counts, complete: bool, is_less: bool) -> None:
    one, other = result(now, "evolve"), result(before, "evolve")
    assert accounts_for_less(one, other, complete=complete) == is_less


@pytest.mark.parametrize(
    ("before", "now", "complete", "is_less"),
    [
        ((300, 0, 0), (0, 0, 300), True, True),
        ((300, 0, 0), (0, 0, 0), False, True),
        ((300, 0, 0), (200, 99, 1), True, False),
    ],
)
def test_another_command(before: Counts, now: Counts, complete: bool, is_less: bool) -> None:
    one, other = result(now, "filter"), result(before, "evolve")
    assert accounts_for_less(one, other, complete=complete) == is_less
