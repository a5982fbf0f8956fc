"""`--tokens`: as many tokens with a loss as asked for, from files of any size, counted as they are trained on."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from datagen.errors import InputError
from datagen_train import sft
from datagen_train.options import RewardOptions, SftOptions, TrainOptions
from datagen_train.run.trl_adapter import Sft
from tests.train.runs import Notes, train


def write_rows(name: str, number: int) -> str:
    lines = [
        json.dumps({"prompt": f"Say {i}.", "response": "so " * (1 + i % 7) + str(i)}) + "\n" for i in range(number)
    ]
    Path(name).write_text("".join(lines))
    return name


def test_files_of_any_size_are_trained_on_for_as_many_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    step = Sft.training_step

    def count(self: Sft, model: Any, inputs: dict[str, torch.Tensor], *rest: Any, **more: Any) -> Any:
        counted.append(int((inputs["labels"] != -100).sum()))
        return step(self, model, inputs, *rest, **more)

    monkeypatch.setattr(Sft, "training_step", count)
    for rows in (10, 200):  # several passes over the first, a part of the second
        counted.clear()
        file, output = write_rows(f"{rows}.jsonl", rows), f"out-{rows}"
        result = train(sft, file, output=output, tokens=600, batch_size=16, held_out=0.0, eval_every=1000)
        assert sum(counted) == result["trained_on"]["tokens"]
        assert 580 < sum(counted) <= 600
        assert result["steps"] == len(counted) == -(-result["trained_on"]["sequences"] // 16)
        assert result["rows"]["train"] == rows


@pytest.mark.parametrize(
    ("options", "algorithm", "message"),
    [
        ({"tokens": 9, "steps": 3}, SftOptions(), "--steps and --epochs say it, too"),
        ({"tokens": 9, "epochs": 3.0}, SftOptions(), "--steps and --epochs say it, too"),
        ({"tokens": 9}, RewardOptions(), "pretrain, sft and dpo take it"),
    ],
)
def test_a_length_is_said_once(options: dict[str, Any], algorithm: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        algorithm.check(TrainOptions(**options))


def test_too_few_tokens_for_a_row_are_refused() -> None:
    with pytest.raises(InputError, match="--tokens 1: the first row has more"):
        sft.run(write_rows("rows.jsonl", 9), TrainOptions(tokens=1, output="out"), SftOptions(), Notes())
