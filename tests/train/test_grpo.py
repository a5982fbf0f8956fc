"""GRPO and RLOO: they unlearn a bias, keep groups complete, use PPO's rewards, and report groups without a signal."""

import json
import math
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch

from datagen.errors import InputError
from datagen_train import grpo
from datagen_train.errors import TrainingStopped
from datagen_train.policy_options import GrpoOptions
from datagen_train.tools.evaluate import load_trained
from tests.train.runs import Notes, metrics, train
from tests.train.tasks import problems, write_sft

REWARDS = """
import math

def right(prompts, completions, response, **_):
    return [float(c.strip() == r) for c, r in zip(completions, response)]

def of_length(prompts, completions, completion_ids, **_):
    return [float(len(ids)) + (sum(ids) % 7) / 7 for ids in completion_ids]

def alike(prompts, completions, **_):
    return [1.0] * len(prompts)

def mostly_none(prompts, completions, **_):
    return [1.0] + [None] * (len(prompts) - 1)

def of_some(prompts, completions, **_):
    return [(1.0, None, math.nan, 2.0)[i % 4] if i < 4 else i % 3 for i in range(len(prompts))]

def asked_for(prompts, completions, completion_ids, record, log_metric, **_):
    log_metric("prompts", len(set(prompts)))
    log_metric("in_order", float(prompts == [row.prompt for row in record] == sum(([p] * 4 for p in prompts[::4]), [])))
    return [float(i % 4) for i in range(len(prompts))]
"""
RUN: dict[str, Any] = {"steps": 2, "batch_size": 4, "log_every": 1, "held_out": 0.1, "warmup": 0.0}
BOTH = pytest.mark.parametrize("algorithm", ["grpo", "rloo"])


def grpo_options(function: str = "of_length", **options: Any) -> GrpoOptions:
    Path("rewards.py").write_text(REWARDS)
    return GrpoOptions(**{"reward": [f"rewards.py:{function}"], "max_tokens": 6, "group_size": 4, **options})


def weights(folder: str) -> dict[str, torch.Tensor]:
    return dict(load_trained(folder, "float32").model.state_dict())


# It learns


@pytest.mark.slow
@BOTH
def test_a_habit_is_unlearned(habit: Path, algorithm: str) -> None:
    settings = grpo_options("right", algorithm=algorithm, max_tokens=8, group_size=8, kl_coef=0.02)
    options: dict[str, Any] = {"steps": 16, "batch_size": 12, "eval_every": 8, "generate": 100, "seed": 2}
    base, data = str(habit / "base"), habit / "sums.jsonl"
    result = train(grpo, data, settings, model=base, output="better", best="exact_match", learning_rate=4e-4, **options)
    assert result["start"]["eval_exact_match"] < 0.2, "it answers by habit"
    assert result["end"]["eval_exact_match"] > 0.7
    lines = [line for line in metrics("better") if "reward" in line]
    assert lines[-1]["reward"] > lines[0]["reward"] + 0.15
    assert {"no_signal", "kl_token", "entropy", "clip_fraction", "response_length", "ended"} <= lines[-1].keys()
    assert result["alarms"] == {}


@pytest.mark.slow
@BOTH
def test_a_biased_start_learns(biased_model: tuple[int, str], algorithm: str) -> None:
    seed, base = biased_model
    write_sft(Path("sums.jsonl"), problems(0)[:3000])
    settings = grpo_options("right", algorithm=algorithm, max_tokens=8, group_size=8, kl_coef=0.02)
    result = train(
        grpo, "sums.jsonl", settings, model=base, output="better", seed=seed, steps=80, batch_size=16, eval_every=20,
        generate=150, best="exact_match",
    )  # fmt: skip
    start, end = result["start"]["eval_exact_match"], result["end"]["eval_exact_match"]
    print(f"{algorithm} exact match, seed {seed}: {start:.3f} to {end:.3f}")
    assert end >= 0.85


# What it learns from


@BOTH
def test_a_reward_is_asked_about_whole_groups_with_the_rows_they_belong_to(base: str, few: str, algorithm: str) -> None:
    train(grpo, few, grpo_options("asked_for", algorithm=algorithm), model=base, output="out", **RUN)
    lines = [line for line in metrics("out") if "loss" in line]
    assert [(line["prompts"], line["in_order"], line["reward"]) for line in lines] == [(4, 1, 1.5)] * 2
    sample = json.loads(Path("out/run/samples.jsonl").read_text().splitlines()[0])
    assert sample["prompt"] in {prompt for prompt, _ in problems(0)[:200]}


