"""DPO: the loss at the start, the formula of the paper, and no success when only the margins grow."""

import json
import re
from collections.abc import Sequence
from math import log
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedModel

from datagen.errors import InputError
from datagen_train import dpo, sft
from datagen_train.data.encode import Encoder
from datagen_train.data.split import is_held_out
from datagen_train.errors import CheckFailed
from datagen_train.models.load import frozen_reference
from datagen_train.options import DpoOptions, TrainOptions
from datagen_train.run.terminal import NOTHING_LEARNED, Terminal
from datagen_train.tools.evaluate import load_trained
from tests.train.conftest import COLOURS
from tests.train.runs import metrics, train
from tests.train.tasks import biased, problems, with_small_numbers, write_preferences, write_sft

DPO: dict[str, Any] = {"steps": 60, "eval_every": 20, "generate": 200, "best": "exact_match"}


def unlearn_habit(base: str, folder: str, seed: int, loss: str = "sigmoid+sft") -> dict[str, object]:
    write_preferences(Path("prefs.jsonl"), problems(0)[:2000])
    write_sft(Path("gate.jsonl"), problems(0)[-200:])
    dpo_options = DpoOptions(loss=loss, gate="gate.jsonl")
    return train(dpo, "prefs.jsonl", dpo_options, model=base, output=folder, seed=seed, **DPO)


@pytest.mark.slow
def test_dpo_unlearns_a_habit() -> None:
    """The small version: fewer sums, fewer steps."""
    sums = with_small_numbers(problems(0))
    write_sft(Path("biased.jsonl"), biased(sums[:-200], 1))
    train(sft, "biased.jsonl", output="base", seed=1, steps=160, eval_every=160)
    write_preferences(Path("prefs.jsonl"), sums[:1000])
    write_sft(Path("gate.jsonl"), sums[-200:])
    options: dict[str, Any] = {"steps": 40, "eval_every": 20, "generate": 100, "best": "exact_match"}
    dpo_options = DpoOptions(loss="sigmoid+sft", gate="gate.jsonl")
    result = train(dpo, "prefs.jsonl", dpo_options, model="base", output="better", seed=1, **options)
    assert 0.05 < result["start"]["eval_exact_match"] < 0.5, "it knows sums, and answers by habit"
    assert result["end"]["eval_exact_match"] >= result["start"]["eval_exact_match"] + 0.3
    assert result["gate"].startswith("passed")


@pytest.mark.slow
def test_dpo_from_a_biased_start_learns(biased_model: tuple[int, str]) -> None:
    seed, base = biased_model
    end = unlearn_habit(base, "better", seed)["end"]
    assert isinstance(end, dict)
    print(f"DPO exact match, seed {seed}: {end['eval_exact_match']}")
    assert end["eval_exact_match"] >= 0.85


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
    settings = dpo.loss_arguments(DpoOptions(label_smoothing=e, beta=beta))
    loss = {True: -torch.nn.functional.logsigmoid(beta * delta), False: -torch.nn.functional.logsigmoid(-beta * delta)}
    robust = ((1 - e) * loss[True] - e * loss[False]) / (1 - 2 * e)
    parts = {"sigmoid": loss[True], "robust": robust}
    total = sum(w * parts[n] for n, w in zip(settings["loss_type"], settings["loss_weights"], strict=True))
    assert torch.allclose(total, (1 - e) * loss[True] + e * loss[False], atol=1e-6)
    in_one_batch: dict[str, Any] = {"model": base, "steps": 4, "held_out": 0.3, "batch_size": 64}
    results = [
        train(
            dpo,
            preferences(),
            DpoOptions(label_smoothing=smoothing),
            output=f"dpo-{smoothing}",
            learning_rate=5e-5,
            **in_one_batch,
        )
        for smoothing in (0.0, 0.4)
    ]
    for smoothing, result in zip((0.0, 0.4), results, strict=True):
        fallen = log(2) - result["end"]["eval_loss"]
        share = fallen / result["end"]["eval_rewards/margins"]
        assert share == pytest.approx((1 - 2 * smoothing) / 2, rel=0.1), "the slope of the loss at a margin near 0"


