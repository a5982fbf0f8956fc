"""The arithmetic of PPO, compared with plain loops over the formulas in double precision."""

import math
from statistics import fmean, pvariance

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datagen_train.ppo import (
    KlController,
    explained_variance,
    gae,
    k1,
    k3,
    masked_mean,
    policy_terms,
    token_rewards,
    value_terms,
    whiten,
)
from datagen_train.rewards.specs import RunningStd
from datagen_train.run.alarms import WINDOW, Alarms

NUMBER = st.floats(-3, 3, width=32)
ANSWERS = st.lists(st.lists(st.tuples(NUMBER, NUMBER, NUMBER), min_size=0, max_size=5), min_size=1, max_size=4)
"""Per answer, per token: (a reward or advantage, a value or log-probability, an older one)."""
Answers = list[list[tuple[float, float, float]]]


def pad_answers(
    answers: Answers, outside: float = math.nan
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pad to one width with values that must never be read; return (mask, and the three numbers of each token)."""
    width = max(map(len, answers)) + 1
    padded = torch.full((len(answers), width, 3), outside, dtype=torch.float64)
    mask = torch.zeros(len(answers), width, dtype=torch.bool)
    for i, answer in enumerate(answers):
        mask[i, : len(answer)] = True
        for t, token in enumerate(answer):
            padded[i, t] = torch.tensor(token)
    return mask, padded[..., 0], padded[..., 1], padded[..., 2]


def valid_values(values: torch.Tensor, mask: torch.Tensor) -> list[float]:
    return [float(value) for value in values[mask]]


def advantages_of(rewards: list[float], values: list[float], gamma: float, lam: float) -> list[float]:
    """Equation (16) of 1506.02438, as the sum over all later tokens."""
    surprises = [r + gamma * v_next - v for r, v, v_next in zip(rewards, values, [*values, 0.0][1:], strict=True)]
    return [sum((gamma * lam) ** k * s for k, s in enumerate(surprises[t:])) for t in range(len(rewards))]


@given(ANSWERS, st.floats(0, 1), st.floats(0, 1))
def test_advantages_and_returns_are_those_of_the_definition_over_the_answers_tokens_alone(
    answers: Answers, gamma: float, lam: float
) -> None:
    mask, rewards, values, _ = pad_answers(answers)
    advantages, returns = gae(rewards, values, mask, gamma, lam)
    for i, answer in enumerate(answers):
        answer_rewards, expected = [token[0] for token in answer], [token[1] for token in answer]
        due = advantages_of(answer_rewards, expected, gamma, lam)
        assert advantages[i, : len(answer)].tolist() == pytest.approx(due, abs=1e-9)
        gained = [a + v for a, v in zip(due, expected, strict=True)]
        assert returns[i, : len(answer)].tolist() == pytest.approx(gained, abs=1e-9)
    assert not advantages[~mask].any()
    assert not returns[~mask].any()


@given(ANSWERS, st.floats(0, 2))
def test_the_score_stands_at_the_last_token_and_the_penalty_at_every_one(answers: Answers, coef: float) -> None:
    mask, kl, _, _ = pad_answers(answers)
    scores = torch.arange(1, len(answers) + 1, dtype=torch.float64)
    rewards = token_rewards(scores, kl, mask, coef)
    for i, answer in enumerate(answers):
        due = [-coef * token[0] for token in answer]
        if due:
            due[-1] += i + 1
        assert rewards[i, : len(answer)].tolist() == pytest.approx(due, abs=1e-9)
    assert not rewards[~mask].any()


@given(ANSWERS)
def test_whitening_is_over_all_tokens_and_rewards_keep_their_mean(answers: Answers) -> None:
    mask, values, _, _ = pad_answers(answers)
    inside = valid_values(values, mask)
    if not inside:
        return
    mean, spread = fmean(inside), math.sqrt(pvariance(inside) + 1e-8)
    assert valid_values(whiten(values, mask), mask) == pytest.approx([(v - mean) / spread for v in inside], abs=1e-6)
    kept = [(v - mean) / spread + mean for v in inside]
    assert valid_values(whiten(values, mask, shift=False), mask) == pytest.approx(kept, abs=1e-6)


def test_whitening_is_over_all_processes() -> None:
    """Two processes that add their sums give the result of one process with all the data."""
    values, mask = torch.randn(4, 3, dtype=torch.float64), torch.ones(4, 3, dtype=torch.bool)
    parts = [values[:1], values[1:]]
    mean = values.mean()
    moments = torch.stack([values.sum(), torch.tensor(12.0, dtype=torch.float64)])
    squares = ((values - mean) ** 2).sum()
    parts_whitened = [whiten(p, torch.ones_like(p).bool(), lambda s: moments if s.ndim else squares) for p in parts]
    assert torch.allclose(torch.cat(parts_whitened), whiten(values, mask))


@given(ANSWERS, st.floats(0.05, 0.5))
def test_policy_and_value_losses_are_those_of_the_papers(answers: Answers, clip: float) -> None:
    mask, advantages, new, old = pad_answers(answers)
    terms, (errors, _) = policy_terms(new, old, advantages, clip), value_terms(new, old, advantages, clip)
    for i, t in mask.nonzero().tolist():
        advantage, now, before = answers[i][t]
        ratio = math.exp(now - before)
        kept = min(max(ratio, 1 - clip), 1 + clip)
        assert float(terms.loss[i, t]) == pytest.approx(-min(advantage * ratio, advantage * kept), abs=1e-6)
        assert float(terms.ratio[i, t]) == pytest.approx(ratio)
        assert float(terms.approx_kl[i, t]) == pytest.approx(ratio - 1 - math.log(ratio), abs=1e-6)
        assert bool(terms.clipped[i, t]) == (advantage * kept < advantage * ratio)
        moved = before + min(max(now - before, -clip), clip)
        due = 0.5 * max((now - advantage) ** 2, (moved - advantage) ** 2)
        assert float(errors[i, t]) == pytest.approx(due, abs=1e-6)


@given(ANSWERS)
@settings(max_examples=30)
def test_what_stands_outside_an_answer_is_never_read(answers: Answers) -> None:
    (mask, first, second, _), (_, clean, other, _) = pad_answers(answers), pad_answers(answers, 0.0)
    assert torch.equal(masked_mean(first, mask), masked_mean(clean, mask))
    assert explained_variance(first, second, mask) == explained_variance(clean, other, mask)


def test_both_estimates_of_kl_have_the_mean_that_is_due() -> None:
    """Over draws from one distribution: k1 may be negative, k3 is not, and both estimate the same."""
    logits = torch.randn(2, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    policy, reference = logits.log_softmax(-1)
    shares = policy.exp()
    due = float((shares * (policy - reference)).sum())
    assert float((shares * k1(policy, reference)).sum()) == pytest.approx(due)
    assert float((shares * k3(policy, reference)).sum()) == pytest.approx(due, rel=1e-6)
    assert (k1(policy, reference) < 0).any()
    assert (k3(policy, reference) >= 0).all()


def test_the_coefficient_rises_with_too_much_kl_by_a_bounded_step() -> None:
    control = KlController(0.15, target=6.0, horizon=1000)
    control.update(600.0, 100)
    assert control.coef == pytest.approx(0.15 * (1 + 0.2 * 100 / 1000))
    control.update(5.4, 100)
    assert control.coef == pytest.approx(0.15 * 1.02 * (1 - 0.1 * 0.1))
    fixed = KlController(0.05)
    fixed.update(600.0, 100)
    assert fixed.coef == 0.05


@given(st.lists(st.integers(-100, 100), min_size=1, max_size=20))
def test_the_spread_of_rewards_is_that_of_all_so_far_and_1_where_there_is_none(values: list[int]) -> None:
    spread = RunningStd()
    for value in values:
        std = spread.update([float(value)])
    assert std == pytest.approx(math.sqrt(pvariance(values)) or 1.0)


HEALTHY = {
    "kl": 1.0, "kl_error": 0.1, "entropy": 1.0, "ended": 1.0, "response_length": 10.0, "length_correlation": 0.0,
    "kl_token": 0.1, "fluency": -1.0, "repetition": 0.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "later"),
    [
        ("negative KL", {"kl": -0.5}),
        ("KL per token", {"kl": 8.0, "kl_token": 0.8}),
        ("entropy", {"entropy": 0.05}),
        ("no end", {"ended": 0.3}),
        ("length", {"length_correlation": 0.8, "response_length": 14.0}),
    ],
)
def test_an_alarm_is_reported_once_where_it_is_due_and_nowhere_else(name: str, later: dict[str, float]) -> None:
    alarms = Alarms()
    assert [text for step in range(WINDOW * 2) for text in alarms.iteration(step, HEALTHY)] == []
    messages = [text for step in range(WINDOW * 2) for text in alarms.iteration(step, HEALTHY | later)]
    assert len(messages) == 1
    assert messages[0].startswith(f"ALARM {name}, step ")
    assert list(alarms.raised) == [name]


def test_a_reward_that_rises_while_exact_match_falls_is_an_alarm() -> None:
    alarms = Alarms()
    assert alarms.measurement(0, {"eval_exact_match": 0.5, "eval_reward": 0.0}) == []
    assert alarms.measurement(10, {"eval_exact_match": 0.3, "eval_reward": -1.0}) == [], "the reward fell as well"
    (text,) = alarms.measurement(20, {"eval_exact_match": 0.3, "eval_reward": 2.0})
    assert "exploits the reward" in text
    assert alarms.measurement(30, {"eval_exact_match": 0.2, "eval_reward": 3.0}) == []
