"""Our files in the code of those who read them: TRL's trainers, as docs/rows.md says, on a tiny model."""

import math
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset
from transformers import LlamaForSequenceClassification
from trl import (
    DPOConfig,
    DPOTrainer,
    KTOConfig,
    KTOTrainer,
    RewardConfig,
    RewardTrainer,
    SFTConfig,
    SFTTrainer,
)

from datagen.commands import convert
from datagen.commands.table import load_methods
from datagen.records.files import dump_line
from datagen.records.record import Row
from datagen.select.filter import Filter, Options
from datagen_train.models.tiny import make_tiny
from tests.jobs import evolve, perform, respond, write_seeds

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
SUMS = [{"prompt": f"What is {a} + {b}?", "answer": str(a + b)} for a in range(2, 6) for b in range(2, 6)]
STEPS = 2
SETTINGS: dict[str, Any] = {
    "output_dir": "out", "max_steps": STEPS, "per_device_train_batch_size": 4, "use_cpu": True, "report_to": [],
    "logging_steps": 1, "save_strategy": "no", "disable_tqdm": True, "bf16": False,
}  # fmt: skip


def write(path: str, lines: list[Row]) -> Path:
    Path(path).write_bytes(b"".join(map(dump_line, lines)))
    return Path(path)


def load(*names: str) -> Any:
    return load_dataset("json", data_files=list(names), split="train", cache_dir="cache")


def tiny(data: Any) -> tuple[Any, Any]:
    """Return a tiny model and a tokenizer that knows the words of the data."""
    return make_tiny("tiny", [str(row) for row in data], 0)


def losses(trainer: Any) -> list[float]:
    """Train; return the loss of each step."""
    trainer.train()
    history = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(history) == STEPS and all(map(math.isfinite, history))
    return history


def sample_sums(output: str) -> None:
    """Answer sums three times each, often wrongly."""
    write("sums.jsonl", SUMS)
    respond(Path("sums.jsonl"), "sim:skill=0.5", output, strategy="cot", k=3, verify=["answer"])


def judged_pairs(output: str) -> None:
    """Write preferences with margins."""
    sample_sums("samples.jsonl")
    verify, pairs = load_methods("judge")["verify"], load_methods("pairs")["best_worst"]
    perform(verify, Path("samples.jsonl"), "sim", "ranked.jsonl", verify.options_type(verify=["answer"]))
    perform(pairs, Path("ranked.jsonl"), "sim", output, pairs.options_type())


def test_responses_of_two_methods_train_together() -> None:
    seeds = write_seeds(6)
    evolve(seeds, "sim", "evolved.jsonl", rounds=1)
    respond(seeds, "sim:think=1", "answered.jsonl")
    rows = load("evolved.jsonl", "answered.jsonl").rename_column("response", "completion")
    model, tokenizer = tiny(rows)
    trainer = SFTTrainer(model, SFTConfig(**SETTINGS), train_dataset=rows, processing_class=tokenizer)
    losses(trainer)
    example = trainer.train_dataset[0]
    learned = [token for token in example["labels"] if token != -100]
    assert tokenizer.decode(learned, skip_special_tokens=True).strip() == rows[0]["completion"].strip()


def test_converted_responses_train_as_they_are() -> None:
    respond(write_seeds(8), "sim", "answered.jsonl")
    assert convert.run("answered.jsonl", convert.Options(to="trl", output="trl.jsonl", quiet=True)) == 0
    rows = load("trl.jsonl")
    model, tokenizer = tiny(rows)
    losses(SFTTrainer(model, SFTConfig(**SETTINGS), train_dataset=rows, processing_class=tokenizer))


def test_preferences_train_as_they_are() -> None:
    judged_pairs("pairs.jsonl")
    rows = load("pairs.jsonl")
    model, tokenizer = tiny(rows)
    model.save_pretrained("policy")
    model.config._name_or_path = str(Path("policy").resolve())
    trainer = DPOTrainer(model, args=DPOConfig(**SETTINGS), train_dataset=rows, processing_class=tokenizer)
    assert losses(trainer)[0] == pytest.approx(math.log(2), abs=0.01)


def test_a_reward_model_starts_at_the_usual_loss_without_the_margin() -> None:
    judged_pairs("pairs.jsonl")
    preferences = load("pairs.jsonl")
    assert set(preferences["margin"]) == {1.0}

    def first_loss(rows: Any) -> float:
        model, tokenizer = tiny(rows)
        model.config.num_labels, model.config.pad_token_id = 1, tokenizer.pad_token_id
        scorer = LlamaForSequenceClassification(model.config)
        scorer.score.weight.data.zero_()  # every reward is 0 at first
        return losses(
            RewardTrainer(scorer, args=RewardConfig(**SETTINGS), train_dataset=rows, processing_class=tokenizer)
        )[0]

    assert first_loss(preferences.remove_columns("margin")) == pytest.approx(math.log(2), abs=1e-4)
    assert first_loss(preferences) == pytest.approx(math.log(1 + math.e), abs=1e-4)  # all margins are 1


def test_preferences_without_a_judge_have_no_margin_to_keep() -> None:
    sample_sums("samples.jsonl")
    pairs = load_methods("pairs")["verified"]
    perform(pairs, Path("samples.jsonl"), "sim", "pairs.jsonl", pairs.options_type())
    assert set(load("pairs.jsonl")["margin"]) == {0.0}


def test_unpaired_preferences_train_in_kto() -> None:
    lines = [{"prompt": f"What is {a}?", "response": f"It is {a}.", "label": bool(a % 2)} for a in range(8)]
    write("unpaired.jsonl", lines)
    perform(Filter, Path("unpaired.jsonl"), "sim", "kept.jsonl", Options(rule=["none"]))
    rows = load("kept.jsonl").rename_column("response", "completion")
    model, tokenizer = tiny(rows)
    model.save_pretrained("policy")
    model.config._name_or_path = str(Path("policy").resolve())
    losses(KTOTrainer(model, args=KTOConfig(**SETTINGS), train_dataset=rows, processing_class=tokenizer))
