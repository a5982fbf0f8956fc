"""A file of rows to measure on, in place of a share of the rows."""

import json
from pathlib import Path
from typing import Any

import pytest

from datagen.errors import InputError
from datagen_train import dpo, grpo, ppo, pretrain, reward, sft
from datagen_train.options import SftOptions, TrainOptions
from datagen_train.policy_options import GrpoOptions, PpoOptions
from tests.train.conftest import COLOURS, colour_rows
from tests.train.runs import Notes, metrics, train
from tests.train.tasks import write_rows

ROWS = [{"prompt": row.prompt, "response": row.response} for row in colour_rows()]
OTHERS = [{"prompt": f"Which colour has the {thing}?", "response": colour} for thing, colour in COLOURS.items()]
FAST: dict[str, Any] = {"steps": 2, "batch_size": 2, "eval_data": "other.jsonl"}


def pairs(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"prompt": row["prompt"], "chosen": row["response"], "rejected": "none"} for row in rows]


def test_every_row_is_trained_on_and_the_other_file_is_measured() -> None:
    write_rows("other.jsonl", OTHERS[:4])
    notes = Notes()
    result = train(sft, write_rows("rows.jsonl", ROWS), notes=notes, output="out", **FAST)
    assert (result["rows"]["train"], result["rows"]["held_out"], result["rows"]["read"]) == (6, 4, 6)
    assert [line["eval_loss"] for line in metrics("out") if "eval_loss" in line]
    assert not [text for text in notes.messages if "warning" in text]
    config = json.loads(Path("out/run/config.json").read_text())
    assert config["eval_data"] and config["eval_data"] != "other.jsonl", "its contents, not its name"
    write_rows("other.jsonl", OTHERS[:3])
    with pytest.raises(InputError, match="holds another run"):
        train(sft, "rows.jsonl", output="out", **FAST)


def test_prompts_in_both_files_are_said() -> None:
    write_rows("other.jsonl", [*OTHERS[:2], *ROWS[:3]])
    notes = Notes()
    train(sft, write_rows("rows.jsonl", ROWS), notes=notes, output="out", **FAST)
    assert any("3 of the 5 rows of --eval-data" in text for text in notes.messages)


def test_a_file_without_rows_is_refused_before_training() -> None:
    Path("other.jsonl").write_text("nothing\n")
    with pytest.raises(InputError, match="--eval-data: no row of it can be measured on"):
        train(sft, write_rows("rows.jsonl", ROWS), output="out", **FAST)


def test_measuring_is_possible_without_a_held_out_share() -> None:
    sft_options = SftOptions()
    sft_options.check(TrainOptions(held_out=0, eval_data="other.jsonl", patience=2))
    with pytest.raises(InputError, match="or name --eval-data"):
        sft_options.check(TrainOptions(held_out=0, patience=2))


def test_each_trainer_measures_on_the_file(taught: Path) -> None:
    common = {**FAST, "model": str(taught)}
    write_rows("other.jsonl", [{"text": "The sky is blue."}])
    write_rows("texts.jsonl", [{"text": "Grass."}] * 4)
    assert "eval_loss" in train(pretrain, "texts.jsonl", output="pre", **common)["end"]
    write_rows("other.jsonl", pairs(OTHERS))
    for module, name in ((dpo, "dpo"), (reward, "rm")):
        assert "eval_loss" in train(module, write_rows("pairs.jsonl", pairs(ROWS)), output=name, **common)["end"]
    write_rows("other.jsonl", OTHERS)
    write_rows("rows.jsonl", ROWS)
    asking: dict[str, Any] = {"reward": ["rm"], "max_tokens": 4}
    assert "eval_reward" in train(ppo, "rows.jsonl", PpoOptions(**asking), output="ppo", **common)["end"]
    assert "eval_reward" in train(grpo, "rows.jsonl", GrpoOptions(**asking), output="grpo", **common)["end"]
