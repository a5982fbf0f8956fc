"""How often a reward model is right on held-out rankings, where, how sure it is, and what length alone would reach."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from datagen_train.data.rankings import EncodedRanking
from datagen_train.models.reward_model import Numbers

GOOD_ACCURACY = 0.65
"""Held-out accuracy from which PPO has been run with success: the reward models of InstructGPT (arXiv 2203.02155,
section 4.1) agreed with labelers in 69.6 to 72.4 % of the cases, those of other public runs in 60 to 72 %."""
CHANCE = 0.5
"""Accuracy of a coin."""
MIN_COMPARISONS = 100
"""Comparisons below which there is no verdict: the interval alone would be 20 points wide."""
RESAMPLES = 1000
"""Of the bootstrap; its 95 % intervals are then stable to about a hundredth."""
CONFIDENCE_BINS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Borders of the bins of the reliability table; a prediction is always for the likelier side."""


@dataclass(frozen=True)
class Comparisons:
    """Comparisons with the scores of their answers, as columns of shape (comparisons,). Ties are left out."""

    difference: Numbers
    """Raw reward of the better answer minus that of the worse one."""
    longer: Numbers
    """Tokens by which the better answer is longer."""
    prompt: Numbers
    """Number of the prompt: comparisons of one prompt are not independent."""
    source: tuple[str, ...] = ()


def compare(rankings: Sequence[EncodedRanking], scores: Numbers) -> Comparisons:
    """Return the comparisons that are no ties; `scores` are the raw rewards of all answers, one after another."""
    by_prompt = np.split(scores, np.cumsum([len(ranking.answers) for ranking in rankings])[:-1])
    rows = [
        (raw[c.better] - raw[c.worse], ranking.lengths[c.better] - ranking.lengths[c.worse], number, ranking.source)
        for number, (ranking, raw) in enumerate(zip(rankings, by_prompt, strict=True))
        for c in ranking.comparisons
        if c.target != 0.5
    ]
    *columns, sources = zip(*rows, strict=True) if rows else ((),) * 4
    difference, longer, prompt = (np.array(column, dtype=np.float64) for column in columns)
    return Comparisons(difference, longer, prompt, tuple(sources))


def wins(differences: Numbers) -> Numbers:
    """Return 1 where the better answer is ahead, 0 where it is behind, 1/2 where they are equal. The mean: accuracy."""
    result: Numbers = (np.sign(differences) + 1) / 2
    return result


def interval(comparisons: Comparisons, seed: int) -> tuple[float, float]:
    """Return the 95 % interval of the accuracy, from a bootstrap over prompts."""
    _, prompt = np.unique(comparisons.prompt, return_inverse=True)
    counts = np.bincount(prompt)
    sums = np.bincount(prompt, weights=wins(comparisons.difference))
    drawn = np.random.default_rng(seed).integers(len(counts), size=(RESAMPLES, len(counts)))
    low, high = np.quantile(sums[drawn].sum(1) / counts[drawn].sum(1), [0.025, 0.975])
    return float(low), float(high)


def calibration(comparisons: Comparisons) -> tuple[float, list[dict[str, float]]]:
    """Return the expected calibration error of sigmoid(r_better - r_worse), and its bins.

    A bin holds the comparisons with a confidence in its range: their count, mean confidence and accuracy.
    """
    confidence = 1 / (1 + np.exp(-np.abs(comparisons.difference)))
    correct = wins(comparisons.difference)
    places = np.digitize(confidence, CONFIDENCE_BINS[1:-1])
    bins = []
    for place in np.unique(places):
        inside = places == place
        mean, accuracy = float(confidence[inside].mean()), float(correct[inside].mean())
        bins.append(
            {"from": CONFIDENCE_BINS[place], "count": int(inside.sum()), "confidence": mean, "accuracy": accuracy}
        )
    error = sum(row["count"] * abs(row["confidence"] - row["accuracy"]) for row in bins) / len(correct)
    return float(error), bins


