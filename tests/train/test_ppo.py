"""PPO: it unlearns a bias, its quantities are those of the papers, and answers without a signal are left out."""

import json
import math
from copy import deepcopy
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from datagen.errors import InputError
from datagen.llm.local.generation import generation_end_ids
from datagen.records.record import as_messages
from datagen_train import ppo, sft
from datagen_train.data.encode import Encoder
from datagen_train.errors import CheckFailed, TrainingStopped
from datagen_train.models.actor_critic import (
    ActorCritic,
    Distribution,
    forward_batch,
    load_critic,
    make_batch,
)
from datagen_train.models.heads import value_head
from datagen_train.models.load import without_dropout
from datagen_train.policy_options import PpoOptions
from datagen_train.run.rollout import Rollout, sample, score_tokens
from datagen_train.tools.evaluate import load_trained
from tests.train.runs import Notes, metrics, train
from tests.train.tasks import biased, problems, with_small_numbers, write_sft

REWARDS = """
import math

def right(prompts, completions, response, **_):
    return [float(c.strip() == r) for c, r in zip(completions, response)]

def of_length(prompts, completions, completion_ids, **_):
    return [float(len(ids)) for ids in completion_ids]

def nothing(prompts, completions, **_):
    return [0.0] * len(prompts)

def mostly_none(prompts, completions, **_):
    return [1.0] + [None] * (len(prompts) - 1)

def of_some(prompts, completions, **_):
    return [(1.0, None, math.nan, 2.0)[i % 4] if i < 8 else 1.0 for i in range(len(prompts))]
"""
SMALL: dict[str, Any] = {"steps": 1, "batch_size": 16, "log_every": 1, "held_out": 0.1, "warmup": 0.0}


def ppo_options(function: str = "of_length", **options: Any) -> PpoOptions:
    Path("rewards.py").write_text(REWARDS)
    return PpoOptions(**{"reward": [f"rewards.py:{function}"], "max_tokens": 6, "kl_coef": 0.02, **options})


class RecordingPpo(ppo.Ppo):
    """PPO that records the inputs of its updates."""

    rollouts: list[Rollout]
    learned: list[tuple[Tensor, Tensor]]
    steps: list[dict[str, Any]]

    def update_policy(
        self, model: Any, rollout: Rollout, advantages: Tensor, returns: Tensor, step: int
    ) -> dict[str, float]:
        RecordingPpo.rollouts.append(rollout)
        RecordingPpo.learned.append((advantages, returns))
        return super().update_policy(model, rollout, advantages, returns, step)

    def backward(self, model: Any, rollout: Rollout, advantages: Tensor, *arguments: Any) -> dict[str, float]:
        before = deepcopy(self.model)
        measured = super().backward(model, rollout, advantages, *arguments)
        gradients = {name: p.grad.clone() for name, p in self.model.named_parameters() if p.grad is not None}
        RecordingPpo.steps.append({"model": before, "rows": arguments[1], "metrics": measured, "gradients": gradients})
        return measured


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> type[RecordingPpo]:
    RecordingPpo.rollouts, RecordingPpo.learned, RecordingPpo.steps = [], [], []
    monkeypatch.setattr(ppo, "Ppo", RecordingPpo)
    return RecordingPpo


# It learns


def learn_by_reward(base: str, data: str, seed: int, **options: Any) -> dict[str, Any]:
    settings = ppo_options("right", ppo_epochs=2, minibatches=2, max_tokens=8)
    options = {"learning_rate": 6e-4, "best": "exact_match", **options}
    return train(ppo, data, settings, model=base, output=f"better-{seed}", seed=seed, **options)


def test_ppo_unlearns_a_habit() -> None:
    """The small version: fewer sums, fewer iterations. Sampled, half of the initial answers are right."""
    sums = with_small_numbers(problems(0))
    write_sft(Path("biased.jsonl"), biased(sums, 2))
    write_sft(Path("sums.jsonl"), sums)
    train(sft, "biased.jsonl", output="base", seed=2, steps=160, eval_every=160)
    result = learn_by_reward("base", "sums.jsonl", 2, steps=12, batch_size=96, eval_every=6, generate=100)
    print(f"PPO exact match: {result['start']['eval_exact_match']:.2f} to {result['end']['eval_exact_match']:.2f}")
    assert result["start"]["eval_exact_match"] < 0.2, "it answers by habit"
    assert result["end"]["eval_exact_match"] > 0.9
    lines = [line for line in metrics("better-2") if "reward" in line]
    assert lines[-1]["reward"] > lines[0]["reward"] + 0.1
    assert 0 < lines[-1]["kl_k3"] < 2
    assert result["alarms"] == {}


