"""What goes wrong in reinforcement learning from rewards, told in words as soon as it shows.

A rise of the reward is no success: the policy may have found what the reward model likes and people do not (arXiv
2210.10760, over-optimisation). Each alarm compares the last iterations with the first ones, is told once, and says
what to do. Means over five iterations, since one says little.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import sqrt

WINDOW = 5
"""Iterations that are averaged."""
SURE = 3.0
"""Standard errors below zero, before a negative KL is not taken for chance."""
TIMES_TARGET, NATS_A_TOKEN = 2.0, 0.75
"""KL beyond so often its target, or so much a token where there is none, has left the reference behind."""
COLLAPSED, FEW_END, RARELY = 0.1, 0.5, 0.1
"""Shares: of the first entropy; of the answers that ended at first; of all answers."""
FOLLOWS, LONGER = 0.5, 1.25
"""Correlation of reward and length; growth of the answers."""
WORSE = 0.05
"""Exact match lost since its best, while the reward rose."""
Metrics = dict[str, float]


def negative_kl(first: Metrics, now: Metrics, target: float | None) -> str | None:
    if now["kl"] + SURE * now["kl_error"] / sqrt(WINDOW) >= 0:
        return None
    return (
        f"KL to the reference is {now['kl']:.2f}, below zero: answers are not drawn from the distribution that learns "
        "(another temperature, tokens suppressed on one side, a wrong mask). Do not trust this run"
    )


def kl_too_large(first: Metrics, now: Metrics, target: float | None) -> str | None:
    bound = TIMES_TARGET * target if target else NATS_A_TOKEN * now["response_length"]
    if now["kl"] <= bound:
        return None
    return (
        f"KL to the reference is {now['kl']:.2f} nats an answer, beyond {bound:.2f}: the policy has left what the "
        "reward was made for. Raise --kl-coef, or lower --learning-rate; an earlier checkpoint may be better"
    )


def entropy_collapsed(first: Metrics, now: Metrics, target: float | None) -> str | None:
    if now["entropy"] >= COLLAPSED * first["entropy"]:
        return None
    return (
        f"entropy fell from {first['entropy']:.2f} to {now['entropy']:.2f} nats a token: nothing is tried any more. "
        "Fine where there is one right answer; elsewhere raise --kl-coef, or lower --learning-rate"
    )


def no_end(first: Metrics, now: Metrics, target: float | None) -> str | None:
    if now["ended"] >= RARELY and now["ended"] >= FEW_END * first["ended"]:
        return None
    return (
        f"only {now['ended']:.0%} of the answers end by themselves ({first['ended']:.0%} at first). Raise "
        "--missing-end-penalty or --max-tokens; if it was so from the start, train sft first"
    )


def follows_length(first: Metrics, now: Metrics, target: float | None) -> str | None:
    grown = now["response_length"] > LONGER * first["response_length"]
    if now["length_correlation"] <= FOLLOWS or not grown:
        return None
    return (
        f"the reward follows length (correlation {now['length_correlation']:.2f}) and answers grew from "
        f"{first['response_length']:.0f} to {now['response_length']:.0f} tokens: see the length bias in the reward "
        "model's report"
    )


RULES: dict[str, Callable[[Metrics, Metrics, float | None], str | None]] = {
    "negative KL": negative_kl,
    "KL too large": kl_too_large,
    "entropy": entropy_collapsed,
    "no end": no_end,
    "length": follows_length,
}


@dataclass
class Alarms:
    """What was seen, as much as the rules need, and what was told."""

    target: float | None = None
    first: list[Metrics] = field(default_factory=list)
    recent: list[Metrics] = field(default_factory=list)
    best: Metrics = field(default_factory=dict)
    """The measurement of the highest exact match."""
    told: dict[str, str] = field(default_factory=dict)

    def iteration(self, step: int, metrics: Metrics) -> list[str]:
        """Take note of an iteration; return what is new and alarming."""
        if len(self.first) < WINDOW:
            self.first.append(metrics)
        self.recent = [*self.recent, metrics][-WINDOW:]
        if len(self.recent) < WINDOW:
            return []
        first, now = average(self.first), average(self.recent)
        found = ((name, rule(first, now, self.target)) for name, rule in RULES.items())
        return [self._tell(step, name, text) for name, text in found if text and name not in self.told]

    def measurement(self, step: int, metrics: Metrics) -> list[str]:
        """Take note of a measurement on held-out prompts; return what is new and alarming."""
        if "eval_exact_match" not in metrics or "eval_reward" not in metrics:
            return []
        best, name = self.best, "over-optimisation"
        if not best or metrics["eval_exact_match"] > best["eval_exact_match"]:
            self.best = {key: metrics[key] for key in ("eval_exact_match", "eval_reward")}
            return []
        lost = best["eval_exact_match"] - metrics["eval_exact_match"]
        if lost <= WORSE or metrics["eval_reward"] <= best["eval_reward"] or name in self.told:
            return []
        text = (
            f"the reward on held-out prompts rose from {best['eval_reward']:.2f} to {metrics['eval_reward']:.2f} while "
            f"exact match fell from {best['eval_exact_match']:.3f} to {metrics['eval_exact_match']:.3f}: the policy "
            "exploits the reward. Use --best exact_match, a larger --kl-coef, or a better reward"
        )
        return [self._tell(step, name, text)]

    def _tell(self, step: int, name: str, text: str) -> str:
        self.told[name] = f"step {step}: {text}"
        return f"ALARM {name}, step {step}: {text}."


def average(window: list[Metrics]) -> Metrics:
    """Return the mean of each number."""
    return {name: sum(each[name] for each in window) / len(window) for name in window[-1]}
