"""Every trainer on small models built as those of well-known families: each run learns, or says in one line why not."""

from typing import Any

import pytest

from datagen_train import dpo, grpo, ppo, pretrain, reward, sft
from datagen_train.options import DpoOptions
from datagen_train.policy_options import GrpoOptions, PpoOptions
from datagen_train.rewards.reward_model import load_reward
from datagen_train.tools import evaluate
from datagen_train.tools.options import EvalOptions
from tests.train.conftest import COLOURS, colour_rows
from tests.train.real_models import REAL, make_real
from tests.train.runs import metrics, train
from tests.train.tasks import write_rows

pytestmark = pytest.mark.slow
ROWS = colour_rows()
SHORT: dict[str, Any] = {"held_out": 0, "batch_size": 6, "seed": 1}


@pytest.fixture(params=REAL)
def family(request: pytest.FixtureRequest) -> str:
    """Write a model of a family to the folder `model`, and the rows of each trainer beside it."""
    model, tokenizer = make_real(request.param, [f"{row.prompt} {row.response}" for row in ROWS])
    model.save_pretrained("model")
    tokenizer.save_pretrained("model")
    write_rows("rows.jsonl", [{"prompt": row.prompt, "response": row.response} for row in ROWS])
    write_rows("texts.jsonl", [{"text": f"The {thing} is {colour}."} for thing, colour in COLOURS.items()])
    wrong = {"blue": "red", "green": "blue", "red": "green"}
    write_rows("pairs.jsonl", [
        {"prompt": row.prompt, "chosen": row.response, "rejected": wrong[row.response or ""]} for row in ROWS
    ])  # fmt: skip
    name: str = request.param
    return name


ADAPTERS = pytest.mark.parametrize("lora", [False, True], ids=["whole", "lora"])


def test_sft_learns_the_rows(family: str) -> None:
    train(sft, "rows.jsonl", model="model", output="out", steps=60, learning_rate=6e-3, **SHORT)
    result = evaluate.run("out", "rows.jsonl", EvalOptions(all=True))
    assert result["exact_match"] == 1.0, result


def test_adapters_learn_the_rows(family: str) -> None:
    """The base knows nothing, and its head is frozen: the loss falls, not to 0."""
    train(sft, "rows.jsonl", model="model", output="out", steps=40, lora=True, learning_rate=2e-2, **SHORT)
    losses = [line["loss"] for line in metrics("out") if "loss" in line]
    assert losses[-1] < losses[0] - 0.3


@ADAPTERS
def test_the_other_trainers_take_it(family: str, lora: bool) -> None:
    common = {**SHORT, "model": "model", "lora": lora, "steps": 2}
    train(pretrain, "texts.jsonl", output="pre", **common)
    train(dpo, "pairs.jsonl", DpoOptions(), output="dpo", **common)
    train(reward, "pairs.jsonl", output="rm", **common)
    scores = load_reward("rm").score(["What colour is the sky?"] * 2, ["blue", "red"])
    assert scores[0] != scores[1]
    train(ppo, "rows.jsonl", PpoOptions(reward=["rm"], max_tokens=8), output="ppo", **common)
    train(grpo, "rows.jsonl", GrpoOptions(reward=["rm"], max_tokens=8), output="grpo", **common)
