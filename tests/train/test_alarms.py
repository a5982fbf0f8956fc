"""Each alarm is raised when it should, once, with a message, and not in a healthy run."""

from collections.abc import Sequence

import pytest

from datagen_train.run.alarms import WINDOW, Alarms

WELL = {
    "kl": 1.0, "kl_error": 0.1, "entropy": 1.0, "ended": 0.9, "response_length": 20.0, "length_correlation": 0.1,
    "kl_token": 0.05, "fluency": -1.0, "repetition": 0.05, "sampler_gap": 0.0,
}  # fmt: skip


def alarms_of_iterations(*changes: dict[str, float], target: float | None = None) -> list[str]:
    """Return the alarms of healthy iterations followed by some of each change."""
    alarms, messages = Alarms(target), []
    for change in ({}, *changes):
        for step in range(3 * WINDOW):
            messages += alarms.iteration(step, {**WELL, **change})
    return messages


def test_a_run_that_is_well_is_silent() -> None:
    assert alarms_of_iterations({"kl": 3.0, "entropy": 0.5, "response_length": 30.0, "fluency": -0.2}) == []


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("negative KL", {"kl": -0.5}),
        ("KL per token", {"kl_token": 0.8}),
        ("fluency", {"fluency": -1.8}),
        ("repetition", {"repetition": 0.3}),
        ("entropy", {"entropy": 0.05}),
        ("no end", {"ended": 0.3}),
        ("length", {"response_length": 30.0, "length_correlation": 0.8}),
        ("sampler", {"sampler_gap": 0.2}),
    ],
)
def test_an_alarm_is_reported_once(name: str, change: dict[str, float]) -> None:
    (message,) = alarms_of_iterations(change, change)
    assert message.startswith(f"ALARM {name}, step ")


@pytest.mark.parametrize(
    "change",
    [
        {"kl": -0.1, "kl_error": 0.1},  # within chance
        {"response_length": 30.0},  # longer, but not rewarded for it
        {"length_correlation": 0.8},  # rewarded, but not longer
        {"ended": 0.5},
        {"sampler_gap": 0.05},  # rounding
        {"kl": 16.0},  # of long answers; there is no target
        {"kl_token": 0.7},
        {"fluency": -1.6},
        {"repetition": 0.2},
    ],
)
def test_what_may_be_chance_or_harmless_is_no_alarm(change: dict[str, float]) -> None:
    assert alarms_of_iterations(change) == []


def test_a_target_sets_the_bound_of_kl() -> None:
    assert [text.split(",")[0] for text in alarms_of_iterations({"kl": 5.0}, target=2.0)] == ["ALARM KL too large"]
    assert alarms_of_iterations({"kl": 5.0}, target=6.0) == []


def test_a_short_answer_far_from_the_reference_is_an_alarm_with_a_target_as_well() -> None:
    """2.4 nats are few for an answer and many for its two tokens."""
    change = {"kl": 2.4, "kl_token": 1.2, "response_length": 2.0}
    assert [text.split(",")[0] for text in alarms_of_iterations(change, target=6.0)] == ["ALARM KL per token"]


def test_fluency_and_repetition_are_compared_with_the_first_iteration() -> None:
    """The policy may be lost before five iterations are over."""
    alarms = Alarms()
    lost = {**WELL, "fluency": -4.0, "repetition": 0.6}
    messages = [text for step in range(WINDOW + 1) for text in alarms.iteration(step, lost if step else WELL)]
    assert [text.split(",")[0] for text in messages] == ["ALARM fluency", "ALARM repetition"]


def test_a_rule_is_applied_where_its_metrics_are_measured() -> None:
    """GRPO without a reference measures no KL and no fluency; with --mask-cut an iteration may have none."""
    alarms, measured = Alarms(), {"repetition": 0.05, "ended": 0.9}
    for step in range(2 * WINDOW):
        assert alarms.iteration(step, measured | ({"fluency": -1.0} if step % 2 else {})) == []
    messages = [text for step in range(WINDOW) for text in alarms.iteration(step, {"repetition": 0.6, "ended": 0.9})]
    assert [text.split(",")[0] for text in messages] == ["ALARM repetition"]


def alarms_of_measurements(pairs: Sequence[tuple[float, float]]) -> list[str]:
    """Return the alarms of a sequence of measurements (reward, exact match)."""
    alarms = Alarms()
    return [
        text
        for step, (reward, match) in enumerate(pairs)
        for text in alarms.measurement(step, {"eval_reward": reward, "eval_exact_match": match})
    ]


def test_over_optimisation_is_a_reward_that_rises_while_exact_match_falls() -> None:
    """As with a classifier that preferred wrong answers: reward 0.93 to 2.90, exact match 0.31 to 0.065."""
    (message,) = alarms_of_measurements([(0.93, 0.31), (1.5, 0.2), (2.9, 0.065)])
    assert message.startswith("ALARM over-optimisation, step 1")
    assert "0.310 to 0.200" in message
    assert alarms_of_measurements([(0.93, 0.31), (0.5, 0.2)]) == [], (
        "both fall: it does not learn, but exploits nothing"
    )
    assert alarms_of_measurements([(0.5, 0.3), (0.9, 0.6), (1.0, 0.58)]) == [], "a wobble"


def test_alarms_survive_a_checkpoint() -> None:
    alarms = Alarms(2.0)
    for step in range(3 * WINDOW):
        alarms.iteration(step, {**WELL, "kl": 5.0})
    again = Alarms.from_dict(alarms.as_dict())
    assert again == alarms
    assert again.iteration(99, {**WELL, "kl": 5.0}) == [], "already raised before the interruption"
