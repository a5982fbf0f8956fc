"""SFT and pre-training learn, and stop when they should. The long versions are slow."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

from datagen_train import pretrain, sft
from datagen_train.data.checks import check_packing
from datagen_train.data.encode import Encoder
from datagen_train.errors import CheckFailed, Finished, TrainingStopped
from datagen_train.options import SftOptions, TrainOptions
from datagen_train.tools.evaluate import load_trained
from tests.once import SEEDS
from tests.train.runs import Notes, metrics, train
from tests.train.tasks import problems, with_small_numbers, write_sft


def test_sft_learns_sums() -> None:
    """The small version: fewer sums, fewer steps."""
    sums = with_small_numbers(problems(0))
    write_sft(Path("sums.jsonl"), sums)
    result = train(sft, "sums.jsonl", output="out", seed=1, steps=120, generate=100, eval_every=120, held_out=0.04)
    assert result["start"]["eval_exact_match"] == 0
    assert result["end"]["eval_exact_match"] >= 0.7
    assert result["end"]["eval_ended"] >= 0.95, "it has learned to stop"


def learn_sums(folder: str, seed: int) -> dict[str, float]:
    """Train on clean sums; return the metrics of the held-out ones."""
    write_sft(Path("sums.jsonl"), problems(0)[:4200])
    options: dict[str, Any] = {"output": folder, "seed": seed, "steps": 600, "generate": 200, "eval_every": 300}
    return dict(train(sft, "sums.jsonl", **options)["end"])


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_sft_learns_with_every_seed(seed: int) -> None:
    score = learn_sums("model", seed)["eval_exact_match"]
    print(f"SFT exact match, seed {seed}: {score}")
    assert score >= 0.8


def test_adapters_train_and_the_base_stays_as_it_was(base: str, few: str) -> None:
    before = load_file(f"{base}/model.safetensors")
    train(sft, few, model=base, lora=True, output="adapters", steps=6)
    assert Path("adapters/adapter_model.safetensors").exists()
    assert all(torch.equal(before[name], value) for name, value in load_file(f"{base}/model.safetensors").items())


def test_frozen_layers_do_not_change(base: str, few: str) -> None:
    train(sft, few, model=base, train_last=1, output="last", steps=4)
    before, after = (load_file(f"{folder}/model.safetensors") for folder in (base, "last"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert not [name for name in changed if ".layers.0." in name or "embed" in name]


def test_pretraining_learns_to_continue_documents() -> None:
    line = "The ferry leaves the north pier at nine and comes back at five. "
    Path("docs.txt").write_text("".join(f"{i}. {line}\n" for i in range(200)))
    result = train(pretrain, "docs.txt", output="pre", steps=60, held_out=0.1, max_length=64)
    assert result["end"]["eval_loss"] < 0.5 < result["start"]["eval_loss"]


def losses(folder: str) -> list[float]:
    return [line["loss"] for line in metrics(folder) if "loss" in line]


def test_packed_rows_cost_what_they_cost_apart() -> None:
    """All rows in one step: the loss before the first update is the mean over tokens, packed or not."""
    write_sft(Path("sums.jsonl"), problems(0)[:60])
    for packing in (False, True):
        options: dict[str, Any] = {"steps": 1, "max_length": 128, "batch_size": 64, "held_out": 0, "log_every": 1}
        train(sft, "sums.jsonl", SftOptions(packing=packing), output=f"packed-{packing}", **options)
    assert losses("packed-True") == pytest.approx(losses("packed-False"), rel=1e-5)


class IgnoresPositions(LlamaForCausalLM):
    """A model that ignores where its rows begin."""

    def forward(self, *args: Any, position_ids: Any = None, **kwargs: Any) -> Any:
        return super().forward(*args, **kwargs)


def test_packing_is_refused_where_rows_would_see_each_other(base: str) -> None:
    loaded = load_trained(base, "float32")
    encoder = Encoder(loaded.tokenizer, {loaded.tokenizer.eos_token_id}, 128)
    rows = [
        encoder.answer([{"role": "user", "content": prompt}, {"role": "assistant", "content": str(answer)}])
        for prompt, answer in problems(0)[:2]
    ]
    assert check_packing(loaded, rows) < 1e-4
    loaded.model.__class__ = IgnoresPositions
    with pytest.raises(CheckFailed, match="see each other"):
        check_packing(loaded, rows)


def test_accumulated_parts_give_the_gradient_of_the_whole() -> None:
    """With answers of one and of forty tokens; a mean of means would give tokens of short answers more weight."""
    write_sft(Path("sums.jsonl"), problems(0)[:20])
    with Path("sums.jsonl").open("a") as file:
        for prompt, answer in problems(1)[:20]:
            file.write(json.dumps({"prompt": prompt, "response": f"{answer}, since " + "that is the sum, " * 8}) + "\n")
    options: dict[str, Any] = {"steps": 2, "batch_size": 8, "log_every": 1, "held_out": 0}
    train(sft, "sums.jsonl", output="full", **options)
    train(sft, "sums.jsonl", output="parts", accumulate=4, **options)
    full, parts = (
        [(line["loss"], line["grad_norm"]) for line in metrics(name) if "loss" in line] for name in ("full", "parts")
    )
    assert parts[0] == pytest.approx(full[0], rel=1e-4)


def test_a_window_of_one_token_costs_nothing_and_spoils_nothing() -> None:
    Path("docs.txt").write_text("".join(f"Note {i} is short.\n" for i in range(40)))
    train(pretrain, "docs.txt", output="out", steps=4, batch_size=1, log_every=1, max_length=8, held_out=0.2)
    assert all(math.isfinite(loss) for loss in losses("out"))


def test_a_row_known_by_heart_ends_where_it_should() -> None:
    """P(end) after the answer is near 1, and the saved model stops there."""
    write_sft(Path("one.jsonl"), problems(0)[:1])
    train(sft, "one.jsonl", output="out", steps=30, batch_size=1, held_out=0)
    loaded = load_trained("out", "float32")
    (prompt, answer) = problems(0)[0]
    ids = Encoder(loaded.tokenizer, {loaded.tokenizer.eos_token_id}, 128).prompt(prompt)
    ids += loaded.tokenizer(str(answer), add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        chances = loaded.model(torch.tensor([ids])).logits[0, -1].softmax(-1)
    assert chances[loaded.tokenizer.eos_token_id] > 0.95
    configured = json.loads(Path("out/generation_config.json").read_text())["eos_token_id"]
    assert configured in (loaded.tokenizer.eos_token_id, [loaded.tokenizer.eos_token_id])


def test_a_run_leaves_its_curves_its_card_and_its_config(few: str) -> None:
    options = TrainOptions(output="out", steps=6, log_every=5)
    notes = Notes()
    sft.run(few, options, SftOptions(), notes)
    assert "<svg" in Path("out/run/curves.svg").read_text()
    card = Path("out/README.md").read_text()
    assert "datagen train sft" in card
    assert "before | after" in card
    assert json.loads(Path("out/run/config.json").read_text())["steps"] == 6
    assert not Path("out/training_args.bin").exists()
    steps = [line["step"] for line in metrics("out") if "eval_loss" in line]
    assert steps == list(range(7)), "each measured once, and the best one not again as the last"
    with pytest.raises(Finished) as finished:
        sft.run(few, options, SftOptions(), notes)
    assert finished.value.report == json.loads(Path("out/run/report.json").read_text())
    assert "Nothing to do" in notes.messages[-1]


def test_rows_that_cannot_be_used_are_kept_with_their_place_and_counted() -> None:
    write_sft(Path("rows.jsonl"), problems(0)[:100])
    with Path("rows.jsonl").open("a") as file:
        file.write('{"prompt": "No response here."}\n{broken\n{"prompt": "Say <|im_end|>", "response": "No."}\n')
    rows = train(sft, "rows.jsonl", output="out", steps=2)["rows"]
    assert (rows["read"], rows["unreadable"]) == (103, 1)
    assert rows["dropped"] == {"a message holds a special token": 1, "no response": 1}
    assert rows["train"] + rows["held_out"] == 100
    (bad,) = [json.loads(line) for line in Path("out/run/dropped.jsonl").read_text().splitlines() if "broken" in line]
    assert (bad["source"], bad["line"]) == ("rows.jsonl", 102)


def test_a_loss_that_is_no_number_ends_the_run_in_one_line() -> None:
    write_sft(Path("sums.jsonl"), problems(0)[:200])
    with pytest.raises(TrainingStopped, match=r"step \d+: .* is not a number. Lower --learning-rate"):
        train(sft, "sums.jsonl", output="out", steps=60, learning_rate=1e20, log_every=1)


def test_patience_ends_a_run_that_gets_no_better() -> None:
    write_sft(Path("sums.jsonl"), problems(0)[:60])
    result = train(sft, "sums.jsonl", output="out", steps=400, eval_every=5, patience=2, held_out=0.3, best="loss")
    assert result["steps"] < 400
    assert result["best_step"] <= result["steps"] - 10