@BOTH
def test_groups_that_are_all_alike_teach_nothing_and_it_is_reported(base: str, few: str, algorithm: str) -> None:
    notes, options = Notes(), {**RUN, "steps": 6}
    result = train(
        grpo, few, grpo_options("alike", algorithm=algorithm, kl_coef=0.0), notes, model=base, output="out", **options
    )
    assert [line["no_signal"] for line in metrics("out") if "loss" in line] == [1.0] * 6
    assert "no signal" in result["alarms"]
    assert sum("ALARM no signal, step 5" in text for text in notes.messages) == 1
    before, after = weights(base), weights("out")
    assert all(torch.equal(before[name], after[name]) for name in before)


@BOTH
def test_no_signal_is_seen_beneath_the_penalty(base: str, few: str, algorithm: str) -> None:
    """RLOO's rewards contain the KL penalty, which differs between answers."""
    options = {**RUN, "learning_rate": 1e-2}
    train(grpo, few, grpo_options("alike", algorithm=algorithm, kl_coef=0.5), model=base, output="out", **options)
    assert [line["no_signal"] for line in metrics("out") if "loss" in line] == [1.0] * 2


@BOTH
def test_answers_without_a_score_are_left_out_and_counted(
    base: str, few: str, algorithm: str, capfd: pytest.CaptureFixture[str]
) -> None:
    train(grpo, few, grpo_options("of_some", algorithm=algorithm), model=base, output="out", **RUN)
    lines = [line for line in metrics("out") if "loss" in line]
    assert [line["unscored"] for line in lines] == [2.0, 2.0]
    scores = [1.0, 2.0, *(i % 3 for i in range(4, 16))]
    assert lines[0]["reward"] == pytest.approx(fmean(scores))
    assert all(math.isfinite(line["loss"]) for line in lines)
    printed = capfd.readouterr()
    assert "reward functions returned None" not in printed.out + printed.err


@pytest.mark.parametrize(("reward", "policy"), [("mostly_none", "drop"), ("of_some", "fail")])
def test_too_many_answers_without_a_score_end_the_run(base: str, few: str, reward: str, policy: str) -> None:
    with pytest.raises(TrainingStopped, match="of 16 answers got no score"):
        train(grpo, few, grpo_options(reward, unscored=policy), model=base, output="out", **{**RUN, "held_out": 0.0})


@BOTH
def test_rewards_are_added_up_with_their_weights(base: str, few: str, algorithm: str) -> None:
    settings = grpo_options(algorithm=algorithm, reward=["0.5*rewards.py:alike", "-2*rewards.py:asked_for"])
    train(grpo, few, settings, model=base, output="out", **RUN)
    line = next(line for line in metrics("out") if "loss" in line)
    assert line["reward"] == pytest.approx(0.5 - 2 * 1.5)
    assert line["reward/rewards.py:asked_for"] == 1.5


# The reference


