"""Whether something was learned: by the weights, by held-out rows, by the end of the command, and again the same."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from datagen.commands.main import app
from datagen.errors import InputError
from datagen.report.markdown import plain
from datagen_train import dpo, ppo, sft
from datagen_train.options import DpoOptions, PretrainOptions, SftOptions, TrainerOptions, TrainOptions
from datagen_train.policy_options import PpoOptions
from datagen_train.run.outcome import Course, check_selection, fingerprint, has_changed, outcome
from datagen_train.run.reward_report import reservations
from tests.train.runs import train
from tests.train.tasks import problems, write_preferences, write_sft

LOSS = Course("base", 6e-4, "eval_loss", {"eval_loss": 0.7}, {"eval_loss": 0.5}, [0.6, 0.5])


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["train", *arguments], prog_name="datagen", catch_exceptions=False)


def judged(changed: bool = True, failure: str | None = None, doubt: str | None = None, **course: Any) -> bool | None:
    return outcome(replace(LOSS, **course), changed=changed, failure=failure, doubt=doubt).learned


def ends(metric: str, start: dict[str, float], end: dict[str, float], doubt: str | None = None) -> bool | None:
    named = [{f"eval_{name}": value for name, value in values.items()} for values in (start, end)]
    course: dict[str, Any] = {"metric": f"eval_{metric}", "start": named[0], "end": named[1], "measured": [end[metric]]}
    return judged(doubt=doubt, **course)


def test_a_better_metric_counts_and_neither_the_same_weights_nor_a_failure_do() -> None:
    assert judged() is True
    assert judged(changed=False) is False
    assert judged(failure="gate failed") is False
    assert judged(metric=None, start={}, end={}) is None, "nothing was held out"
    assert judged(changed=False, metric=None) is False


@pytest.mark.parametrize(
    ("metric", "start", "end", "learned"),
    [
        ("loss", {"loss": 0.7}, {"loss": 0.8}, False),
        ("loss", {"loss": 0.693147}, {"loss": 0.693144}, False),  # noise
        ("reward", {"reward": -1.0}, {"reward": -0.5}, True),
        ("reward", {"reward": 1.0}, {"reward": 0.5}, False),
        ("reward", {"reward": 1.0}, {"reward": 1.0}, False),
        ("exact_match", {"exact_match": 0.5, "loss": 1.0}, {"exact_match": 0.4, "loss": 0.1}, False),
        ("exact_match", {"exact_match": 0.5, "loss": 1.0}, {"exact_match": 0.5, "loss": 0.9}, True),  # a tie: the loss
        ("exact_match", {"exact_match": 1.0, "loss": 0.2}, {"exact_match": 1.0, "loss": 0.1}, True),
        ("exact_match", {"exact_match": 1.0, "loss": 0.1}, {"exact_match": 1.0, "loss": 0.2}, False),
        ("reward", {"reward": 1.0, "exact_match": 0.9}, {"reward": 1.0, "exact_match": 1.0}, True),
        ("reward", {"reward": 1.0, "exact_match": 1.0}, {"reward": 1.0, "exact_match": 1.0}, None),  # nothing to learn
    ],
)
def test_the_metric_that_selects_decides_then_the_loss_then_exact_match(
    metric: str, start: dict[str, float], end: dict[str, float], learned: bool | None
) -> None:
    assert ends(metric, start, end) is learned


def test_too_few_rows_say_yes_or_nothing() -> None:
    start, doubt = {"loss": 0.7, "accuracy": 0.57}, "too few"
    assert ends("accuracy", start, {"loss": 0.8, "accuracy": 0.6}, doubt) is True
    assert ends("accuracy", start, {"loss": 0.6, "accuracy": 0.57}, doubt) is True, "a tie: the loss"
    assert ends("accuracy", start, {"loss": 0.8, "accuracy": 0.57}, doubt) is None
    assert ends("accuracy", start, {"loss": 0.6, "accuracy": 0.51}, doubt) is None
    assert ends("accuracy", start, {"loss": 0.6, "accuracy": 0.51}) is False


@pytest.mark.parametrize(
    ("measured", "end", "says"),
    [
        ([0.75, 0.8], 0.75, "It got worse at once: lower --learning-rate (it was 0.0006)"),
        ([0.7001, 0.7002], 0.7001, "It hardly moved. Raise --epochs (or --steps), or --learning-rate"),
        ([0.6, 0.9], 0.9, "It was better in between, and the last model was kept: use --best"),
    ],
)
def test_what_to_try_follows_from_what_happened(measured: list[float], end: float, says: str) -> None:
    course = replace(LOSS, end={"eval_loss": end}, measured=measured)
    sentence = outcome(course, changed=True).sentence
    assert sentence.startswith(f"nothing was learned: eval_loss on held-out rows: 0.7 before, {end:g} after. ")
    assert says in sentence


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_bit_of_one_weight_is_a_change(dtype: torch.dtype) -> None:
    model = torch.nn.Linear(300, 300).to(dtype)
    before = fingerprint(model)
    assert not has_changed(model, before)
    with torch.no_grad():
        model.weight[7, 7] = torch.nextafter(model.weight[7, 7], torch.tensor(9.0, dtype=dtype))
    assert has_changed(model, before)
    model.weight.requires_grad_(False)
    assert fingerprint(model).keys() == {"bias"}, "only what is trained"


def test_an_accuracy_that_may_be_chance_or_fell_is_a_failure_if_it_can_be_told() -> None:
    def of(accuracy: float, before: float = 0.5, count: int = 200) -> dict[str, str]:
        interval = (accuracy - 0.07, accuracy + 0.07)
        return reservations(before, {"comparisons": count, "accuracy": accuracy, "interval": interval})

    assert of(0.7) == {}
    assert "0.500 before, 0.550 after (95 %: 0.480 to 0.620; chance is 0.5)" in of(0.55)["failure"]
    assert "failure" in of(0.7, before=0.75)
    assert of(0.3, count=47) == {"doubt": "47 held-out comparisons are too few to tell: at least 100 are needed"}
    assert "0 held-out" in reservations(0.0, {})["doubt"]


# Whole runs.


def conclusion(folder: str) -> dict[str, Any]:
    return dict(json.loads(Path(folder, "run", "report.json").read_text())["result"])


def test_a_run_that_got_worse_ends_with_3_says_so_everywhere_and_again(base: str) -> None:
    write_preferences(Path("pairs.jsonl"), problems(0)[:110])
    command = ["dpo", "pairs.jsonl", "--model", base, "-o", "out", "--steps", "6", "--eval-every", "6"]
    command += ["--learning-rate", "3"]
    first = run(*command)
    assert first.exit_code == 3, first.output
    result = conclusion("out")
    assert result["learned"] is False
    assert f"error: {result['outcome']}" in first.stderr
    assert "lower --learning-rate (it was 3" in result["outcome"]
    assert "Next:" not in first.output
    assert Path("out/model.safetensors").exists(), "it may be looked at"
    assert f"**{plain(result['outcome'])}**" in Path("out/README.md").read_text()
    again = run(*command)
    assert "Nothing to do" in again.stderr
    assert (again.exit_code, again.stderr.count(f"error: {result['outcome']}")) == (3, 1)


def test_weights_that_did_not_move_are_nothing_learned(base: str) -> None:
    write_preferences(Path("pairs.jsonl"), problems(0)[:40])
    arguments = ("pairs.jsonl", "--model", base, "--steps", "2", "--learning-rate", "1e-30", "--held-out", "0")
    ran = run("dpo", *arguments, "-o", "out")
    assert ran.exit_code == 3
    assert f"error: nothing was learned: the weights are those of {base}." in ran.stderr
    assert Path("out/model.safetensors").read_bytes() == Path(base, "model.safetensors").read_bytes()


def test_without_held_out_rows_nobody_knows_and_it_is_said(base: str) -> None:
    write_preferences(Path("pairs.jsonl"), problems(0)[:40])
    ran = run("dpo", "pairs.jsonl", "--model", base, "--steps", "2", "--held-out", "0", "-o", "out")
    assert ran.exit_code == 0
    assert conclusion("out")["learned"] is None
    assert "Nothing was held out, so nobody knows" in ran.stderr
    assert "Nothing was held out, so nobody knows" in Path("out/README.md").read_text()


def test_few_pairs_and_few_steps_change_and_improve_the_model(base: str) -> None:
    """110 pairs, 6 steps: the first of them had a rate of 0, and its model, which was the start, was kept."""
    write_preferences(Path("pairs.jsonl"), problems(0)[:110], offset=1000)
    result = train(dpo, "pairs.jsonl", DpoOptions(), model=base, output="out", steps=6)
    assert result["learned"] is True
    assert result["end"]["eval_loss"] < result["start"]["eval_loss"]
    assert Path("out/model.safetensors").read_bytes() != Path(base, "model.safetensors").read_bytes()


def test_a_policy_with_no_better_reward_has_learned_nothing(base: str, few: str) -> None:
    Path("none.py").write_text("def same(completions, **_):\n    return [1.0] * len(completions)\n")
    options = PpoOptions(reward=["none.py:same"], max_tokens=4)
    result = train(ppo, few, options, model=base, output="out", steps=1, batch_size=8)
    assert result["learned"] is False
    assert "eval_reward on held-out rows: 1 before, 1 after" in result["outcome"]


# What cannot be measured, or has no effect, is refused.


@pytest.mark.parametrize(
    ("trainer", "options", "says"),
    [
        (SftOptions(), {"best": "exact_match"}, "--best exact_match needs --generate N"),
        (PretrainOptions(), {"best": "rouge_l"}, "--best rouge_l needs --generate N"),
        (DpoOptions(), {"model": "base", "best": "rouge_l"}, "--best rouge_l needs --generate N"),
        (SftOptions(), {"patience": 2, "held_out": 0.0}, "--patience: with --held-out 0 nothing is measured"),
        (SftOptions(), {"best": "loss", "held_out": 0.0}, "--best: with --held-out 0 nothing is measured"),
        (SftOptions(), {"generate": 5, "held_out": 0.0}, "--generate: with --held-out 0 nothing is measured"),
        (PretrainOptions(), {"generate": 5}, "documents have no prompts to answer"),
        (DpoOptions(), {"model": "base", "generate": 5}, "--generate answers the prompts of --gate"),
        (DpoOptions(), {"model": "base", "lora": True, "lora_dropout": 0.1}, "DPO trains without dropout"),
        (SftOptions(), {"model": "base", "lora": True, "train_last": 1}, "--lora and --train-last"),
        (SftOptions(), {"train_layers": "mlp", "train_last": 1}, "--train-last and --train-layers"),
    ],
)
def test_options_that_would_do_nothing_are_refused(trainer: TrainerOptions, options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        trainer.check(TrainOptions(**options))


@pytest.mark.parametrize(
    ("trainer", "options"),
    [
        (SftOptions(), {"best": "exact_match", "generate": 5}),
        (SftOptions(), {"best": "last", "held_out": 0.0}),
        (PpoOptions(reward=["verifier:answer"]), {"model": "base", "best": "exact_match"}),
    ],
)
def test_options_that_act_are_not(trainer: TrainerOptions, options: dict[str, Any]) -> None:
    trainer.check(TrainOptions(**options))


def test_a_metric_without_responses_is_refused_before_the_first_step(base: str) -> None:
    Path("prompts.jsonl").write_text("".join(json.dumps({"prompt": p}) + "\n" for p, _ in problems(0)[:60]))
    options = PpoOptions(reward=["one.py:one"], max_tokens=4)
    Path("one.py").write_text("def one(completions, **_):\n    return [1.0] * len(completions)\n")
    with pytest.raises(InputError, match="--best exact_match: no held-out row has a response"):
        train(ppo, "prompts.jsonl", options, model=base, output="out", steps=2, best="exact_match")
    check_selection(None, {})


# Defaults of toys.


def test_a_model_from_nothing_is_trained_long_enough_and_its_last_state_is_kept() -> None:
    write_sft(Path("few.jsonl"), problems(0)[:30])
    result = train(sft, "few.jsonl", SftOptions(), output="out", batch_size=8)
    assert (result["steps"], result["best_step"]) == (60, None)
    chosen = train(sft, "few.jsonl", SftOptions(), output="chosen", batch_size=8, epochs=1, best="loss")
    assert chosen["steps"] == 4, "what is asked for is done"
    assert chosen["best_step"] is not None
