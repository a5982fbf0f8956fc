"""What is told of a reward model: how often it is right, where, how sure, and what length alone would have reached."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from datagen_train.data.rankings import EncodedRanking
from datagen_train.reward_loss import Judged, Numbers, accuracy, calibration, correlation, hits, interval, longer_wins

GOOD_ACCURACY = 0.65
"""Held-out accuracy from which PPO has been run with success: the reward models of InstructGPT (arXiv 2203.02155,
section 4.1) agreed with labelers in 69.6 to 72.4 % of the cases, those of other public runs in 60 to 72 %."""
FEWEST = 100
"""Comparisons below which nothing is said: the interval alone would be 20 points wide."""


def judge(rankings: Sequence[EncodedRanking], scores: Sequence[Numbers]) -> tuple[Judged, list[str]]:
    """Return the comparisons that are no ties with the scores of their answers, and the source of each."""
    rows = [
        (mine[c.better], mine[c.worse], each.lengths[c.better] - each.lengths[c.worse], number, each.source)
        for number, (each, mine) in enumerate(zip(rankings, scores, strict=True))
        for c in each.comparisons
        if c.target != 0.5
    ]
    better, worse, longer, prompt, sources = zip(*rows, strict=True) if rows else ((),) * 5
    return Judged(*(np.array(column, dtype=np.float64) for column in (better, worse, longer, prompt))), list(sources)


def by_prompt(rankings: Sequence[EncodedRanking], scores: Numbers) -> list[Numbers]:
    """Cut the scores of all answers into those of each prompt."""
    return np.split(scores, np.cumsum([len(each.answers) for each in rankings])[:-1])


def describe(rankings: Sequence[EncodedRanking], scores: Numbers, seed: int) -> dict[str, Any]:
    """Measure a model on rankings; `scores` are its raw rewards of all answers, one after another."""
    judged, sources = judge(rankings, by_prompt(rankings, scores))
    lengths = [length for each in rankings for length in each.lengths]
    told: dict[str, Any] = {"prompts": len(rankings), "comparisons": len(judged)}
    if not len(judged):
        return told
    error, bins = calibration(judged)
    return told | {
        "accuracy": accuracy(judged),
        "interval": interval(judged, seed),
        "longer_wins": longer_wins(judged),
        "margin": float(judged.difference.mean()),
        "length_gap": float(judged.longer.mean()),
        "reward_length_correlation": correlation(scores, lengths),
        "calibration_error": error,
        "reliability": bins,
        "by_source": by_source(judged, sources),
    }


def by_source(judged: Judged, sources: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return the number of comparisons and the accuracy of each source."""
    names = np.array(sources)
    found = {name: hits(judged.where(names == name).difference) for name in sorted(set(sources))}
    return {name: {"comparisons": len(right), "accuracy": float(right.mean())} for name, right in found.items()}


def verdict(told: dict[str, Any]) -> str:
    """Say whether PPO can be run against the model."""
    count = told.get("comparisons", 0)
    if count < FEWEST:
        return f"Good enough for PPO? Not to be told: {count} held-out comparisons, {FEWEST} are the least."
    low, high = told["interval"]
    length = max(told["longer_wins"], 1 - told["longer_wins"])
    numbers = f"accuracy {told['accuracy']:.3f} (95 %: {low:.3f} to {high:.3f}), length alone {length:.3f}"
    if low <= length:
        return f"Not good enough for PPO: no better than length alone. {numbers}."
    if told["accuracy"] < GOOD_ACCURACY:
        return f"Not good enough for PPO: below {GOOD_ACCURACY}. {numbers}."
    return f"Good enough for PPO: {numbers}, at least {GOOD_ACCURACY} is asked."


def paragraphs(told: dict[str, Any]) -> list[str]:
    """Put the numbers into words, for the card."""
    if "accuracy" not in told:
        return [verdict(told)]
    tie = told["reward_length_correlation"]
    return [
        verdict(told),
        f"A judge that always takes the longer answer is right in {told['longer_wins']:.3f} of the cases; the better "
        f"answer is longer by {told['length_gap']:.1f} tokens, and reward and length correlate by "
        f"{'nothing that can be measured' if tie is None else f'{tie:.2f}'}.",
        f"Calibration error {told['calibration_error']:.3f}. By source: "
        + "; ".join(f"{n} {s['accuracy']:.3f} of {s['comparisons']}" for n, s in told["by_source"].items())
        + ".",
    ]
