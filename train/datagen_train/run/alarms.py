"""Alarms: what goes wrong in reinforcement learning from rewards, printed in words as soon as the metrics show it.

A rising reward is not success: the policy may exploit the reward model (over-optimisation, arXiv 2210.10760). Each
alarm compares the mean of the last five iterations with that of the first five (fluency and repetition: with the first
one, where the policy is the reference), is raised once, and says what to do.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from math import log, sqrt
from typing import Any

WINDOW = 5
"""Iterations in an average."""
SIGMAS = 3.0
"""Standard errors below zero from which a negative KL is no longer chance."""
KL_TARGET_FACTOR, KL_PER_TOKEN = 2.0, 0.75
"""Largest KL: per answer, as a multiple of its target; per token in nats, with a target or without one."""
FLUENCY_LOSS = log(2)
"""Nats per token that fluency may fall: the perplexity of the answers under the reference doubles."""
REPETITION_GROWTH = 0.2
"""Growth of the share of repeated n-grams."""
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
OF_THE_START = ("fluency", "repetition")
"""Metrics that are compared with those of the first iteration alone: there the policy is the reference."""
Metrics = dict[str, float]


def negative_kl(first: Metrics, now: Metrics, target: float | None) -> str | None:
    if now["kl"] + SIGMAS * now["kl_error"] / sqrt(WINDOW) >= 0:
        return None
    return (
        f"KL to the reference is {now['kl']:.2f}, below zero: answers are not drawn from the distribution that learns "
        "(another temperature, tokens suppressed on one side, a wrong mask). Do not trust this run"
    )


LEFT = (
    "the policy has left what the reward was made for. Raise --kl-coef, or lower --learning-rate; an earlier "
    "checkpoint may be better"
)


def kl_too_large(first: Metrics, now: Metrics, target: float | None) -> str | None:
    if target is None or now["kl"] <= KL_TARGET_FACTOR * target:
        return None
    return f"KL to the reference is {now['kl']:.2f} nats per answer, beyond {KL_TARGET_FACTOR * target:.2f}: {LEFT}"


def kl_per_token(first: Metrics, now: Metrics, target: float | None) -> str | None:
    if now["kl_token"] <= KL_PER_TOKEN:
        return None
    return f"KL to the reference is {now['kl_token']:.2f} nats per token, beyond {KL_PER_TOKEN:.2f}: {LEFT}"


def fluency_lost(first: Metrics, now: Metrics, target: float | None) -> str | None:
    before, after = first["fluency"], now["fluency"]
    if after >= before - FLUENCY_LOSS:
        return None
    return (
        f"the answers' mean log-probability under the reference fell from {before:.2f} to {after:.2f} nats per token: "
        "the start would not write such text. Read run/samples.jsonl: if it is gibberish, the policy exploits the "
        "reward. Raise --kl-coef, lower --learning-rate, or take an earlier checkpoint or a better reward"
    )


def repetitive(first: Metrics, now: Metrics, target: float | None) -> str | None:
    if now["repetition"] <= first["repetition"] + REPETITION_GROWTH:
        return None
    return (
        f"answers repeat themselves: {now['repetition']:.0%} of their 4-grams occurred before in the same answer "
        f"({first['repetition']:.0%} at first). The reward does not notice repetition; raise --kl-coef, lower "
        "--learning-rate, or add a reward that does"
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
        "--max-tokens, or --missing-end-penalty of ppo; if it was so from the start, train sft first"
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
    if now["sampler_gap"] <= SAMPLER_GAP:
        return None
    return (
        f"the server that samples and the model that learns are {now['sampler_gap']:.2f} nats a token apart: answers "
        "are not drawn from the policy. Use the same data type on both sides, and --logprobs-mode processed_logprobs"
    )


RULES: dict[str, tuple[tuple[str, ...], Callable[[Metrics, Metrics, float | None], str | None]]] = {
    "negative KL": (("kl", "kl_error"), negative_kl),
    "KL too large": (("kl",), kl_too_large),
    "KL per token": (("kl_token",), kl_per_token),
    "fluency": (("fluency",), fluency_lost),
    "repetition": (("repetition",), repetitive),
    "entropy": (("entropy",), entropy_collapsed),
    "no end": (("ended",), few_answers_end),
    "length": (("response_length", "length_correlation"), reward_follows_length),
    "sampler": (("sampler_gap",), sampler_parted),
}
"""Each with the metrics that it needs."""


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
            {
                name: sum(metrics[name] for metrics in window) / len(window)
                for name in window[-1]
                if all(name in metrics for metrics in window)
            }
            for window in (self.first, self.recent)
        )
        first |= {name: self.first[0][name] for name in OF_THE_START if name in first}
        measured = first.keys() & now.keys()
        rules = ((name, rule) for name, (needs, rule) in RULES.items() if measured >= set(needs))
        messages = ((name, rule(first, now, self.target)) for name, rule in rules)
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