@pytest.mark.parametrize("loss", ["sigmoid+sft", "ipo", "hinge", "robust", "apo_zero", "kto"])
def test_other_losses_run_by_name(base: str, loss: str) -> None:
    result = train(dpo, preferences(), DpoOptions(loss=loss), model=base, output=f"dpo-{loss}", steps=3, held_out=0.3)
    assert result["steps"] == 3


def write_labels(name: str, labels: Sequence[object]) -> str:
    """Write sums with an answer that is good or bad by itself, as TRL's KTO trainer reads them."""
    sums = problems(5)[: len(labels)]
    rows = [
        {"prompt": prompt, "completion": str(number if label else number + 1), "label": label}
        for (prompt, number), label in zip(sums, labels, strict=True)
    ]
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def test_kto_learns_from_answers_that_are_good_or_bad_by_themselves(base: str) -> None:
    data = write_labels("labels.jsonl", [number % 3 > 0 for number in range(90)])
    result = train(dpo, data, DpoOptions(loss="kto"), model=base, output="kto", steps=3, held_out=0.1)
    rows = result["rows"]
    assert (rows["read"], rows["train"] + rows["held_out"], result["steps"]) == (90, 90, 3)
    good, bad = map(int, re.findall(r"\d+", result["checks"]["labels"]))
    assert (good > bad > 20, good + bad) == (True, rows["train"])


def test_kto_needs_both_kinds_of_answers(base: str) -> None:
    with pytest.raises(InputError, match="there is only one kind"):
        train(dpo, write_labels("good.jsonl", [True] * 20), DpoOptions(loss="kto"), model=base, output="kto", steps=3)


@pytest.mark.parametrize(
    ("dpo_options", "says"),
    [
        (DpoOptions(loss="magic"), "unknown magic"),
        (DpoOptions(loss="ipo", label_smoothing=0.1), "acts on the losses sigmoid and robust"),
        (DpoOptions(loss="kto", label_smoothing=0.1), "acts on the losses sigmoid and robust, not on kto"),
        (DpoOptions(gate="none.jsonl"), "--gate needs --generate"),
    ],
)
def test_options_that_would_do_nothing_are_refused(base: str, dpo_options: DpoOptions, says: str) -> None:
    with pytest.raises(InputError, match=says):
        train(dpo, preferences(), dpo_options, model=base, output="dpo", steps=2)


def test_a_wrong_reference_is_caught_before_the_first_step(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def another(start: Any) -> Any:
        model: Any = frozen_reference(start)
        model.get_input_embeddings().weight.data.add_(0.05 * torch.randn_like(model.get_input_embeddings().weight))
        return model

    monkeypatch.setattr(dpo, "frozen_reference", another)
    with pytest.raises(CheckFailed, match="reference"):
        train(dpo, preferences(400), model=base, output="dpo", steps=3, held_out=0.3)


def test_dpo_from_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="starts from a trained model"):
        train(dpo, preferences(), model="tiny", output="dpo", steps=2)