@BOTH
def test_the_reference_is_the_start_even_where_its_folder_has_changed(
    base: str, few: str, algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRL would load the reference again by its name."""
    set_reference, references = grpo.GroupTrainer.set_reference, []

    def keep(self: Any, reference: Any, coef: float) -> None:
        references.append((reference, self.model))
        set_reference(self, reference, coef)

    monkeypatch.setattr(grpo.GroupTrainer, "set_reference", keep)
    train(
        grpo,
        few,
        grpo_options(algorithm=algorithm, kl_coef=0.1),
        model=base,
        output="out",
        **{**RUN, "learning_rate": 3e-3},
    )
    lines = [line for line in metrics("out") if "loss" in line]
    assert abs(lines[0]["kl_token"]) < 1e-5, "before the first step it is the policy"
    assert abs(lines[1]["kl_token"]) > 1e-4
    reference, policy = references[0]
    assert all(torch.equal(tensor, weights(base)[name]) for name, tensor in reference.state_dict().items())
    assert not any(p.requires_grad for p in reference.parameters())
    assert any(not torch.equal(tensor, weights(base)[name]) for name, tensor in policy.state_dict().items())


@BOTH
def test_without_a_penalty_there_is_no_reference(base: str, few: str, algorithm: str) -> None:
    train(grpo, few, grpo_options(algorithm=algorithm, kl_coef=0.0), model=base, output="out", **RUN)
    assert not any("kl_token" in line for line in metrics("out"))


@BOTH
def test_adapters_are_trained_and_saved_alone(base: str, few: str, algorithm: str) -> None:
    settings, options = grpo_options(algorithm=algorithm), {**RUN, "learning_rate": 1e-2, "lora": True, "lora_rank": 4}
    result = train(grpo, few, settings, model=base, output="out", **options)
    assert 0 < result["parameters"]["trained"] < result["parameters"]["all"]
    lines = [line for line in metrics("out") if "loss" in line]
    assert abs(lines[0]["kl_token"]) < 1e-5
    assert abs(lines[1]["kl_token"]) > 1e-4
    assert not Path("out/ref").exists(), "the reference is the model without its adapters"
    assert Path("out/adapter_model.safetensors").exists()


# The loop


@BOTH
@pytest.mark.parametrize("options", [{}, {"lora": True}, {"updates": 2, "accumulate": 2}])
def test_an_interrupted_run_ends_as_an_undisturbed_one(
    base: str, few: str, monkeypatch: pytest.MonkeyPatch, algorithm: str, options: dict[str, Any]
) -> None:
    settings = grpo_options(algorithm=algorithm, updates=options.get("updates", 1))
    shared = {name: value for name, value in options.items() if name != "updates"}
    run = {**RUN, **shared, "steps": 6, "log_every": 3, "eval_every": 2, "save_every": 2, "learning_rate": 1e-3}
    undisturbed = train(grpo, few, settings, model=base, output="whole", **run)
    with monkeypatch.context() as broken:
        score = grpo.GroupTrainer.score

        def falls_over(self: Any, **arguments: Any) -> Any:
            if self.state.global_step == 4:
                raise ConnectionError("the lights went out")
            return score(self, **arguments)

        broken.setattr(grpo.GroupTrainer, "score", falls_over)
        with pytest.raises(Exception, match="the lights went out"):
            train(grpo, few, settings, model=base, output="again", **run)
    notes = Notes()
    again = train(grpo, few, settings, notes, model=base, output="again", **run)
    assert "Going on from step 4" in notes.messages
    assert metrics("again") == metrics("whole")
    assert again == undisturbed
    weights = "adapter_model.safetensors" if "lora" in options else "model.safetensors"
    for name in (weights, "run/samples.jsonl"):
        assert Path("again", name).read_bytes() == Path("whole", name).read_bytes()


def test_a_run_that_goes_on_between_two_updates_samples_when_it_would_have(
    base: str, few: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers are used for two steps: the second half of a pair gets new ones, the next pair comes in time."""
    settings = grpo_options(updates=2)
    run = {**RUN, "steps": 6, "log_every": 1, "eval_every": 1, "held_out": 0.1, "generate": 1}
    with monkeypatch.context() as broken:
        step = grpo.GroupTrainer.training_step

        def falls_over(self: Any, *arguments: Any, **keywords: Any) -> Any:
            if self.state.global_step == 3:
                raise ConnectionError("the lights went out")
            return step(self, *arguments, **keywords)

        broken.setattr(grpo.GroupTrainer, "training_step", falls_over)
        with pytest.raises(Exception, match="the lights went out"):
            train(grpo, few, settings, model=base, output="out", **run)
    train(grpo, few, settings, model=base, output="out", **run)
    steps = [json.loads(line)["step"] for line in Path("out/run/samples.jsonl").read_text().splitlines()]
    assert sorted(set(steps)) == [1, 3, 4, 5]


@BOTH
def test_ratios_are_clipped_where_answers_are_used_more_than_once(base: str, few: str, algorithm: str) -> None:
    settings = grpo_options(algorithm=algorithm, updates=3, clip=0.01, kl_coef=0.0)
    train(grpo, few, settings, model=base, output="out", **{**RUN, "steps": 3, "learning_rate": 1e-2})
    clipped = [line["clip_fraction"] for line in metrics("out") if "loss" in line]
    assert clipped[0] == 0
    assert max(clipped[1:]) > 0.1


@pytest.mark.parametrize(
    ("settings", "options", "says"),
    [
        ({"reward": []}, {}, "--reward: name what scores"),
        ({"algorithm": "ppo"}, {}, "--algorithm ppo: expected one of grpo, rloo"),
        ({"loss": "sum"}, {}, "--loss sum: expected one of dapo"),
        ({"algorithm": "rloo", "loss": "grpo"}, {}, "are GRPO's"),
        ({"scale_rewards": "all"}, {}, "--scale-rewards all: expected one of group"),
        ({"unscored": "zero"}, {}, "--unscored zero"),
        ({}, {"batch_size": 300}, "--batch-size 300: there are only"),
        ({}, {"batch_size": 5, "accumulate": 2}, "--batch-size 5 is no multiple of --accumulate 2"),
        ({}, {"lora": True, "lora_dropout": 0.1}, "--lora-dropout"),
        ({"max_tokens": 2000}, {}, "leaves no room for a prompt"),
        ({}, {"model": "tiny"}, "GRPO starts from a trained model"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(
    base: str, few: str, settings: dict[str, Any], options: dict[str, Any], says: str
) -> None:
    with pytest.raises(InputError, match=says) as refused:
        train(grpo, few, grpo_options(**settings), **{**RUN, "model": base, "output": "out", **options})
    assert "\n" not in str(refused.value)
