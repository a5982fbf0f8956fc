"""The loop back to the data: every reward can rank answers, and the recipes improve their initial model."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from datagen.commands.main import app
from datagen.records.files import dump_line
from datagen.records.layout import pack_row
from datagen_train import reward as reward_model
from datagen_train.rewards.reward_model import load_reward
from tests.jobs import rows
from tests.train.runs import train
from tests.train.test_reward_model import write_words

REWARDS = """
import math

def number(prompts, completions, **_):
    return [float(c) if c.lstrip("-").isdigit() else None for c in completions]

async def later(prompts, completions, **_):
    return [float(len(c)) for c in completions]

def fails(prompts, completions, **_):
    raise RuntimeError("no more")
"""


def score(*arguments: str) -> Result:
    if not Path("mine.py").exists():
        Path("mine.py").write_text(REWARDS)
    return CliRunner().invoke(app, ["train", "score", *arguments], prog_name="datagen", catch_exceptions=False)


def write_samples(*answers: list[str], **columns: Any) -> str:
    """Write a row for each list of answers."""
    samples = ({"prompt": f"Question {n}?", "responses": responses, **columns} for n, responses in enumerate(answers))
    Path("samples.jsonl").write_bytes(b"".join(map(dump_line, samples)))
    return "samples.jsonl"


def rank_rows(*arguments: str) -> list[dict[str, Any]]:
    ran = score(*arguments, "-o", "ranked.jsonl", "-q")
    assert ran.exit_code == 0, ran.output
    return rows("ranked.jsonl")


def test_the_best_answer_is_first_equal_ones_tie_and_one_without_a_score_is_last() -> None:
    (row,) = rank_rows(write_samples(["1", "none", "3", "1"], source="people"), "--reward", "mine.py:number")
    assert row["responses"] == ["3", "1", "1", "none"]
    assert row["scores"] == [3.0, 1.0, 1.0, None]
    assert row["ranks"] == [1, 2, 2, 3]
    assert row["source"] == "people", "what the row held beside stays"
    assert [sample["rewards"]["mine.py:number"] for sample in row["meta"]["responses"]] == row["scores"]


def test_what_is_known_of_an_answer_moves_with_it() -> None:
    samples = [{"model": "a"}, {"model": "b"}]
    meta = {"method": "respond", "responses": samples}
    samples_row = {"id": "0" * 16, "prompt": "?", "responses": ["1", "2"], "meta": meta}
    Path("samples.jsonl").write_bytes(dump_line(pack_row(samples_row)))
    (row,) = rank_rows("samples.jsonl", "--reward", "mine.py:number")
    assert [sample["model"] for sample in row["meta"]["responses"]] == ["b", "a"]
    assert row["meta"]["parents"] == ["0" * 16]


def test_ranked_rows_are_what_pairs_and_the_reward_model_read() -> None:
    rank_rows(write_samples(["1", "none", "3"], ["5", "9"]), "--reward", "mine.py:number")
    ran = CliRunner().invoke(app, ["pairs", "ranked.jsonl", "-o", "pairs.jsonl", "-q"], catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    assert [(row["chosen"], row["rejected"], row["margin"]) for row in rows("pairs.jsonl")] == [
        ("3", "1", 2.0),
        ("9", "5", 4.0),
    ]
    result = train(reward_model, "ranked.jsonl", output="rm", steps=1, held_out=0)
    assert result["rows"]["read"] == 2


def test_a_row_without_any_score_is_dropped_and_counted() -> None:
    assert len(rank_rows(write_samples(["x", "y"], ["1", "2"]), "--reward", "mine.py:number")) == 1
    funnel = json.loads(Path("ranked.meta.json").read_text())["result"]["funnel"]
    assert (funnel["asked"], funnel["kept"], funnel["rejected"]) == (2, 1, {"no_score": 1})
    (dropped,) = rows("ranked.rejected.jsonl")
    assert dropped["record"]["responses"] == ["x", "y"]


def test_every_answer_keeps_its_own_score_however_many_rows_are_scored_together() -> None:
    answers = [[str(100 * n + k) for k in range(1 + n % 4)] for n in range(700)]
    ranked_rows = rank_rows(write_samples(*answers), "--reward", "mine.py:number")
    assert [sorted(row["responses"], key=int) for row in ranked_rows] == answers, "in the order of the input"
    for row in ranked_rows:
        assert row["scores"] == [float(answer) for answer in row["responses"]]


def test_rewards_add_up_with_their_weights_and_each_is_reported() -> None:
    path = write_samples(["7", "8"], answer="7")
    (row,) = rank_rows(path, "--reward", "2*verifier:answer", "--reward", "0.5*mine.py:later")
    assert dict(zip(row["responses"], row["scores"], strict=True)) == {"7": 2.5, "8": 0.5}
    assert row["meta"]["responses"][0]["rewards"] == {"verifier:answer": 1.0, "mine.py:later": 1.0}


def test_a_reward_that_fails_ends_in_one_line_and_leaves_nothing_that_looks_finished() -> None:
    ran = score(write_samples(["1", "2"]), "--reward", "mine.py:fails", "-o", "ranked.jsonl")
    assert ran.exit_code == 1
    assert "reward mine.py:fails: failed with RuntimeError('no more')" in ran.output
    assert "Traceback" not in ran.output
    meta = Path("ranked.meta.json")
    assert not meta.exists() or json.loads(meta.read_text())["result"]["status"] != "finished"


def test_an_edited_reward_is_another_one() -> None:
    path = write_samples(["1", "2"])
    rank_rows(path, "--reward", "mine.py:number")
    assert "Nothing to do" in score(path, "--reward", "mine.py:number", "-o", "ranked.jsonl").output
    Path("mine.py").write_text(REWARDS.replace("float(c)", "-float(c)"))
    ran = score(path, "--reward", "mine.py:number", "-o", "ranked.jsonl")
    assert ran.exit_code == 2
    assert "reward" in ran.output and "then" in ran.output


@pytest.mark.parametrize("options", [[], ["--reward", "nowhere"], ["--reward", "verifier:nope"]])
def test_a_reward_that_is_not_there_is_reported_before_anything_is_written(options: list[str]) -> None:
    ran = score(write_samples(["1", "2"]), *options, "-o", "ranked.jsonl")
    assert ran.exit_code == 2
    assert not Path("ranked.jsonl").exists()


def test_a_reward_model_ranks_as_it_scores() -> None:
    data = write_words("words.jsonl", 24)
    train(reward_model, data, output="rm", steps=4, batch_size=8)
    answers = [["A good one.", "A poor one..", "An awful one"], ["A fair one", "A good one..."]]
    ranked_rows = rank_rows(write_samples(*answers), "--reward", "rm")
    model = load_reward("rm")
    for row in ranked_rows:
        expected = model.score([row["prompt"]] * len(row["responses"]), row["responses"])
        assert row["scores"] == pytest.approx(expected, abs=1e-3)
        assert row["scores"] == sorted(row["scores"], reverse=True)
    measured = json.loads(Path("ranked.meta.json").read_text())["result"]["table"]
    assert measured["answers"] == 5 and measured["unscored"] == 0
    assert measured["mean"] == pytest.approx(sum(sum(row["scores"]) for row in ranked_rows) / 5, abs=1e-3)


def test_measuring_a_model_tells_the_reward_beside_exact_match(base: str, few: str) -> None:
    Path("mine.py").write_text(REWARDS)
    command = ["train", "eval", base, few, "--limit", "5", "--max-tokens", "4", "-o", "answers.jsonl"]
    ran = CliRunner().invoke(app, [*command, "--reward", "mine.py:later"], catch_exceptions=False)
    result = json.loads(ran.stdout)
    assert result["reward"] == pytest.approx(sum(len(row["answer"]) for row in rows("answers.jsonl")) / 5)
    assert result["unscored"] == 0 and "exact_match" in result