def correlation(first: Sequence[float] | Numbers, second: Sequence[float] | Numbers) -> float | None:
    """Return Pearson's correlation; None where one side does not vary."""
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if len(a) < 2 or a.std() == 0 or b.std() == 0:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def describe(rankings: Sequence[EncodedRanking], scores: Numbers, seed: int) -> dict[str, Any]:
    """Measure a model on rankings; `scores` are its raw rewards of all answers, one after another."""
    comparisons = compare(rankings, scores)
    metrics: dict[str, Any] = {"prompts": len(rankings), "comparisons": len(comparisons.difference)}
    if not metrics["comparisons"]:
        return metrics
    error, bins = calibration(comparisons)
    lengths, names = [length for ranking in rankings for length in ranking.lengths], np.array(comparisons.source)
    correct = {name: wins(comparisons.difference[names == name]) for name in sorted(set(comparisons.source))}
    return metrics | {
        "accuracy": float(wins(comparisons.difference).mean()),
        "interval": interval(comparisons, seed),
        "longer_wins": float(wins(comparisons.longer).mean()),
        "margin": float(comparisons.difference.mean()),
        "length_gap": float(comparisons.longer.mean()),
        "reward_length_correlation": correlation(scores, lengths),
        "calibration_error": error,
        "reliability": bins,
        "by_source": {
            name: {"comparisons": len(values), "accuracy": float(values.mean())} for name, values in correct.items()
        },
    }


def verdict(metrics: dict[str, Any]) -> str:
    """Say whether the model is good enough for PPO."""
    count = metrics.get("comparisons", 0)
    if count < MIN_COMPARISONS:
        return f"Good enough for PPO? Unknown: {count} held-out comparisons, at least {MIN_COMPARISONS} are needed."
    low, high = metrics["interval"]
    length = max(metrics["longer_wins"], 1 - metrics["longer_wins"])
    numbers = f"accuracy {metrics['accuracy']:.3f} (95 %: {low:.3f} to {high:.3f}), length alone {length:.3f}"
    if low <= length:
        return f"Not good enough for PPO: no better than length alone. {numbers}."
    if metrics["accuracy"] < GOOD_ACCURACY:
        return f"Not good enough for PPO: below {GOOD_ACCURACY}. {numbers}."
    return f"Good enough for PPO: {numbers}, at least {GOOD_ACCURACY} is required."


def reservations(before: float, metrics: dict[str, Any]) -> dict[str, str]:
    """Say why a model is no result, which ranks no better than chance or worse than before, or why nobody can tell.

    Args:
        before: held-out accuracy before training.
        metrics: of `describe`.
    """
    count = metrics.get("comparisons", 0)
    if count < MIN_COMPARISONS:
        return {"doubt": f"{count} held-out comparisons are too few to tell: at least {MIN_COMPARISONS} are needed"}
    after, (low, high) = metrics["accuracy"], metrics["interval"]
    if low > CHANCE and after >= before:
        return {}
    numbers = f"{before:.3f} before, {after:.3f} after (95 %: {low:.3f} to {high:.3f}; chance is {CHANCE})"
    return {"failure": f"the reward model is not good: accuracy on {count} held-out comparisons: {numbers}"}


def paragraphs(metrics: dict[str, Any]) -> list[str]:
    """Put the metrics into words, for the model card."""
    if "accuracy" not in metrics:
        return [verdict(metrics)]
    tie = metrics["reward_length_correlation"]
    return [
        verdict(metrics),
        f"A judge that always takes the longer answer is right in {metrics['longer_wins']:.3f} of the cases; the "
        f"better answer is longer by {metrics['length_gap']:.1f} tokens, and reward and length correlate by "
        f"{'nothing that can be measured' if tie is None else f'{tie:.2f}'}.",
        f"Calibration error {metrics['calibration_error']:.3f}. By source: "
        + "; ".join(f"{n} {s['accuracy']:.3f} of {s['comparisons']}" for n, s in metrics["by_source"].items())
        + ".",
    ]
