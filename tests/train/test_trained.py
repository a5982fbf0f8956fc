"""A model is measured on rows that it was not trained on, and whoever wants the others is told."""

import json
from pathlib import Path
from typing import Any

import pytest

from datagen.errors import InputError
from datagen.records.record import Record
from datagen_train import dpo, sft
from datagen_train import reward as reward_model
from datagen_train.data.split import is_held_out
from datagen_train.data.trained import digests, read_trained, was_trained_on
from datagen_train.tools import evaluate, merge
from datagen_train.tools.options import EvalOptions, MergeOptions
from tests.train.runs import train
from tests.train.tasks import problems, write_preferences, write_sft

ROWS, SHARE = 60, 0.3
FAST: dict[str, Any] = {"steps": 1, "held_out": SHARE, "batch_size": 8}


def measure(model: str, data: str, **options: Any) -> dict[str, Any]:
    return evaluate.run(model, data, EvalOptions(generate=0, **options))


@pytest.fixture
def model() -> str:
    """A model that was trained on rows.jsonl, but for its held-out rows."""
    write_sft(Path("rows.jsonl"), problems(0)[:ROWS])
    train(sft, "rows.jsonl", output="model", **FAST)
    return "model"


def held_out() -> int:
    return sum(is_held_out(prompt, SHARE) for prompt, _ in problems(0)[:ROWS])


def test_only_rows_that_were_not_trained_on_are_measured(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = measure(model, "rows.jsonl")
    left_out = ROWS - held_out()
    assert (result["rows"], result["left_out_as_trained_on"], result["trained_on"]) == (held_out(), left_out, 0)
    assert f"{left_out} of {ROWS} rows were trained on and are left out" in capsys.readouterr().err
    assert result["loss"] == pytest.approx(measure(model, "rows.jsonl", held_out=SHARE)["loss"])
    everything = measure(model, "rows.jsonl", all=True)
    assert (everything["rows"], everything["left_out_as_trained_on"], everything["trained_on"]) == (ROWS, 0, left_out)
    assert capsys.readouterr().err == "", "nothing was left out in these two"


def test_the_rule_holds_for_each_row_whatever_else_the_file_holds(model: str) -> None:
    write_sft(Path("more.jsonl"), problems(0)[: ROWS + 25])
    assert measure(model, "more.jsonl")["rows"] == held_out() + 25
    assert measure(model, "more.jsonl", limit=5)["rows"] == 5, "five that were not trained on"


def test_a_file_of_trained_rows_alone_is_refused_in_one_line(model: str) -> None:
    write_sft(Path("seen.jsonl"), [row for row in problems(0)[:ROWS] if not is_held_out(row[0], SHARE)])
    with pytest.raises(InputError, match=r"^seen.jsonl: all \d+ rows were trained on; name other rows, or measure"):
        measure(model, "seen.jsonl")


def test_what_the_base_was_trained_on_counts_even_when_it_is_gone(model: str) -> None:
    write_preferences(Path("pairs.jsonl"), problems(0)[ROWS : 2 * ROWS])
    train(dpo, "pairs.jsonl", model=model, output="dpo", lora=True, **FAST)
    assert read_trained(Path("dpo")) > read_trained(Path(model))
    write_sft(Path("both.jsonl"), problems(0)[: 2 * ROWS])
    rows = measure("dpo", "both.jsonl")["rows"]
    assert rows == sum(is_held_out(prompt, SHARE) for prompt, _ in problems(0)[: 2 * ROWS])
    merge.run("dpo", MergeOptions(output="merged"))
    Path("model").rename("gone")
    assert measure("merged", "both.jsonl")["rows"] == rows


def test_a_reward_model_is_never_good_enough_by_rows_that_it_was_trained_on(model: str) -> None:
    write_preferences(Path("pairs.jsonl"), problems(0)[:ROWS])
    train(reward_model, "pairs.jsonl", model=model, output="rm", **FAST)
    assert measure("rm", "pairs.jsonl")["rows"] == held_out()
    verdict = measure("rm", "pairs.jsonl", all=True)["verdict"]
    assert verdict == f"Good enough for PPO? Unknown: {ROWS - held_out()} of {ROWS} rows were trained on."


def test_a_row_is_known_by_its_prompt_in_any_shape_and_by_its_seed() -> None:
    known = set(digests(Record("a", "Hello", "Hi", meta={"seed_id": "s1"})))
    assert was_trained_on(Record("b", [{"role": "user", "content": "Hello"}], None), known)
    assert was_trained_on(Record("c", "Hello, harder", None, meta={"seed_id": "s1"}), known)
    assert not was_trained_on(Record("d", "Bye", None, meta={"seed_id": "s2"}), known)
    assert not was_trained_on(Record("e", "s1", None), known), "a seed's id is no prompt"


def test_the_record_is_8_bytes_a_prompt_and_the_same_for_the_same_run(model: str) -> None:
    record = Path(model, "run", "trained.bin").read_bytes()
    assert len(record) == 8 * (ROWS - held_out())
    train(sft, "rows.jsonl", output="again", **FAST)
    assert Path("again/run/trained.bin").read_bytes() == record
    assert json.loads(Path("again/run/report.json").read_text())["result"]["rows"]["train"] == ROWS - held_out()
