"""A cut answer is cut again: it is paid for once, and the way out is a higher limit."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from datagen.commands.main import app
from datagen.records.files import dump_line
from tests.jobs import respond, rows, write_seeds
from tests.server import Faults, LogEntry, Server, running

CUT = Faults(0.3, kinds=("length",), most_in_a_row=1000)


def test_a_cut_answer_is_asked_for_once() -> None:
    seeds = write_seeds(40)
    with running(Server(faults=CUT)) as server:
        first = respond(seeds, f"m@{server.url}", timeout=20)
        failed = first.result["funnel"]["failed"]["cut answer"]
        assert 4 < failed < 25 and server.requests == 40
        again = respond(seeds, f"m@{server.url}", timeout=20)
        assert server.requests == 40 and again.result == first.result
        respond(seeds, f"m@{server.url}", "more.jsonl", max_tokens=4096, timeout=20)
        assert server.requests == 80, "another limit is another request"


def test_the_last_lines_name_the_way_out() -> None:
    write_seeds(10)
    with running(Server(faults=CUT)) as server:
        ran = CliRunner().invoke(app, ["respond", "seeds.jsonl", "--model", f"m@{server.url}", "-o", "x.jsonl"])
    assert "Raise --max-tokens" in ran.stderr
    assert f"datagen respond seeds.jsonl --model m@{server.url}" not in ran.stderr, "it would not help"
    assert len(rows("x.jsonl")) == 10 - sum(row["reason"] == "cut answer" for row in rows("x.rejected.jsonl"))


class CutsThird(Server):
    """A server whose third answer to each prompt reaches the length limit."""

    def admit(self, entry: LogEntry) -> float:
        delay = super().admit(entry)
        entry.outcome = "length" if entry.sample == 2 else entry.outcome
        return delay


@pytest.mark.parametrize(
    ("strategy", "k", "kept", "failed", "missing"),
    [
        ("vote", 3, 4, 0, {"chains without a result": 4}),
        ("rft", 3, 4, 4, {"chains without a result": 4}),
        ("cot", 3, 4, 0, {"cut answers of several": 4}),
        ("direct", 4, 4, 0, {"cut answers of several": 4}),
        ("direct", 3, 4, 0, {"cut answers of several": 4}),
    ],
)
def test_of_several_answers_one_that_is_cut_is_lost_alone(
    strategy: str, k: int, kept: int, failed: int, missing: dict[str, int]
) -> None:
    lines = [{"prompt": f"What is {n} + 3?", "answer": "7"} for n in range(4)]
    Path("sums.jsonl").write_bytes(b"".join(map(dump_line, lines)))
    with running(CutsThird(answer=lambda *_: "It is 4 + 3 = 7.\nAnswer: 7")) as server:
        for _ in range(2):
            outcome = respond(Path("sums.jsonl"), f"m@{server.url}", strategy=strategy, k=k, timeout=20)
            assert server.requests == 4 * k, "the same command asks for none of them again"
    funnel = outcome.result["funnel"]
    assert (funnel["kept"], sum(funnel["failed"].values())) == (kept, failed)
    assert {name: counts["missing"] for name, counts in funnel["unobtained"].items() if counts["missing"]} == missing
    for row in rows("out.jsonl"):
        assert "responses" not in row or len(row["responses"]) == len(row["meta"]["responses"]) == k - 1
        assert strategy != "vote" or row["meta"]["vote_share"] == pytest.approx(2 / 3)


def test_a_row_of_several_answers_has_two_of_them_or_fails() -> None:
    seeds = write_seeds(4)
    with running(Server(faults=Faults(1, kinds=("length",), most_in_a_row=1000))) as server:
        outcome = respond(seeds, f"m@{server.url}", strategy="vote", k=2, timeout=20)
        assert outcome.result["funnel"]["failed"] == {"cut answer": 4}
    with running(CutsThird(answer=lambda *_: "It is.")) as server:
        outcome = respond(seeds, f"n@{server.url}", "two.jsonl", k=3, timeout=20)
        assert outcome.result["funnel"]["kept"] == 4
        assert respond(seeds, f"n@{server.url}", "one.jsonl", k=1, timeout=20).result["funnel"]["kept"] == 4


def test_star_counts_the_chains_without_a_result() -> None:
    Path("sums.jsonl").write_bytes(dump_line({"prompt": "What is 4 + 3?", "answer": "7"}))
    with running(Server(answer=lambda *_: "I cannot say.")) as server:
        outcome = respond(Path("sums.jsonl"), f"m@{server.url}", strategy="star", timeout=20)
    assert outcome.result["funnel"]["unobtained"]["chains without a result"] == {"asked": 2, "missing": 2}
