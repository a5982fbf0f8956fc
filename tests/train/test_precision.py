"""What is trained from a base in bfloat16 is saved in it, and measured as it is saved."""

import json
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from datagen_train import dpo, ppo, pretrain, reward, sft
from datagen_train.options import RewardOptions
from datagen_train.policy_options import PpoOptions
from datagen_train.rewards.reward_model import load_reward
from datagen_train.tools import evaluate, merge
from datagen_train.tools.options import EvalOptions, MergeOptions
from tests.train.runs import train
from tests.train.tasks import problems, write_preferences, write_rows, write_sft

ROWS = problems(1)[:60]
COMMON: dict[str, Any] = {"model": "half", "output": "out", "steps": 3, "held_out": 0.2, "learning_rate": 5e-3}


@pytest.fixture(autouse=True)
def half(base: str) -> None:
    """A base whose weights are in bfloat16, and rows."""
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).save_pretrained("half")
    AutoTokenizer.from_pretrained(base).save_pretrained("half")
    write_sft(Path("rows.jsonl"), ROWS)
    write_preferences(Path("pairs.jsonl"), ROWS)
    write_rows("texts.jsonl", [{"text": f"{prompt} {answer}"} for prompt, answer in ROWS])


def dtypes(folder: str, *, head: bool = False) -> set[str]:
    """The types in the weights of a folder, those of a score head or all others; and the one that its config names."""
    tensors = load_file(Path(folder, "model.safetensors"))
    named = json.loads(Path(folder, "config.json").read_text())["dtype"]
    types = {str(tensor.dtype) for name, tensor in tensors.items() if name.startswith("score.") == head}
    return {name.removeprefix("torch.") for name in types} | ({named} if not head else set())


@pytest.mark.parametrize("dtype", ["auto", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_sft_saves_in_the_type_of_its_base_and_reports_what_it_saved(dtype: str) -> None:
    result = train(sft, "rows.jsonl", dtype=dtype, generate=4, **COMMON)
    assert dtypes("out") == {"bfloat16"}
    options = EvalOptions(held_out=0.2, generate=4, max_tokens=40, dtype="float32" if dtype == "auto" else dtype)
    measured = evaluate.run("out", "rows.jsonl", options)
    tolerance = 1e-5 if dtype == "auto" else 1e-2
    assert measured["loss"] == pytest.approx(result["end"]["eval_loss"], abs=tolerance)
    assert measured["rouge_l"] == pytest.approx(result["end"]["eval_rouge_l"], abs=tolerance)
    assert result["end"]["eval_loss"] != result["start"]["eval_loss"]


def test_a_reward_model_has_its_head_in_float32_and_scores_as_it_said() -> None:
    train(reward, "pairs.jsonl", RewardOptions(reference="rows.jsonl"), **COMMON)
    assert dtypes("out") == {"bfloat16"}
    assert dtypes("out", head=True) == {"float32"}
    scores = load_reward("out").score([prompt for prompt, _ in ROWS], [str(answer) for _, answer in ROWS])
    assert fmean(scores) == pytest.approx(0, abs=1e-4)
    assert pstdev(scores) == pytest.approx(1, abs=1e-4)


@pytest.mark.slow
def test_merged_adapters_are_in_the_type_of_the_base() -> None:
    train(sft, "rows.jsonl", lora=True, **COMMON)
    merge.run("out", MergeOptions(output="merged"))
    assert dtypes("merged") == {"bfloat16"}
    train(reward, "pairs.jsonl", lora=True, **{**COMMON, "output": "rm"})
    merge.run("rm", MergeOptions(output="rm.merged"))
    assert dtypes("rm.merged") == {"bfloat16"}
    assert dtypes("rm.merged", head=True) == {"float32"}


@pytest.mark.slow
def test_the_other_trainers_save_in_the_type_of_the_base() -> None:
    train(pretrain, "texts.jsonl", **{**COMMON, "output": "pre"})
    train(dpo, "pairs.jsonl", **{**COMMON, "output": "dpo", "learning_rate": 1e-3})
    Path("length.py").write_text("def length(completion_ids, **_): return list(map(len, completion_ids))\n")
    options = PpoOptions(reward=["length.py:length"], max_tokens=8)
    train(ppo, "rows.jsonl", options, **{**COMMON, "output": "ppo", "batch_size": 4})
    for folder in ("pre", "dpo", "ppo"):
        assert dtypes(folder) == {"bfloat16"}, folder
