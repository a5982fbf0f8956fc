"""GRPO's relatives: each loss on the tensors of a real run, against a plain formula and against the others."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from datagen.errors import InputError
from datagen_train import grpo
from datagen_train.policy_options import GrpoOptions
from tests.train.runs import metrics, train

REWARDS = """
def of_length(prompts, completions, completion_ids, **_):
    return [float(len(ids)) + (sum(ids) % 7) / 7 for ids in completion_ids]

def right(prompts, completions, response, **_):
    return [float(c.strip() == r) for c, r in zip(completions, response)]
"""
LENGTH = 6
"""Longest answer in tokens."""


def settings(**options: Any) -> GrpoOptions:
    return GrpoOptions(reward=["rewards.py:of_length"], max_tokens=LENGTH, group_size=4, kl_coef=0.0, **options)


class Batch:
    """The model and the answers of one optimiser step."""

    def __init__(self, trainer: Any, inputs: dict[str, Any]) -> None:
        self.trainer, self.inputs = trainer, inputs

    def gradient(self, **options: Any) -> Tensor:
        """Return the gradient of the trainer's loss with other options."""
        chosen = settings(**options)
        bounds, loss = chosen.ratio_arguments(), chosen.loss_arguments()
        self.trainer.epsilon_low, self.trainer.epsilon_high = bounds["epsilon"], bounds["epsilon_high"]
        self.trainer.loss_type = loss["loss_type"]
        self.trainer.importance_sampling_level = loss["importance_sampling_level"]
        return self.flat(compute_loss(self.trainer, self.trainer.model, self.inputs))

    def plain(self, objective: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> Tensor:
        """Return the gradient of minus an objective of (log-probs, ratios, advantages, mask), a number per batch."""
        ids = torch.cat([self.inputs["prompt_ids"], self.inputs["completion_ids"]], 1)
        mask = torch.cat([self.inputs["prompt_mask"], self.inputs["completion_mask"]], 1)
        width = self.inputs["completion_ids"].shape[1]
        log_probs, _, _ = self.trainer._get_per_token_logps_and_entropies(self.trainer.model, ids, mask, width)
        old = self.inputs.get("old_per_token_logps")
        ratios = (log_probs - (log_probs.detach() if old is None else old)).exp()
        return self.flat(
            -objective(log_probs, ratios, self.inputs["advantages"][:, None], self.inputs["completion_mask"])
        )

    def cut(self, width: int) -> "Batch":
        """Keep the first tokens of each answer."""
        names = ("completion_ids", "completion_mask", "old_per_token_logps")
        return Batch(self.trainer, self.inputs | {name: self.inputs[name][:, :width] for name in names})

    def flat(self, loss: Tensor) -> Tensor:
        parameters = [p for p in self.trainer.model.parameters() if p.requires_grad]
        return torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, parameters)])


compute_loss = grpo.Grpo._compute_loss


def same(one: Tensor, other: Tensor) -> bool:
    assert other.abs().max() > 1e-4, "there is a gradient"
    return torch.allclose(one, other, atol=1e-6, rtol=1e-4)