@pytest.mark.slow
def test_ppo_from_a_biased_start_learns(biased_model: tuple[int, str]) -> None:
    seed, base = biased_model
    write_sft(Path("sums.jsonl"), problems(0)[:3000])
    result = learn_by_reward(base, "sums.jsonl", seed, steps=40, batch_size=128, eval_every=20, generate=150)
    start, end = result["start"]["eval_exact_match"], result["end"]["eval_exact_match"]
    print(f"PPO exact match, seed {seed}: {start:.3f} to {end:.3f}")
    assert end >= 0.85


@pytest.mark.parametrize("coef", [10.0, 1000.0])
def test_a_huge_penalty_leaves_the_policy_at_the_reference(base: str, few: str, coef: float) -> None:
    """Whitened advantages have the same scale for every penalty, so the policy varies by about one step."""
    kl = {}
    for kl_coef in (0.0, coef):
        options: dict[str, Any] = {**SMALL, "steps": 14, "batch_size": 32, "learning_rate": 1e-4}
        train(ppo, few, ppo_options(kl_coef=kl_coef, ppo_epochs=2), model=base, output=f"kl-{kl_coef}", **options)
        kl[kl_coef] = [line["kl_k3"] for line in metrics(f"kl-{kl_coef}") if "kl_k3" in line]
    assert kl[0.0][-1] > 0.3
    assert max(kl[coef]) < 0.1 * kl[0.0][-1]


