"""What an iteration of PPO is watched by: means over the answers' tokens alone, and answers to read."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from datagen_train.ppo_loss import correlation, explained_variance, k1, k3, masked_mean
from datagen_train.rewards.specs import Scored
from datagen_train.run.rollout import Rollout


def describe(rollout: Rollout, scored: Scored, rewards: Tensor, returns: Tensor) -> dict[str, float]:
    """Measure a rollout. Nothing outside the answers' tokens is counted."""
    mask, answers = rollout.mask, rollout.mask.any(1)
    kl = torch.where(mask, k1(rollout.log_probs, rollout.reference), 0.0).sum(1)[answers]
    kl_k3 = torch.where(mask, k3(rollout.log_probs, rollout.reference), 0.0).sum(1)[answers]
    given = torch.tensor([score for score in scored.total if score is not None])
    lengths = rollout.lengths[[score is not None for score in scored.total]]
    spread = float(kl.std()) if len(kl) > 1 else 0.0
    return {
        "reward": float(given.mean()),
        "reward_std": float(given.std()) if len(given) > 1 else 0.0,
        "reward_shaped": float(rollout.scores[answers].mean()),
        "reward_after_kl": float(torch.where(mask, rewards, 0.0).sum(1)[answers].mean()),
        **{f"reward/{name}": mean_of(part) for name, part in scored.parts.items() if len(scored.parts) > 1},
        **scored.metrics,
        "unscored": float(scored.total.count(None)),
        "kl": float(kl.mean()),
        "kl_error": spread / len(kl) ** 0.5,
        "kl_k3": float(kl_k3.mean()),
        "entropy": float(masked_mean(rollout.entropy, mask)),
        "ended": sum(rollout.ended) / len(rollout.ended),
        "response_length": float(rollout.lengths.mean()),
        "length_correlation": correlation(given, lengths),
        "explained_variance": explained_variance(rollout.values, returns, mask),
    }


def mean_of(scores: list[float | None]) -> float:
    known = [score for score in scores if score is not None]
    return sum(known) / max(1, len(known))


def told(rollout: Rollout, scored: Scored) -> Iterator[dict[str, Any]]:
    """Write answers out for people."""
    kl = torch.where(rollout.mask, k1(rollout.log_probs, rollout.reference), 0.0).sum(1).tolist()
    for i, (row, made) in enumerate(zip(rollout.rows, rollout.made, strict=True)):
        parts = {name: part[i] for name, part in scored.parts.items()}
        extra = {name: values[i] for name, values in scored.extra.items()}
        about = {"prompt": row.prompt, "response": made.text, "finish_reason": made.finish_reason}
        yield {**about, "reward": scored.total[i], "parts": parts, "kl": kl[i], **extra}