def test_losses_are_those_of_the_papers(base: str, few: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the first step all ratios are 1; in the second one, on the same answers, they are not."""
    Path("rewards.py").write_text(REWARDS)
    seen: list[int] = []

    def compare(self: Any, model: Any, inputs: dict[str, Any]) -> Tensor:
        names = ("loss_type", "importance_sampling_level", "epsilon_low", "epsilon_high")
        before = {name: getattr(self, name) for name in names}
        assert tuple(before.values()) == ("grpo", "sequence", 0.1, 0.2), "the options reach the trainer"
        (compare_at_ratio_1, compare_elsewhere)[len(seen)](Batch(self, inputs))
        seen.append(1)
        vars(self).update(before)
        return compute_loss(self, model, inputs)

    monkeypatch.setattr(grpo.Grpo, "_compute_loss", compare)
    options: dict[str, Any] = {"steps": 2, "batch_size": 4, "log_every": 1, "held_out": 0.0, "warmup": 0.0}
    chosen = settings(updates=2, importance="sequence", clip=0.1, clip_high=0.2)
    train(grpo, few, chosen, model=base, output="out", learning_rate=1e-2, **options)
    assert len(seen) == 2


def compare_at_ratio_1(batch: Batch) -> None:
    token = batch.gradient(loss="dapo")
    assert same(batch.gradient(loss="dapo", clip_high=0.5), token), "no ratio is clipped"
    assert same(batch.gradient(loss="cispo"), token)
    assert same(batch.gradient(loss="vespo"), token)
    assert not same(batch.gradient(loss="grpo"), token), "which is not a mean over tokens"
    assert same(batch.gradient(loss="sapo"), batch.gradient(loss="grpo"))
    assert same(batch.gradient(importance="sequence"), batch.gradient(loss="grpo"))
    assert same(batch.gradient(loss="luspo", importance="sequence"), LENGTH * batch.gradient(loss="dr_grpo"))


def compare_elsewhere(batch: Batch) -> None:
    def clipped(low: float, high: float) -> Tensor:
        def objective(log_probs: Tensor, rho: Tensor, a: Tensor, mask: Tensor) -> Tensor:
            return (torch.minimum(rho * a, rho.clamp(low, high) * a) * mask).sum() / mask.sum()

        return batch.plain(objective)

    def cispo(largest: float) -> Tensor:
        def objective(log_probs: Tensor, rho: Tensor, a: Tensor, mask: Tensor) -> Tensor:
            return (rho.detach().clamp(max=largest) * a * log_probs * mask).sum() / mask.sum()

        return batch.plain(objective)

    def gspo(low: float, high: float, power: int) -> Tensor:
        def objective(log_probs: Tensor, rho: Tensor, a: Tensor, mask: Tensor) -> Tensor:
            lengths = mask.sum(1, keepdim=True)
            ratio = ((rho.log() * mask).sum(1, keepdim=True) / lengths).exp()
            return (torch.minimum(ratio * a, ratio.clamp(low, high) * a) * lengths**power).mean()

        return batch.plain(objective)

    # Clip-higher lets tokens with an advantage grow further; the lower bound stays.
    assert same(batch.gradient(clip=0.01), clipped(0.99, 1.01))
    assert same(batch.gradient(clip=0.01, clip_high=0.3), clipped(0.99, 1.3))
    assert not same(batch.gradient(clip=0.01, clip_high=0.3), batch.gradient(clip=0.01))
    assert same(batch.gradient(), batch.gradient(clip=0.2, clip_high=0.2)), "without it the range has two equal sides"

    # CISPO keeps the gradient of every token, and bounds its weight.
    assert same(batch.gradient(loss="cispo", clip_high=1.0), cispo(1.0))
    assert same(batch.gradient(loss="cispo"), cispo(5.0))
    assert not same(batch.gradient(loss="cispo", clip_high=1.0), batch.gradient(loss="cispo"))

    # GSPO has one ratio for an answer; of an answer of one token it is that of the token.
    assert same(batch.gradient(importance="sequence", clip=0.05), gspo(0.95, 1.05, 0))
    assert same(batch.gradient(importance="sequence"), gspo(1 - 3e-4, 1 + 4e-4, 0))
    assert same(batch.gradient(importance="sequence", loss="luspo", clip=0.05), gspo(0.95, 1.05, 1))
    assert not same(batch.gradient(importance="sequence", clip=0.2), batch.gradient(loss="grpo", clip=0.2))
    short = batch.cut(1)
    assert same(short.gradient(importance="sequence", clip=0.1), short.gradient(loss="grpo", clip=0.1))

    # The smooth ones differ from what is clipped.
    assert not same(batch.gradient(loss="sapo"), batch.gradient(loss="grpo", clip=100.0))
    assert not same(batch.gradient(loss="vespo"), cispo(100.0))


@pytest.mark.parametrize(
    ("options", "bounds"),
    [
        ({}, (0.2, 0.2)),
        ({"clip": 0.1}, (0.1, 0.1)),
        ({"clip_high": 0.28}, (0.2, 0.28)),
        ({"importance": "sequence"}, (3e-4, 4e-4)),
        ({"importance": "sequence", "clip": 0.1}, (0.1, 0.1)),
        ({"loss": "cispo"}, (0.2, 5.0)),
        ({"loss": "cispo", "clip_high": 2.0}, (0.2, 2.0)),
        ({"clip": 0.0, "clip_high": 0.0}, (0.0, 0.0)),
        ({"algorithm": "rloo", "clip_high": 0.28}, (0.2, 0.28)),
    ],
)
def test_bounds_of_the_ratio(options: dict[str, Any], bounds: tuple[float, float]) -> None:
    assert tuple(settings(**options).ratio_arguments().values()) == bounds


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"loss": "cispo", "clip": 0.2}, "--clip: --loss cispo bounds the ratio above alone"),
        ({"loss": "cispo", "clip_high": 0.28}, "--clip-high 0.28: is the largest ratio of --loss cispo"),
        ({"loss": "sapo", "clip": 0.2, "clip_high": 0.3}, "--clip and --clip-high: --loss sapo does not clip"),
        ({"loss": "vespo", "clip_high": 0.3}, "--clip-high: --loss vespo does not clip"),
        ({"loss": "dapo", "importance": "sequence"}, "--importance sequence goes with --loss grpo or luspo, not dapo"),
        ({"loss": "cispo", "importance": "sequence"}, "--importance sequence goes with"),
        ({"loss": "luspo"}, "--loss luspo needs --importance sequence"),
        ({"algorithm": "rloo", "importance": "sequence"}, "are GRPO's"),
        ({"importance": "answer"}, "--importance answer: expected one of token, sequence"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(few: str, options: dict[str, Any], says: str) -> None:
    Path("rewards.py").write_text(REWARDS)
    with pytest.raises(InputError, match=says) as refused:
        train(grpo, few, settings(**options), model="nowhere", output="out", steps=1)
    assert "\n" not in str(refused.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{"loss": "cispo"}, {"importance": "sequence", "clip": 0.1, "clip_high": 0.2}],
    ids=["cispo", "gspo with clip-higher"],
)
def test_a_habit_is_unlearned_with_two_updates_per_batch(habit: Path, options: dict[str, Any]) -> None:
    Path("rewards.py").write_text(REWARDS)
    chosen = GrpoOptions(reward=["rewards.py:right"], max_tokens=8, kl_coef=0.02, updates=2, **options)
    result = train(
        grpo, habit / "sums.jsonl", chosen, model=str(habit / "base"), output="better", best="exact_match",
        learning_rate=4e-4, steps=24, batch_size=12, eval_every=12, generate=100, seed=2,
    )  # fmt: skip
    assert result["start"]["eval_exact_match"] < 0.2, "it answers by habit"
    assert result["end"]["eval_exact_match"] > 0.7
    assert all("clip_fraction" in line for line in metrics("better") if "reward" in line)
