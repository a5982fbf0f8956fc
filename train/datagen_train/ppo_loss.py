"""The arithmetic of PPO for language models, as pure functions on tensors of (answers, tokens).

PPO is arXiv 1707.06347, GAE arXiv 1506.02438; used on language models: arXiv 1909.08593 ("Fine-Tuning Language Models
from Human Preferences", with the adaptive coefficient), 2203.02155 (InstructGPT), 2403.17031 ("The N+ Implementation
Details of RLHF with PPO"). KL estimators: J. Schulman, "Approximating KL Divergence", 2020.

`mask` is true at an answer's tokens, the one that ends it included; what stands elsewhere is never read, not even
multiplied by zero, which would keep a NaN. `add_up` sums a tensor over all processes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

KL_COEF, ADAPTIVE_KL_COEF = 0.05, 0.15
"""A fixed coefficient as in 2403.17031; where an adaptive one begins in 1909.08593."""
KL_TARGET, KL_HORIZON, KL_STEP = 6.0, 10_000, 0.2
"""1909.08593: nats an answer; answers in which the coefficient may double, about; bound of one relative error."""
LOG_RATIO_BOUND = 20.0
"""Log-ratios are clamped here before exp, which overflows at 88 in float32."""
LEAST_VARIANCE = 1e-8
AddUp = Callable[[Tensor], Tensor]


def alone(sums: Tensor) -> Tensor:
    """Sum over one process."""
    return sums


def masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Return the sum where the mask is true."""
    return torch.where(mask, values, 0.0).sum()


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean where the mask is true; 0 where it is nowhere."""
    return masked_sum(values, mask) / mask.sum().clamp_min(1)


def token_log_probs(logits: Tensor, tokens: Tensor) -> Tensor:
    """Return the log-probability of each token, in float32."""
    logits = logits.float()
    return logits.gather(-1, tokens[..., None])[..., 0] - logits.logsumexp(-1)


def entropy(logits: Tensor) -> Tensor:
    """Return the entropy of each distribution, in nats."""
    log_probs = logits.float().log_softmax(-1)
    return -(log_probs.exp() * log_probs).sum(-1)


def k1(log_probs: Tensor, reference: Tensor) -> Tensor:
    """Estimate KL(policy, reference) a token: unbiased, but negative at times. It stands in the reward."""
    return log_probs - reference


def k3(log_probs: Tensor, reference: Tensor) -> Tensor:
    """Estimate KL(policy, reference) a token: unbiased and never negative. It is for looking at."""
    log_ratio = (reference - log_probs).clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND)
    return log_ratio.exp() - 1 - log_ratio


def token_rewards(scores: Tensor, kl: Tensor, mask: Tensor, coef: float) -> Tensor:
    """Spread the reward over an answer: the penalty at each token, the score (one an answer) at the last one."""
    rewards = torch.where(mask, -coef * kl, 0.0)
    last = mask.sum(1) - 1
    answers = (last >= 0).nonzero()[:, 0]
    rewards[answers, last[answers]] += scores[answers]
    return rewards


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Return (advantages, returns): generalised advantage estimation over an answer's tokens.

    `values[:, t]` is what the critic expects before token t. Behind the last token nothing is expected, whether the
    answer ended or was cut: a cut is paid for in the score, so it is not bootstrapped as well.
    """
    rewards, values = torch.where(mask, rewards, 0.0), torch.where(mask, values, 0.0)
    advantages = torch.zeros_like(values)
    later_value = later_advantage = torch.zeros_like(values[:, 0])
    for t in reversed(range(values.shape[1])):
        surprise = rewards[:, t] + gamma * later_value - values[:, t]
        later_advantage = torch.where(mask[:, t], surprise + gamma * lam * later_advantage, 0.0)
        later_value = values[:, t]
        advantages[:, t] = later_advantage
    return advantages, advantages + values


def moments(values: Tensor, mask: Tensor, add_up: AddUp = alone) -> tuple[Tensor, Tensor]:
    """Return mean and (biased, as in the code of 1909.08593) variance over all valid tokens of all processes."""
    total, count = add_up(torch.stack([masked_sum(values, mask), mask.sum().to(values.dtype)]))
    mean = total / count.clamp_min(1)
    return mean, add_up(masked_sum((values - mean) ** 2, mask)) / count.clamp_min(1)


def whiten(values: Tensor, mask: Tensor, add_up: AddUp = alone, *, shift: bool = True) -> Tensor:
    """Scale to variance 1, and shift to mean 0 unless told not to (rewards keep their mean, 1909.08593)."""
    mean, variance = moments(values, mask, add_up)
    white = (values - mean) * (variance + LEAST_VARIANCE).rsqrt()
    return torch.where(mask, white if shift else white + mean, 0.0)


class PolicyTerms(NamedTuple):
    """The policy's part of the loss, a token, and what it is watched by."""

    loss: Tensor
    ratio: Tensor
    clipped: Tensor
    moved: Tensor
    """KL between the policy that answered and this one, estimated by k3."""


def policy_terms(log_probs: Tensor, old: Tensor, advantages: Tensor, clip: float) -> PolicyTerms:
    """Return the clipped objective of 1707.06347, (7), as a loss a token."""
    log_ratio = (log_probs - old).clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND)
    ratio = log_ratio.exp()
    free, bounded = -advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip)
    return PolicyTerms(torch.maximum(free, bounded), ratio, bounded > free, ratio - 1 - log_ratio)


def value_terms(values: Tensor, old: Tensor, returns: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """Return (squared error halved, was clipped) a token: a value may not move further than `clip` in one rollout."""
    bounded = old + (values - old).clamp(-clip, clip)
    free_error, bounded_error = (values - returns) ** 2, (bounded - returns) ** 2
    return 0.5 * torch.maximum(free_error, bounded_error), bounded_error > free_error


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """Return the share of the returns' variance that the critic knew; 1 at best, below 0 if it misleads."""
    _, left = moments(returns - values, mask)
    _, whole = moments(returns, mask)
    return float(1 - left / whole.clamp_min(LEAST_VARIANCE))


def correlation(first: Tensor, second: Tensor) -> float:
    """Return Pearson's correlation; 0 where one of them does not vary."""
    if len(first) < 2 or float(first.std()) < 1e-6 or float(second.std()) < 1e-6:
        return 0.0
    return float(torch.corrcoef(torch.stack([first, second]))[0, 1])


@dataclass
class KlController:
    """The coefficient of the KL penalty; it adapts if there is a target (1909.08593, section 2.2)."""

    coef: float
    target: float | None = None
    """Nats an answer."""
    horizon: int = KL_HORIZON

    def update(self, kl: float, answers: int) -> None:
        """Take note of the KL of that many answers."""
        if self.target is not None:
            error = min(max(kl / self.target - 1, -KL_STEP), KL_STEP)
            self.coef *= 1 + error * answers / self.horizon


@dataclass
class RunningSpread:
    """The standard deviation of all rewards so far (Welford), to bring rewards of any scale to about 1."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def update(self, values: list[float]) -> None:
        for value in values:
            self.count += 1
            step = value - self.mean
            self.mean += step / self.count
            self.squares += step * (value - self.mean)

    @property
    def std(self) -> float:
        """1 as long as nothing is known."""
        spread = (self.squares / self.count) ** 0.5 if self.count > 1 else 0.0
        return spread if spread > LEAST_VARIANCE else 1.0
