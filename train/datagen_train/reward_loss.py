"""The loss of a reward model, and what it is judged by, as pure functions.

A prompt with K answers gives up to C(K,2) comparisons. All of them come from one element of the batch, each answer goes
through the model once, and each comparison weighs one over their number (InstructGPT, arXiv 2203.02155, equation 1):

    loss = - mean over prompts of mean over their comparisons of  log sigmoid(r_better - r_worse - margin)

Comparisons strewn over the data set as pairs let a model overfit in one pass, for it sees each answer K - 1 times.
`target` is the probability that the first answer is the better one: 1, or less for soft labels, or 1/2 for a tie.
The margin is that of Llama 2 (arXiv 2307.09288, equation 2).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import logsigmoid

RESAMPLES = 1000
"""Of the bootstrap; 95 % intervals of it are stable to about a hundredth."""
CONFIDENCES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Borders of the bins of the reliability table; a prediction is always made for the likelier side."""
Numbers = np.ndarray[Any, np.dtype[np.float64]]


def ranking_loss(
    scores: torch.Tensor,
    better: torch.Tensor,
    worse: torch.Tensor,
    weight: torch.Tensor,
    target: torch.Tensor,
    margin: torch.Tensor,
) -> torch.Tensor:
    """Return the loss. `scores` [answers] are raw rewards; the others [comparisons]; `better` and `worse` are indices
    into the scores, and `weight` sums to 1."""
    difference = scores[better] - scores[worse] - margin
    each = target * logsigmoid(difference) + (1 - target) * logsigmoid(-difference)
    return -(weight * each).sum()


@dataclass(frozen=True)
class Judged:
    """Comparisons that were judged by a model, as columns."""

    better: Numbers
    """Raw reward of the better answer."""
    worse: Numbers
    longer: Numbers
    """Tokens that the better answer is longer by."""
    prompt: Numbers
    """The number of its prompt: comparisons of one prompt are not independent."""

    @property
    def difference(self) -> Numbers:
        return self.better - self.worse

    def __len__(self) -> int:
        return len(self.better)

    def where(self, chosen: np.ndarray[Any, np.dtype[np.bool_]]) -> "Judged":
        return Judged(self.better[chosen], self.worse[chosen], self.longer[chosen], self.prompt[chosen])


def hits(differences: Numbers) -> Numbers:
    """Return 1 where the better one is ahead, 0 where it is behind, and 1/2 where they are level."""
    hit: Numbers = (np.sign(differences) + 1) / 2
    return hit


def accuracy(judged: Judged) -> float:
    """Return the share of comparisons that the model decides as the data do."""
    return float(hits(judged.difference).mean())


def longer_wins(judged: Judged) -> float:
    """Return the accuracy of a judge that always takes the longer answer."""
    return float(hits(judged.longer).mean())


def interval(judged: Judged, seed: int) -> tuple[float, float]:
    """Return the 95 % interval of the accuracy, from a bootstrap over prompts."""
    _, prompt = np.unique(judged.prompt, return_inverse=True)
    counts = np.bincount(prompt)
    sums = np.bincount(prompt, weights=hits(judged.difference))
    drawn = np.random.default_rng(seed).integers(len(counts), size=(RESAMPLES, len(counts)))
    low, high = np.quantile(sums[drawn].sum(1) / counts[drawn].sum(1), [0.025, 0.975])
    return float(low), float(high)


def calibration(judged: Judged) -> tuple[float, list[dict[str, float]]]:
    """Return the expected calibration error of sigmoid(r_better - r_worse), and the bins that it is made of.

    A bin holds the comparisons that the model is so sure of: their number, its mean confidence, its accuracy.
    """
    confidence = 1 / (1 + np.exp(-np.abs(judged.difference)))
    right = hits(judged.difference)
    place = np.digitize(confidence, CONFIDENCES[1:-1])
    bins = []
    for number in np.unique(place):
        inside = place == number
        sure, hit = float(confidence[inside].mean()), float(right[inside].mean())
        bins.append({"from": CONFIDENCES[number], "count": int(inside.sum()), "confidence": sure, "accuracy": hit})
    error = sum(each["count"] * abs(each["confidence"] - each["accuracy"]) for each in bins) / len(judged)
    return float(error), bins


def correlation(one: Sequence[float] | Numbers, other: Sequence[float] | Numbers) -> float | None:
    """Return Pearson's correlation; None where one side does not vary."""
    a, b = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if len(a) < 2 or a.std() == 0 or b.std() == 0:
        return None
    return float(np.corrcoef(a, b)[0, 1])
