"""Bradley-Terry: from comparisons to strengths (as chatbot leaderboards rank, arXiv 2306.05685).

P(i beats j) = sigmoid(s_i - s_j). The strengths maximise the likelihood of the comparisons, a tie being half a win for
each, with a normal prior on every strength: without one there is no maximum where the wins do not connect everybody.
Elo is no substitute: it depends on the order in which the comparisons come.
"""

from collections.abc import Iterable
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PRIOR = 0.1
"""Precision of the prior, in comparisons: a tenth of one against an opponent of strength 0, about. Our choice."""
STEPS, CLOSE = 100, 1e-9
"""Newton's method: the most steps, and the change at which it has arrived."""


class Outcome(NamedTuple):
    """A comparison of two, by their places."""

    first: int
    second: int
    share: float
    """1 if the first won, 0 if the second did, 0.5 for a tie."""
    weight: float = 1.0


def strengths(count: int, outcomes: Iterable[Outcome], prior: float = PRIOR) -> NDArray[np.float64]:
    """Return `count` strengths with mean 0, in natural logarithms; 0 for who was never compared."""
    games = list(outcomes)
    first = np.array([game.first for game in games], dtype=np.int64)
    second = np.array([game.second for game in games], dtype=np.int64)
    share = np.array([game.share for game in games], dtype=np.float64)
    weight = np.array([game.weight for game in games], dtype=np.float64)
    found = np.zeros(count)
    for _ in range(STEPS):
        expected = 1 / (1 + np.exp(found[second] - found[first]))
        surprise, curve = weight * (share - expected), weight * expected * (1 - expected)
        slope = -prior * found
        np.add.at(slope, first, surprise)
        np.add.at(slope, second, -surprise)
        step = np.linalg.solve(_curvature(count, first, second, curve, prior), slope)
        found += step / max(1.0, float(np.abs(step).max(initial=0.0)) / 2)  # never farther than 2 at once
        if np.abs(step).max(initial=0.0) < CLOSE:
            break
    return found - found.mean() if count else found


def _curvature(
    count: int, first: NDArray[np.int64], second: NDArray[np.int64], curve: NDArray[np.float64], prior: float
) -> NDArray[np.float64]:
    made = np.diag(np.full(count, prior))
    np.add.at(made, (first, first), curve)
    np.add.at(made, (second, second), curve)
    np.add.at(made, (first, second), -curve)
    np.add.at(made, (second, first), -curve)
    return made


def count_cycles(count: int, outcomes: Iterable[Outcome]) -> int:
    """Count the triples of which each beats the next: rock, paper, scissors is one."""
    beats = {(game.first, game.second) for game in (_sorted(game) for game in outcomes) if game.share > 0.5}
    return sum(
        1
        for a, b, c in combinations(range(count), 3)
        if {(a, b), (b, c), (c, a)} <= beats or {(b, a), (c, b), (a, c)} <= beats
    )


def _sorted(game: Outcome) -> Outcome:
    """Put the winner first."""
    return game if game.share >= 0.5 else Outcome(game.second, game.first, 1 - game.share, game.weight)