def test_a_result_that_got_worse_fails_the_gate(taught: Path) -> None:
    """The margin grows as it should while the model forgets its task; only the gate detects it."""
    rows = [
        {"prompt": f"What colour is the {thing}?", "chosen": "purple", "rejected": c} for thing, c in COLOURS.items()
    ]
    Path("wrong.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    gate = [{"prompt": row["prompt"], "response": row["rejected"]} for row in rows]
    Path("gate.jsonl").write_text("".join(json.dumps(row) + "\n" for row in gate))
    dpo_options = DpoOptions(loss="sigmoid+sft", gate="gate.jsonl")
    options = TrainOptions(
        model=str(taught), output="out", steps=20, held_out=0.3, generate=6, eval_every=10, quiet=True
    )
    terminal = Terminal("dpo", quiet=True)
    report = dpo.run("wrong.jsonl", options, dpo_options, terminal)
    assert report is not None
    assert report["result"]["gate"].startswith("failed: eval_exact_match 1.000 before, 0.")
    assert json.loads(Path("out/run/report.json").read_text())["result"]["gate"] == report["result"]["gate"]
    assert terminal.conclude(report, options, "pairs.jsonl") == NOTHING_LEARNED == 3


def test_dpo_with_adapters_takes_the_model_without_them_as_reference(base: str) -> None:
    result = train(dpo, preferences(), model=base, lora=True, output="dpo", steps=4, held_out=0.3, learning_rate=1e-2)
    assert result["start"]["eval_loss"] == pytest.approx(log(2), abs=1e-6)
    assert result["end"]["eval_rewards/margins"] > 0


def write_unequal_lengths(count: int = 120) -> str:
    """Write preferences with much longer rejected answers."""
    rows = [
        {"prompt": prompt, "chosen": str(answer), "rejected": f"{answer + 1}, or {answer}, or so"}
        for prompt, answer in problems(1)[:count]
    ]
    Path("unequal.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "unequal.jsonl"


def log_probability(model: PreTrainedModel, prompt: Any, answer: Any) -> float:
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
    return sum(float(logits[len(prompt) + i - 1, token]) for i, token in enumerate(answer))


def test_a_reward_is_beta_times_the_log_probability_gained_over_all_tokens_of_the_answer(base: str) -> None:
    """A mean over tokens, a shifted mask or a wrong reference would give another number."""
    options: dict[str, Any] = {"steps": 6, "held_out": 0.2, "learning_rate": 3e-3, "eval_every": 6}
    end = train(dpo, write_unequal_lengths(), DpoOptions(beta=0.3), model=base, output="out", **options)["end"]
    before, after = (load_trained(folder, "float32") for folder in (base, "out"))
    encoder = Encoder(before.tokenizer, {before.tokenizer.eos_token_id}, 256)
    lines = map(json.loads, Path("unequal.jsonl").read_text().splitlines())
    pairs = [encoder.preference(**row) for row in lines if is_held_out(row["prompt"], 0.2)]
    assert 8 < len(pairs) <= 32, "one batch"
    for side in ("chosen", "rejected"):
        gained = [
            log_probability(after.model, pair.prompt, getattr(pair, side))
            - log_probability(before.model, pair.prompt, getattr(pair, side))
            for pair in pairs
        ]
        assert end[f"eval_rewards/{side}"] == pytest.approx(0.3 * sum(gained) / len(gained), rel=1e-3)
    assert end["eval_rewards/margins"] > 0.1


def with_dropout(base: str) -> str:
    model = LlamaForCausalLM.from_pretrained(base, attention_dropout=0.5)
    model.save_pretrained("dropout")
    load_trained(base, "float32").tokenizer.save_pretrained("dropout")
    return "dropout"


@pytest.mark.parametrize("lora", [False, True], ids=["whole", "adapters"])
def test_dropout_is_off_while_preferences_are_trained(base: str, lora: bool) -> None:
    """The loss of the first step is computed before any update: without dropout it is exactly ln 2."""
    train(dpo, preferences(), model=with_dropout(base), output="out", steps=2, log_every=1, held_out=0.1, lora=lora)
    first = next(line for line in metrics("out") if "loss" in line)
    assert first["loss"] == pytest.approx(log(2), abs=1e-6)


def test_the_cached_reference_is_that_of_the_model_at_hand(base: str, taught: Path) -> None:
    """With more than one epoch the reference log-probabilities are cached, but never those of another model."""
    for name, start in (("first", base), ("second", str(taught))):
        train(dpo, preferences(40), model=start, output=name, steps=6, log_every=1, held_out=0.1, batch_size=16)
        assert next(line["loss"] for line in metrics(name) if "loss" in line) == pytest.approx(log(2), abs=1e-6)


def test_accumulated_parts_of_preferences_give_the_gradient_of_the_whole(base: str) -> None:
    norms = []
    for parts in (1, 4):
        train(
            dpo,
            write_unequal_lengths(40),
            model=base,
            output=f"in-{parts}",
            steps=2,
            batch_size=8,
            accumulate=parts,
            log_every=1,
        )
        norms.append(next(line["grad_norm"] for line in metrics(f"in-{parts}") if "grad_norm" in line))
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)


def test_lengths_of_the_answers_are_reported(base: str) -> None:
    finding = train(dpo, write_unequal_lengths(), model=base, output="out", steps=1)["checks"]["lengths"]
    assert "the chosen one is longer in 0% and shorter in 100% of the pairs" in finding
