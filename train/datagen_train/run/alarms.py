"""Alarms: what goes wrong in reinforcement learning from rewards, printed in words as soon as the metrics show it.

A rising reward is not success: the policy may exploit the reward model (over-optimisation, arXiv 2210.10760). Each
alarm compares the mean of the last five iterations with that of the first five, is raised once, and says what to do.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from math import sqrt
from statistics import fmean
from typing import Any

WINDOW = 5
"""Iterations in an average."""
SIGMAS = 3.0
"""Standard errors below zero from which a negative KL is no longer chance."""
KL_TARGET_FACTOR, KL_PER_TOKEN = 2.0, 0.75
"""Largest KL: a multiple of its target, or nats per token where there is no target."""
ENTROPY_SHARE = 0.1
"""Smallest entropy, as a share of the first."""
ENDED_SHARE, ENDED_LEAST = 0.5, 0.1
"""Smallest share of answers that end by themselves: relative to the first iterations, and absolute."""
LENGTH_CORRELATION, LENGTH_GROWTH = 0.5, 1.25
"""Correlation of reward and length, and growth of the answers, from which length is what is rewarded."""
SAMPLER_GAP = 0.1
"""Largest mean difference between the log-probabilities of sampler and policy, in nats per token."""
EXACT_MATCH_LOSS = 0.05
"""Exact match lost since its best, while the reward rose."""
Metrics = dict[str, float]


def negative_kl(first: Metrics, now: Metrics, target: float | None) -> str | None:
    if now["kl"] + SIGMAS * now["kl_error"] / sqrt(WINDOW) >= 0:
        return None
    return (
        f"KL to the reference is {now['kl']:.2f}, below zero: answers are not drawn from the distribution that learns "
        "(another temperature, tokens suppressed on one side, a wrong mask). Do not trust this run"
    )


def kl_too_large(first: Metrics, now: Metrics, target: float | None) -> str | None:
    bound = KL_TARGET_FACTOR * target if target else KL_PER_TOKEN * now["response_length"]
    if now["kl"] <= bound:
        return None
    return (
        f"KL to the reference is {now['kl']:.2f} nats per answer, beyond {bound:.2f}: the policy has left what the "
        "reward was made for. Raise --kl-coef, or lower --learning-rate; an earlier checkpoint may be better"
    )


def entropy_collapsed(first: Metrics, now: Metrics, target: float | None) -> str | None:
    if now["entropy"] >= ENTROPY_SHARE * first["entropy"]:
        return None
    return (
        f"entropy fell from {first['entropy']:.2f} to {now['entropy']:.2f} nats per token: the policy no longer "
        "explores. This is fine where one answer is right; elsewhere raise --kl-coef, or lower --learning-rate"
    )


def few_answers_end(first: Metrics, now: Metrics, target: float | None) -> str | None:
    if now["ended"] >= ENDED_LEAST and now["ended"] >= ENDED_SHARE * first["ended"]:
        return None
    return (
        f"only {now['ended']:.0%} of the answers end by themselves ({first['ended']:.0%} at first). Raise "
        "--missing-end-penalty or --max-tokens; if it was so from the start, train sft first"
    )


def reward_follows_length(first: Metrics, now: Metrics, target: float | None) -> str | None:
    grown = now["response_length"] > LENGTH_GROWTH * first["response_length"]
    if now["length_correlation"] <= LENGTH_CORRELATION or not grown:
        return None
    return (
        f"the reward follows length (correlation {now['length_correlation']:.2f}) and answers grew from "
        f"{first['response_length']:.0f} to {now['response_length']:.0f} tokens: see the length bias in the reward "
        "model's report"
    )


def sampler_parted(first: Metrics, now: Metrics, target: float | None) -> str | None:
    if now.get("sampler_gap", 0.0) <= SAMPLER_GAP:
        return None
    return (
        f"the server that samples and the model that learns are {now['sampler_gap']:.2f} nats a token apart: answers "
        "are not drawn from the policy. Use the same data type on both sides, and --logprobs-mode processed_logprobs"
    )


RULES: dict[str, Callable[[Metrics, Metrics, float | None], str | None]] = {
    "negative KL": negative_kl,
    "KL too large": kl_too_large,
    "entropy": entropy_collapsed,
    "no end": few_answers_end,
    "length": reward_follows_length,
    "sampler": sampler_parted,
}


@dataclass
class Alarms:
    """The alarms of a run, with as much of the metrics as the rules need."""

    target: float | None = None
    """Target of the KL in nats per answer; None without one."""
    first: list[Metrics] = field(default_factory=list)
    recent: list[Metrics] = field(default_factory=list)
    best: Metrics = field(default_factory=dict)
    """The measurement with the highest exact match."""
    raised: dict[str, str] = field(default_factory=dict)
    """Name to message, in the order in which they were raised."""

    def iteration(self, step: int, metrics: Metrics) -> list[str]:
        """Take in the metrics of an iteration; return the messages of new alarms."""
        if len(self.first) < WINDOW:
            self.first.append(metrics)
        self.recent = [*self.recent, metrics][-WINDOW:]
        if len(self.recent) < WINDOW:
            return []
        first, now = (
            {name: fmean(metrics[name] for metrics in window if name in metrics) for name in window[-1]}
            for window in (self.first, self.recent)
        )
        messages = ((name, rule(first, now, self.target)) for name, rule in RULES.items())
        return [self.alarm(step, name, text) for name, text in messages if text and name not in self.raised]

    def measurement(self, step: int, metrics: Metrics) -> list[str]:
        """Take in a measurement on held-out prompts; return the messages of new alarms."""
        if "eval_exact_match" not in metrics or "eval_reward" not in metrics:
            return []
        best, name = self.best, "over-optimisation"
        if not best or metrics["eval_exact_match"] > best["eval_exact_match"]:
            self.best = {key: metrics[key] for key in ("eval_exact_match", "eval_reward")}
            return []
        lost = best["eval_exact_match"] - metrics["eval_exact_match"]
        if lost <= EXACT_MATCH_LOSS or metrics["eval_reward"] <= best["eval_reward"] or name in self.raised:
            return []
        text = (
            f"the reward on held-out prompts rose from {best['eval_reward']:.2f} to {metrics['eval_reward']:.2f} while "
            f"exact match fell from {best['eval_exact_match']:.3f} to {metrics['eval_exact_match']:.3f}: the policy "
            "exploits the reward. Use --best exact_match, a larger --kl-coef, or a better reward"
        )
        return [self.alarm(step, name, text)]

    def alarm(self, step: int, name: str, text: str) -> str:
        """Raise an alarm; return the message to print."""
        self.raised[name] = f"step {step}: {text}"
        return f"ALARM {name}, step {step}: {text}."

    def as_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint; its key for `raised` is "told"."""
        state = asdict(self)
        state["told"] = state.pop("raised")
        return state

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> "Alarms":
        return cls(state["target"], state["first"], state["recent"], state["best"], state["told"])