def test_the_penalty_alone_brings_a_policy_back(base: str, few: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {**SMALL, "steps": 14, "batch_size": 32}
    train(ppo, few, ppo_options(kl_coef=0.0, ppo_epochs=2), model=base, output="left", **options)
    monkeypatch.setattr(ppo, "frozen_reference", lambda _: load_trained(base, "float32").model)
    monkeypatch.setattr(ppo, "REFERENCE_TOLERANCE", math.inf)
    settings = ppo_options("nothing", kl_coef=0.1, ppo_epochs=2, missing_end_penalty=0.0)
    train(ppo, few, settings, model="left", output="back", **options)
    kl = [line["kl_k3"] for line in metrics("back") if "kl_k3" in line]
    assert kl[0] > 0.3
    assert kl[-1] < 0.2 * kl[0]


# What it learns from


def plain_log_probs(model: Any, prompt: list[int], answer: list[int]) -> tuple[Tensor, Tensor]:
    """Return log-probabilities and last states of one answer, alone and unpadded."""
    out = model(input_ids=torch.tensor([prompt + answer]), output_hidden_states=True)
    at = slice(len(prompt) - 1, len(prompt) + len(answer) - 1)
    return out.logits[0, at].log_softmax(-1)[range(len(answer)), answer], out.hidden_states[-1][0, at]


def plain_loss(step: dict[str, Any], rollout: Rollout, white: list[list[float]], gained: list[list[float]]) -> Tensor:
    """Compute the loss of a minibatch again, token by token, in double precision."""
    model = step["model"].double()
    policy, value, tokens = [], [], 0
    for i in step["rows"]:
        answer = rollout.completions[i].ids
        log_probs, states = plain_log_probs(model.policy, rollout.prompts[i], answer)
        values = model.head(states)[:, 0]
        tokens += len(answer)
        for t in range(len(answer)):
            old, before = float(rollout.log_probs[i, t]), float(rollout.values[i, t])
            ratio = (log_probs[t] - old).exp()
            policy.append(-torch.minimum(white[i][t] * ratio, white[i][t] * ratio.clamp(0.8, 1.2)))
            moved = before + (values[t] - before).clamp(-0.2, 0.2)
            value.append(0.5 * torch.maximum((values[t] - gained[i][t]) ** 2, (moved - gained[i][t]) ** 2))
    return (torch.stack(policy).sum() + 0.1 * torch.stack(value).sum()) / tokens


def plain_advantages(rollout: Rollout, coef: float) -> tuple[list[list[float]], list[list[float]]]:
    """Compute rewards, GAE (lambda 0.95), returns and whitening again."""
    advantages, returns = [], []
    for i, completion in enumerate(rollout.completions):
        n = len(completion.ids)
        values = [*(float(rollout.values[i, t]) for t in range(n)), 0.0]
        rewards = [-coef * float(rollout.log_probs[i, t] - rollout.reference[i, t]) for t in range(n)]
        rewards[-1] += n - (0.0 if completion.finish_reason == "stop" else 1.0)
        later, mine = 0.0, [0.0] * n
        for t in reversed(range(n)):
            later = mine[t] = rewards[t] + values[t + 1] - values[t] + 0.95 * later
        advantages.append(mine)
        returns.append([a + v for a, v in zip(mine, values[:-1], strict=True)])
    flat = [advantage for answer in advantages for advantage in answer]
    mean, spread = fmean(flat), pstdev(flat)
    return [[(advantage - mean) / spread for advantage in answer] for answer in advantages], returns


def test_losses_and_gradients_are_those_of_a_plain_reference(
    base: str, few: str, recording: type[RecordingPpo]
) -> None:
    """In one process, from padded batches in parts, over two iterations: the second one has KL, and values."""
    settings = ppo_options(ppo_epochs=2, minibatches=2, kl_coef=0.3)
    train(ppo, few, settings, model=base, output="out", **{**SMALL, "steps": 2, "accumulate": 4})
    assert len(recording.steps) == 8
    lengths = {len(completion.ids) for completion in recording.rollouts[1].completions}
    assert len(lengths) > 2, "padding there must be"
    for iteration, rollout in enumerate(recording.rollouts):
        white, gained = plain_advantages(rollout, 0.3)
        for i, completion in enumerate(rollout.completions):
            learned = [side[i, : len(completion.ids)].tolist() for side in recording.learned[iteration]]
            assert learned[0] == pytest.approx(white[i], abs=1e-4)
            assert learned[1] == pytest.approx(gained[i], abs=1e-4)
        for step in recording.steps[4 * iteration : 4 * iteration + 4]:
            loss = plain_loss(step, rollout, white, gained)
            loss.backward()
            assert step["metrics"]["loss"] == pytest.approx(float(loss.detach()), abs=2e-5)
            for name, parameter in step["model"].named_parameters():
                assert torch.allclose(step["gradients"][name].double(), parameter.grad, atol=2e-5, rtol=1e-3), name
    assert recording.steps[-1]["metrics"]["approx_kl"] > 0, "the ratio has left 1"
    assert recording.rollouts[1].values.any()


@pytest.mark.parametrize("absolute", [False, True])
def test_what_is_known_of_an_answer_does_not_depend_on_its_batch(base: str, absolute: bool) -> None:
    """Also with absolute positions, which left padding would shift."""
    loaded = load_trained(base, "float32")
    if absolute:
        size = GPT2Config(vocab_size=len(loaded.tokenizer), n_embd=32, n_layer=2, n_head=2, initializer_range=0.3)
        loaded.model = GPT2LMHeadModel(size).eval()
        loaded.model.generation_config.eos_token_id = loaded.tokenizer.eos_token_id
    encoder = Encoder(loaded.tokenizer, generation_end_ids(loaded.model, loaded.tokenizer), 256)
    prompts = [encoder.prompt(as_messages(text)) for text in ("Hi?", "How many keys has Ada, who has 3?", "And 2?")]
    head = value_head(loaded.model.config.hidden_size)
    torch.nn.init.normal_(head.weight)
    model = ActorCritic(loaded.model, None, head, Distribution(temperature=0.7))
    completions = sample(model.policy, loaded.tokenizer, model.distribution, prompts, [1, 2, 3], 6)
    together = score_tokens(model, loaded.model, [], prompts, completions)
    for i in range(3):
        alone = score_tokens(model, loaded.model, [], prompts[i : i + 1], completions[i : i + 1])
        n = len(completions[i].ids)
        for name in ("log_probs", "reference", "values", "entropy"):
            one, several = getattr(alone, name)[0, :n], getattr(together, name)[i, :n]
            assert torch.allclose(one, several, atol=1e-4), name
        assert together.mask[i].sum() == n
        again = sample(model.policy, loaded.tokenizer, model.distribution, prompts[i : i + 1], [i + 1], 6)
        assert again == completions[i : i + 1], "nor does what is said"


def test_the_ratio_begins_at_1_at_any_temperature_and_with_tokens_suppressed(base: str, few: str) -> None:
    settings = ppo_options(temperature=0.6, suppress=["7", "a"], stop_token=["."])
    notes = Notes()
    train(ppo, few, settings, notes, model=with_dropout(base), output="out", **{**SMALL, "steps": 3})
    lines = [line for line in metrics("out") if "ratio_first" in line]
    assert len(lines) == 3
    assert all(line["ratio_first"] == pytest.approx(1, abs=1e-4) for line in lines)
    assert lines[0]["kl"] == pytest.approx(0, abs=1e-4), "the reference is the start"
    answers = [json.loads(line)["response"] for line in Path("out/run/samples.jsonl").read_text().splitlines()]
    assert answers
    assert not any("7" in text for text in answers)


def with_dropout(base: str) -> str:
    from transformers import LlamaForCausalLM

    LlamaForCausalLM.from_pretrained(base, attention_dropout=0.5).save_pretrained("dropout")
    load_trained(base, "float32").tokenizer.save_pretrained("dropout")
    return "dropout"


def test_a_policy_that_learns_otherwise_than_it_answers_is_caught(
    base: str, few: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dropout left on, the first KL to the reference and the first ratio are wrong."""
    monkeypatch.setattr("datagen_train.ppo.without_dropout", lambda model: model)
    with pytest.raises((CheckFailed, TrainingStopped), match=r"dropout"):
        train(ppo, few, ppo_options(), model=with_dropout(base), output="out", **SMALL)


def test_the_score_stands_at_the_last_valid_token_and_a_cut_answer_pays(
    base: str, few: str, recording: type[RecordingPpo]
) -> None:
    """With a discount of 1/2 and a zero critic, the return is the score halved once for each token that follows."""
    settings = ppo_options(gamma=0.5, lam=1.0, stop_token=[".", "s"], missing_end_penalty=2.5)
    train(ppo, few, settings, model=base, output="out", **SMALL)
    rollout, (_, returns) = recording.rollouts[0], recording.learned[0]
    assert 0 < sum(rollout.ended) < len(rollout.ended), "some ended, and some were cut"
    for i, completion in enumerate(rollout.completions):
        n = len(completion.ids)
        score = n - (0.0 if completion.finish_reason == "stop" else 2.5)
        assert float(rollout.scores[i]) == score
        assert returns[i, :n].tolist() == pytest.approx([score * 0.5 ** (n - 1 - t) for t in range(n)], abs=1e-4)
        assert not returns[i, n:].any()


def test_the_score_of_a_cut_answer_can_be_replaced_and_scores_are_shaped_in_order(
    base: str, few: str, recording: type[RecordingPpo]
) -> None:
    settings = ppo_options(missing_end_score=-1.0, reward_baseline=2.0, scale_reward=True, clip_reward=0.5)
    train(ppo, few, settings, model=base, output="out", **SMALL)
    rollout = recording.rollouts[0]
    raw = [len(completion.ids) - 2.0 for completion in rollout.completions]
    for i, completion in enumerate(rollout.completions):
        due = min(max(raw[i] / pstdev(raw), -0.5), 0.5) if completion.finish_reason == "stop" else -1.0
        assert float(rollout.scores[i]) == pytest.approx(due, abs=1e-5)


def test_answers_without_a_score_are_left_out_and_counted(base: str, few: str, recording: type[RecordingPpo]) -> None:
    train(ppo, few, ppo_options("of_some"), model=base, output="out", **SMALL)
    (line,) = [line for line in metrics("out") if "unscored" in line]
    assert line["unscored"] == 4
    assert line["reward"] == pytest.approx(fmean([1, 2, 1, 2, *[1] * 8]))
    rollout, (advantages, _) = recording.rollouts[0], recording.learned[0]
    for i in (1, 2, 5, 6):
        assert not rollout.mask[i].any()
        assert not advantages[i].any()
    inside = advantages[rollout.mask]
    assert len(inside) == sum(len(rollout.completions[i].ids) for i in range(16) if i not in (1, 2, 5, 6))
    assert float(inside.mean()) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(("reward", "policy"), [("mostly_none", "drop"), ("of_some", "fail")])
def test_too_many_answers_without_a_score_end_the_run(base: str, few: str, reward: str, policy: str) -> None:
    with pytest.raises(TrainingStopped, match=r"answers got no score"):
        train(ppo, few, ppo_options(reward, unscored=policy), model=base, output="out", **SMALL)


# What is around it


def test_adapters_are_trained_and_the_model_without_them_is_the_reference(
    base: str, few: str, recording: type[RecordingPpo]
) -> None:
    options: dict[str, Any] = {**SMALL, "steps": 3, "lora": True, "learning_rate": 1e-2}
    train(ppo, few, ppo_options(), model=base, output="out", **options)
    lines = [line for line in metrics("out") if "kl" in line]
    assert lines[0]["kl"] == pytest.approx(0, abs=1e-4)
    assert lines[-1]["kl_k3"] > 0
    start = load_trained(base, "float32").model
    rollout = recording.rollouts[-1]
    with torch.no_grad():
        due, _ = plain_log_probs(start, rollout.prompts[0], rollout.completions[0].ids)
    assert rollout.reference[0, : len(due)].tolist() == pytest.approx(due.tolist(), abs=1e-4)
    assert Path("out/adapter_model.safetensors").exists()


def test_a_reward_model_with_the_policys_tokenizer_becomes_its_critic(base: str, few: str) -> None:
    """Its value before the end token is the reward model's score of the answer, in the same units."""
    from datagen_train import reward as reward_model
    from datagen_train.rewards.reward_model import load_reward
    from tests.train.tasks import write_preferences

    write_preferences(Path("prefs.jsonl"), problems(1)[:60])
    train(reward_model, "prefs.jsonl", model=base, output="rm", steps=4, batch_size=8)
    notes = Notes()
    settings = PpoOptions(reward=["rm"], max_tokens=6)
    train(ppo, few, settings, notes, model=base, output="out", **SMALL)
    assert "critic: rm" in notes.messages
    judge = load_reward("rm")
    trunk, head = load_critic("rm", judge.tokenizer.get_vocab())
    without_dropout(trunk)
    ids = judge.encode(1, "How many?", "12").tolist()
    with torch.no_grad():
        batch = make_batch([ids[:-1]], [ids[-1:]], torch.device("cpu"))
        value = float(head(forward_batch(trunk, batch).last_hidden_state[0, -1]))
    assert value == pytest.approx(judge.score(["How many?"], ["12"])[0], abs=1e-4)
    again = PpoOptions(reward=["rm"], max_tokens=6, critic="out/value")
    notes = Notes()
    train(ppo, few, again, notes, model="out", output="again", **SMALL)
    assert "critic: out/value" in notes.messages


def test_the_policy_that_is_saved_is_the_one_that_was_trained(
    base: str, few: str, recording: type[RecordingPpo]
) -> None:
    train(ppo, few, ppo_options(), model=base, output="out", **{**SMALL, "held_out": 0.0, "learning_rate": 1e-3})
    saved = load_trained("out", "float32").model.state_dict()
    start = load_trained(base, "float32").model.state_dict()
    last = recording.steps[-1]["model"].policy.state_dict()
    moved = [name for name in saved if not torch.equal(saved[name], start[name])]
    assert moved
    assert max(float((saved[name] - last[name]).abs().max()) for name in moved) <= 1.1e-3, "one step from the last seen"


def test_learning_ends_early_once_the_policy_has_moved_far(base: str, few: str) -> None:
    options = {**SMALL, "learning_rate": 1e-2}
    train(ppo, few, ppo_options(target_kl=0.001, ppo_epochs=6), model=base, output="out", **options)
    (line,) = [line for line in metrics("out") if "updates" in line]
    assert line["stopped_early"] == 1
    assert 1 <= line["updates"] < 6


def test_other_rows_are_learned_beside(base: str, few: str) -> None:
    train(ppo, few, ppo_options(ptx_data=few, ptx_coef=2.0), model=base, output="out", **{**SMALL, "steps": 6})
    losses = [line["ptx_loss"] for line in metrics("out") if "ptx_loss" in line]
    assert losses[0] > losses[-1] > 0
    assert all(math.isfinite(line["loss"]) for line in metrics("out") if "loss" in line)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"reward": []}, "name what scores the answers"),
        ({"unscored": "zero"}, "expected one of drop, fail"),
        ({"max_tokens": 5000}, "leaves no room for a prompt"),
        ({"suppress": ["<|im_end|>"]}, "ends an answer"),
        ({"suppress": ["no such token"]}, "no token of the model's vocabulary"),
        ({"critic": "nowhere"}, "nowhere"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(base: str, few: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says) as refused:
        train(ppo, few, ppo_options(**options), model=base, output="out", **SMALL)
    assert "\n" not in str(refused.value)


def test_ppo_from_nothing_is_refused(few: str) -> None:
    with pytest.raises(InputError, match="starts from a trained model"):
        train(ppo, few, ppo_options(), model="tiny", output="out", **SMALL)
