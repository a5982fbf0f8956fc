"""Every trainer on small models built as those of well-known families: each run learns, or says in one line why not."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from datagen_train import dpo, grpo, ppo, pretrain, reward, sft
from datagen_train.options import DpoOptions, PretrainOptions, RewardOptions, SftOptions
from datagen_train.policy_options import GrpoOptions, PpoOptions
from datagen_train.rewards.reward_model import load_reward
from datagen_train.tools import evaluate
from datagen_train.tools.options import EvalOptions
from tests.train.conftest import COLOURS, colour_rows
from tests.train.real_models import REAL, make_real
from tests.train.runs import Notes, metrics, train, train_line
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


class Crash(RuntimeError):
    """Ends a run as a kill does: nothing is saved."""


class CrashingNotes(Notes):
    def step(self, state: Any) -> None:
        if state.global_step == 3:
            raise Crash


ON_POLICY: dict[str, Any] = {"reward": ["length.py:length"], "max_tokens": 6}
TRAINERS: dict[str, tuple[Any, str, Any]] = {
    "pretrain": (pretrain, "texts.jsonl", PretrainOptions()),
    "sft": (sft, "rows.jsonl", SftOptions()),
    "dpo": (dpo, "pairs.jsonl", DpoOptions(loss="sigmoid+sft")),
    "reward": (reward, "pairs.jsonl", RewardOptions()),
    "ppo": (ppo, "rows.jsonl", PpoOptions(**ON_POLICY)),
    "grpo": (grpo, "rows.jsonl", GrpoOptions(**ON_POLICY, group_size=3)),
}


@pytest.fixture
def length() -> None:
    """A reward that needs no model."""
    Path("length.py").write_text(
        "def length(completion_ids, **_): return [len(i) + i[0] % 7 for i in completion_ids]\n"
    )


def run(trainer: str, output: str, notes: Notes | None = None, **options: Any) -> None:
    module, data, algorithm = TRAINERS[trainer]
    common = {**SHORT, "batch_size": 4, "model": "model", "steps": 5, "learning_rate": 1e-3, "held_out": 0.3}
    train(module, data, algorithm, notes, output=output, **{**common, **options})


def written(folder: str) -> dict[str, bytes]:
    """The weights and the curve of a run."""
    names = [*(path.name for path in Path(folder).glob("*.safetensors")), "run/metrics.jsonl"]
    return {name: Path(folder, name).read_bytes() for name in names}


def columns(*cells: tuple[str, str]) -> pytest.MarkDecorator:
    """Choose families, each with a comma-separated list of trainers."""
    marks = [pytest.param(family, trainers.split(), id=f"{family}: {trainers}") for family, trainers in cells]
    return pytest.mark.parametrize(("family", "trainers"), marks, indirect=["family"])


@pytest.mark.usefixtures("family", "length")
@pytest.mark.parametrize("lora", [False, True], ids=["whole", "lora"])
@columns(("Llama 3 base", "pretrain dpo grpo"), ("GPT-2, BERT's tokens", "sft reward ppo"))
def test_a_killed_run_and_one_of_the_same_command_write_the_same_bytes(trainers: list[str], lora: bool) -> None:
    """The checkpoint, at step 2, lies between two logs."""
    options: dict[str, Any] = {"lora": lora, "log_every": 3, "save_every": 2, "eval_every": 2}
    for trainer in trainers:
        run(trainer, f"{trainer}.whole", **options)
        notes = Notes()
        with pytest.raises(Crash):
            run(trainer, f"{trainer}.killed", CrashingNotes(), **options)
        run(trainer, f"{trainer}.killed", notes, **options)
        assert "Going on from step 2" in notes.messages, trainer
        whole, killed = written(f"{trainer}.whole"), written(f"{trainer}.killed")
        assert len(whole) == 2 and whole == killed, trainer


@pytest.mark.usefixtures("family", "length")
@columns(("Gemma 2", "pretrain sft dpo reward ppo grpo"), ("OPT", "sft reward ppo"))
def test_weights_in_bfloat16_learn(trainers: list[str]) -> None:
    for trainer in trainers:
        run(trainer, trainer, dtype="bfloat16", log_every=1)
        numbers = [value for line in metrics(trainer) for value in line.values()]
        assert all(map(math.isfinite, numbers)), trainer
        losses = [line["eval_loss"] for line in metrics(trainer) if "eval_loss" in line]
        assert trainer in ("ppo", "grpo") or losses[-1] != losses[0]
        types = {
            tensor.dtype for name, tensor in load_file(f"{trainer}/model.safetensors").items() if "score" not in name
        }
        assert types == {torch.bfloat16}, trainer


@pytest.mark.parametrize("family", ["Llama 3", "GPT-2", "Qwen3"], indirect=True)
def test_packed_rows_learn_as_separate_ones(family: str) -> None:
    """Six rows fit into one sequence, so a batch of one is all of them."""
    config = json.loads(Path("model/config.json").read_text())
    Path("model/config.json").write_text(json.dumps({k: 0.0 if "pdrop" in k else v for k, v in config.items()}))
    options: dict[str, Any] = {**SHORT, "model": "model", "learning_rate": 6e-3, "max_length": 256, "log_every": 1}
    train(sft, "rows.jsonl", output="apart", steps=1, **options)
    options["batch_size"] = 1
    train(sft, "rows.jsonl", SftOptions(packing=True), output="packed", steps=30, **options)
    (start,) = (line["loss"] for line in metrics("apart") if "loss" in line)
    losses = [line["loss"] for line in metrics("packed") if "loss" in line]
    assert losses[0] == pytest.approx(start, rel=1e-4), "the loss of the six rows, as if each were alone"
    assert losses[-1] < losses[0] / 4


@pytest.mark.usefixtures("family", "length")
@columns(("Mistral", "sft dpo reward grpo"), ("OPT", "pretrain reward ppo"))
def test_two_processes_train_one_model(trainers: list[str]) -> None:
    """Three rows of six are held out, so that one process measures more than the other one."""
    common = "--model model --steps 2 --batch-size 1 --held-out 0.3 --log-every 1 --eval-every 1"
    for trainer in trainers:
        on_policy = "--reward length.py:length --max-tokens 6" if trainer in ("ppo", "grpo") else ""
        groups = "--group-size 2" if trainer == "grpo" else ""
        train_line(f"{trainer} {TRAINERS[trainer][1]} -o {trainer} {common} {on_policy} {groups}", 2)
        report = json.loads(Path(trainer, "run", "report.json").read_text())
        assert report["run"]["processes"] == 2 and report["result"]["steps"] == 2, trainer
