"""Every trainer learns, starts where it should, and says when it should not go on. The long versions are slow."""

import json
from math import log
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from datagen.errors import InputError
from tests.train.runs import Notes, train
from tests.train.tasks import biased, problems, write_preferences, write_sft
from train import dpo, pretrain, sft
from train.errors import CheckFailed, TrainingStopped
from train.options import TrainOptions

DPO: dict[str, Any] = {"steps": 60, "eval_every": 20, "generate": 200, "best": "exact_match"}


def learn_sums(folder: str, seed: int, *, steps: int = 600) -> dict[str, float]:
    """Train on clean sums; return the metrics of the held-out ones."""
    write_sft(Path("sums.jsonl"), problems(0)[:4200])
    options: dict[str, Any] = {
        "output": folder,
        "seed": seed,
        "steps": steps,
        "generate": 200,
        "eval_every": steps // 2,
    }
    return dict(train(sft, "sums.jsonl", **options)["end"])


def learn_habit(folder: str, seed: int) -> None:
    """Train on sums of which most are wrong in one way."""
    write_sft(Path(f"biased-{seed}.jsonl"), biased(problems(0)[:6000], seed))
    train(sft, f"biased-{seed}.jsonl", output=folder, seed=seed, steps=700, eval_every=700)


def unlearn_habit(base: str, folder: str, seed: int, loss: str = "sigmoid+sft") -> dict[str, object]:
    write_preferences(Path("prefs.jsonl"), problems(0)[:2000])
    write_sft(Path("gate.jsonl"), problems(0)[-200:])
    own = dpo.Options(loss=loss, gate="gate.jsonl")
    return train(dpo, "prefs.jsonl", own, model=base, output=folder, seed=seed, **DPO)


def test_sft_learns_sums_and_dpo_unlearns_a_habit() -> None:
    assert learn_sums("clean", 0)["eval_exact_match"] >= 0.8
    learn_habit("base", 0)
    result = unlearn_habit("base", "better", 0)
    start, end = result["start"], result["end"]
    assert isinstance(start, dict)
    assert isinstance(end, dict)
    assert start["eval_exact_match"] < 0.5
    assert end["eval_exact_match"] >= 0.8
    assert start["eval_rewards/margins"] == pytest.approx(0, abs=1e-6)
    assert str(result["gate"]).startswith("passed")


@pytest.mark.slow
def test_three_seeds_of_sft_learn() -> None:
    scores = [learn_sums(f"seed-{seed}", seed)["eval_exact_match"] for seed in (0, 1, 2)]
    print(f"SFT exact match over three seeds: {scores}")
    assert min(scores) >= 0.8
    assert sum(scores) / 3 >= 0.88


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_dpo_from_a_biased_start_learns(seed: int) -> None:
    learn_habit("base", seed)
    end = unlearn_habit("base", "better", seed)["end"]
    assert isinstance(end, dict)
    print(f"DPO exact match, seed {seed}: {end['eval_exact_match']}")
    assert end["eval_exact_match"] >= 0.85


@pytest.fixture
def base() -> str:
    """A model of a few steps: a start for what does not need to be good."""
    write_sft(Path("few.jsonl"), problems(0)[:200])
    train(sft, "few.jsonl", output="base", steps=6)
    return "base"


def preferences(count: int = 120) -> str:
    write_preferences(Path("prefs.jsonl"), problems(1)[:count])
    return "prefs.jsonl"


def test_dpo_starts_at_ln_2_with_no_margin(base: str) -> None:
    start = train(dpo, preferences(), model=base, output="dpo", steps=3, held_out=0.3)["start"]
    assert start["eval_loss"] == pytest.approx(log(2), abs=1e-6)
    assert start["eval_rewards/margins"] == pytest.approx(0, abs=1e-6)


def test_label_smoothing_acts_as_conservative_dpo_does(base: str) -> None:
    """(1-e) L(d) + e L(-d), from TRL's own losses; TRL's sigmoid alone ignores e."""
    e, beta, delta = 0.2, 0.1, torch.tensor([-3.0, 0.5, 7.0])
    settings = dpo.losses(dpo.Options(label_smoothing=e, beta=beta))
    loss = {True: -torch.nn.functional.logsigmoid(beta * delta), False: -torch.nn.functional.logsigmoid(-beta * delta)}
    robust = ((1 - e) * loss[True] - e * loss[False]) / (1 - 2 * e)
    parts = {"sigmoid": loss[True], "robust": robust}
    total = sum(w * parts[n] for n, w in zip(settings["loss_type"], settings["loss_weights"], strict=True))
    assert torch.allclose(total, (1 - e) * loss[True] + e * loss[False], atol=1e-6)
    in_one_batch: dict[str, Any] = {"model": base, "steps": 4, "held_out": 0.3, "batch_size": 64}
    made = [
        train(
            dpo,
            preferences(),
            dpo.Options(label_smoothing=each),
            output=f"dpo-{each}",
            learning_rate=5e-5,
            **in_one_batch,
        )
        for each in (0.0, 0.4)
    ]
    for each, result in zip((0.0, 0.4), made, strict=True):
        fallen = log(2) - result["end"]["eval_loss"]
        share = fallen / result["end"]["eval_rewards/margins"]
        assert share == pytest.approx((1 - 2 * each) / 2, rel=0.1), "the slope of the loss at a margin near 0"


