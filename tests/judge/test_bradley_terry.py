"""Bradley-Terry: strengths from comparisons, also for disconnected groups."""

from itertools import combinations
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from datagen.judges import bradley_terry
from datagen.judges.bradley_terry import PRIOR, Outcome, count_cycles, strengths

GAMES = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 5), st.sampled_from((0.0, 0.5, 1.0))).filter(lambda g: g[0] != g[1]),
    min_size=1,
    max_size=12,
)


def outcomes(pairs: str, times: int = 1) -> list[Outcome]:
    """Read "ab bc": a beats b, b beats c."""
    return [Outcome(ord(pair[0]) - 97, ord(pair[1]) - 97, 1.0) for pair in pairs.split()] * times


def gradient_ascent(count: int, games: list[Outcome], prior: float = PRIOR) -> NDArray[np.float64]:
    """Maximise the same likelihood by gradient ascent."""
    strength: NDArray[np.float64] = np.zeros(count)
    for _ in range(60_000):
        slope = -prior * strength
        for game in games:
            surprise = game.share - 1 / (1 + np.exp(strength[game.second] - strength[game.first]))
            slope[game.first] += surprise
            slope[game.second] -= surprise
        if np.abs(slope).max() < 1e-9:
            break
        strength += slope / (len(games) + prior)
    centred: NDArray[np.float64] = strength - strength.mean()
    return centred


def test_two_wins_for_one_put_three_in_order_and_odds_of_two_come_out_where_the_prior_is_weak() -> None:
    games = [*outcomes("ab bc ac", 2), *outcomes("ba cb ca")]
    strength = strengths(3, games)
    assert strength[0] > strength[1] > strength[2] and abs(strength.sum()) < 1e-9
    two = strengths(2, [*outcomes("ab", 2000), *outcomes("ba", 1000)])
    assert np.exp(two[0] - two[1]) == pytest.approx(2, rel=1e-3)


def test_who_never_met_anybody_is_in_the_middle_and_parts_that_never_met_do_not_diverge() -> None:
    strength = strengths(5, outcomes("ab cd", 50))
    assert np.isfinite(strength).all() and np.abs(strength).max() < 10
    assert strength[0] == pytest.approx(strength[2]) and strength[1] == pytest.approx(strength[3]) and strength[4] == 0
    assert list(strengths(3, [])) == [0, 0, 0] and len(strengths(0, [])) == 0


def test_ties_alone_are_equal_strengths() -> None:
    assert np.abs(strengths(4, [Outcome(i, j, 0.5) for i, j in combinations(range(4), 2)])).max() < 1e-9


@given(GAMES)
def test_it_is_the_maximum_that_small_steps_find(games: list[tuple[int, int, float]]) -> None:
    played = [Outcome(*game) for game in games]
    assert strengths(6, played, 0.5) == pytest.approx(gradient_ascent(6, played, 0.5), abs=1e-5)


@given(GAMES, st.randoms(use_true_random=False))
def test_neither_order_nor_side_of_the_comparisons_matters(games: list[tuple[int, int, float]], dice: Random) -> None:
    played = [Outcome(*game) for game in games]
    turned = [Outcome(g.second, g.first, 1 - g.share) if dice.random() < 0.5 else g for g in played]
    dice.shuffle(turned)
    assert strengths(6, turned) == pytest.approx(strengths(6, played), abs=1e-7)
    assert count_cycles(6, turned) == count_cycles(6, played)


def test_a_weight_is_so_many_comparisons() -> None:
    assert strengths(2, [Outcome(0, 1, 1.0, 3.0)]) == pytest.approx(strengths(2, outcomes("ab", 3)))


def test_a_thousand_take_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    dice, truth = Random(0), np.linspace(-2, 2, 1000)
    games = []
    for _ in range(20_000):
        i, j = dice.sample(range(1000), 2)
        games.append(Outcome(i, j, float(dice.random() < 1 / (1 + np.exp(truth[j] - truth[i])))))
    monkeypatch.setattr(bradley_terry, "MAX_STEPS", 12)  # each of them one system of equations
    few = strengths(1000, games)
    monkeypatch.setattr(bradley_terry, "MAX_STEPS", 13)
    assert np.abs(strengths(1000, games) - few).max() < 1e-6
    assert np.corrcoef(few, truth)[0, 1] > 0.9


@pytest.mark.parametrize(
    ("games", "cycles"), [("ab bc ca", 1), ("ab bc ac", 0), ("ab bc", 0), ("ab bc ca bd dc", 1), ("ab bc ca db cd", 2)]
)
def test_rock_paper_scissors_is_one_cycle(games: str, cycles: int) -> None:
    assert count_cycles(4, outcomes(games)) == cycles


def test_a_tie_closes_no_circle() -> None:
    assert count_cycles(3, [*outcomes("ab bc"), Outcome(2, 0, 0.5)]) == 0


def test_a_full_tournament_has_as_many_cycles_as_the_wins_say() -> None:
    dice = Random(4)
    games = [Outcome(i, j, float(dice.random() < 0.5)) for i, j in combinations(range(8), 2)]
    wins = [sum(g.share if g.first == i else 1 - g.share for g in games if i in g[:2]) for i in range(8)]
    assert count_cycles(8, games) == 56 - sum(w * (w - 1) / 2 for w in wins)
