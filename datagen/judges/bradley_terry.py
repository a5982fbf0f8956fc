"""Bradley-Terry: from comparisons to strengths (as chatbot leaderboards rank, arXiv 2306.05685).

P(i beats j) = sigmoid(s_i - s_j). The strengths maximise the likelihood of the comparisons, a tie being half a win for
each, with a normal prior on every strength: without it there is no maximum if the wins do not connect all answers.
Elo is no substitute: it depends on the order in which the comparisons come.
"""

from collections.abc import Iterable
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PRIOR = 0.1
"""Precision of the prior, in comparisons: about a tenth of one against an opponent of strength 0. Our choice."""
MAX_STEPS, TOLERANCE = 100, 1e-9
"""Newton's method: the most steps, and the change at which it has converged."""


class Outcome(NamedTuple):
    """A comparison of two, by their places."""

    first: int
    second: int
    share: float
    """1 if the first won, 0 if the second did, 0.5 for a tie."""
    weight: float = 1.0


def strengths(count: int, outcomes: Iterable[Outcome], prior: float = PRIOR) -> NDArray[np.float64]:
    """Fit the strengths by Newton's method.

    Args:
        count: How many are compared.
        outcomes: The comparisons; first and second are from 0 to count - 1.
        prior: Precision of the normal prior with mean 0.

    Returns:
        Shape (count,), mean 0, in natural logarithms; 0 before centring for one that was never compared.
    """
    games = list(outcomes)
    first = np.array([game.first for game in games], dtype=np.int64)
    second = np.array([game.second for game in games], dtype=np.int64)
    share = np.array([game.share for game in games], dtype=np.float64)
    weight = np.array([game.weight for game in games], dtype=np.float64)
    strength = np.zeros(count)
    for _ in range(MAX_STEPS):
        expected = 1 / (1 + np.exp(strength[second] - strength[first]))

        # 1. Gradient of the log-posterior.
        surprise = weight * (share - expected)
        gradient = -prior * strength
        np.add.at(gradient, first, surprise)
        np.add.at(gradient, second, -surprise)

        # 2. Its negative Hessian.
        curve = weight * expected * (1 - expected)
        hessian = np.diag(np.full(count, prior))
        np.add.at(hessian, (first, first), curve)
        np.add.at(hessian, (second, second), curve)
        np.add.at(hessian, (first, second), -curve)
        np.add.at(hessian, (second, first), -curve)

        # 3. The Newton step, never farther than 2 at once.
        step = np.linalg.solve(hessian, gradient)
        strength += step / max(1.0, float(np.abs(step).max(initial=0.0)) / 2)
        if np.abs(step).max(initial=0.0) < TOLERANCE:
            break
    return strength - strength.mean() if count else strength


def count_cycles(count: int, outcomes: Iterable[Outcome]) -> int:
    """Count the triples of which each beats the next: rock, paper, scissors is one."""
    beats = {
        (game.first, game.second) if game.share > 0.5 else (game.second, game.first)
        for game in outcomes
        if game.share != 0.5
    }
    return sum(
        1
        for a, b, c in combinations(range(count), 3)
        if {(a, b), (b, c), (c, a)} <= beats or {(b, a), (c, b), (a, c)} <= beats
    )