@pytest.mark.parametrize("loss", ["sigmoid+sft", "ipo", "hinge", "robust", "apo_zero", "kto"])
def test_other_losses_run_by_name(base: str, loss: str) -> None:
    result = train(dpo, preferences(), dpo.Options(loss=loss), model=base, output=f"dpo-{loss}", steps=3, held_out=0.3)
    assert result["steps"] == 3


@pytest.mark.parametrize(
    ("own", "says"),
    [
        (dpo.Options(loss="magic"), "unknown magic"),
        (dpo.Options(loss="ipo", label_smoothing=0.1), "acts on the losses sigmoid and robust"),
        (dpo.Options(loss="kto", label_smoothing=0.1), "does not act on kto"),
        (dpo.Options(gate="none.jsonl"), "--gate needs --generate"),
    ],
)
def test_options_that_would_do_nothing_are_refused(base: str, own: dpo.Options, says: str) -> None:
    with pytest.raises(InputError, match=says):
        train(dpo, preferences(), own, model=base, output="dpo", steps=2)


def test_a_wrong_reference_is_caught_before_the_first_step(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = dpo.reference

    def another(loaded: object) -> object:
        model = honest(loaded)  # type: ignore[arg-type]
        model.get_input_embeddings().weight.data.add_(0.05 * torch.randn_like(model.get_input_embeddings().weight))
        return model

    monkeypatch.setattr(dpo, "reference", another)
    with pytest.raises(CheckFailed, match="reference"):
        train(dpo, preferences(400), model=base, output="dpo", steps=3, held_out=0.3)


def test_dpo_from_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="starts from a trained model"):
        train(dpo, preferences(), model="tiny", output="dpo", steps=2)


def test_a_result_that_got_worse_fails_the_gate(base: str) -> None:
    result = {"start": {"eval_exact_match": 0.6}, "end": {"eval_exact_match": 0.4}}
    assert dpo.judge_gate(result, "loss") == "failed: eval_exact_match 0.600 before, 0.400 after"
    result["end"]["eval_exact_match"] = 0.6
    assert dpo.judge_gate(result, "exact_match").startswith("passed")


def test_adapters_train_and_the_base_stays_as_it_was(base: str) -> None:
    before = load_file(f"{base}/model.safetensors")
    train(sft, "few.jsonl", model=base, lora=True, output="adapters", steps=6)
    assert Path("adapters/adapter_model.safetensors").exists()
    assert all(torch.equal(before[name], value) for name, value in load_file(f"{base}/model.safetensors").items())


def test_dpo_with_adapters_takes_the_model_without_them_as_reference(base: str) -> None:
    result = train(dpo, preferences(), model=base, lora=True, output="dpo", steps=4, held_out=0.3, learning_rate=1e-2)
    assert result["start"]["eval_loss"] == pytest.approx(log(2), abs=1e-6)
    assert result["end"]["eval_rewards/margins"] > 0


def test_frozen_layers_do_not_change(base: str) -> None:
    train(sft, "few.jsonl", model=base, train_last=1, output="last", steps=4)
    before, after = (load_file(f"{folder}/model.safetensors") for folder in (base, "last"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert not [name for name in changed if ".layers.0." in name or "embed" in name]


def test_pretraining_learns_to_continue_documents() -> None:
    line = "The ferry leaves the north pier at nine and comes back at five. "
    Path("docs.txt").write_text("".join(f"{i}. {line}\n" for i in range(200)))
    result = train(pretrain, "docs.txt", output="pre", steps=60, held_out=0.1, max_length=64)
    assert result["end"]["eval_loss"] < 0.5 < result["start"]["eval_loss"]


def test_a_packed_run_learns_as_an_unpacked_one_does() -> None:
    write_sft(Path("sums.jsonl"), problems(0)[:400])
    ends = [
        train(
            sft,
            "sums.jsonl",
            sft.Options(packing=packing),
            output=f"packed-{packing}",
            steps=12,
            max_length=128,
            batch_size=8,
        )["end"]
        for packing in (False, True)
    ]
    assert all(end["eval_loss"] < 4 for end in ends)


def test_accumulated_parts_give_the_gradients_of_the_whole() -> None:
    write_sft(Path("sums.jsonl"), problems(0)[:200])
    options: dict[str, Any] = {"steps": 3, "batch_size": 8, "eval_every": 100, "save_every": 100, "held_out": 0.1}
    whole = train(sft, "sums.jsonl", output="whole", **options)
    parts = train(sft, "sums.jsonl", output="parts", accumulate=4, **options)
    assert parts["end"]["eval_loss"] == pytest.approx(whole["end"]["eval_loss"], rel=1e-3)


def test_a_run_leaves_its_curves_its_card_and_its_config(base: str) -> None:
    assert "<svg" in Path("base/run/curves.svg").read_text()
    card = Path("base/README.md").read_text()
    assert "datagen train sft" in card
    assert "before | after" in card
    assert json.loads(Path("base/run/config.json").read_text())["steps"] == 6
    assert not Path("base/training_args.bin").exists()
    notes = Notes()
    assert sft.run("few.jsonl", _same(), sft.Options(), notes) is None
    assert "Nothing to do" in notes.said[-1]


def _same() -> TrainOptions:
    return TrainOptions(output="base", steps=6, log_every=5)


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
    result = train(sft, "sums.jsonl", output="out", steps=400, eval_every=10, patience=2, held_out=0.3)
    assert result["steps"] < 400
    assert result["best_step"] <= result["steps"] - 20
