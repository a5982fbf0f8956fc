"""Did a run learn anything? The model that is kept is compared with the start; a folder with weights is no result.

The rule, in this order:

1. No trained weight differs from the start: nothing was learned.
2. The trainer has a reason of its own, such as a failed --gate: the model is no result.
3. Nothing was held out: it cannot be told.
4. The metric that selects the best checkpoint, for a reward model the accuracy, is better than before the first step,
   by more than noise: learned. At a tie the next one decides: the loss, then exact match. Where a trainer says that it
   measured on too few rows, a metric that is not better is no verdict.
5. All of them tie. If all answers were right before, there was nothing to learn; else nothing was learned.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from datagen.errors import InputError
from datagen_train.models.sharding import local
from datagen_train.options import LABEL_METRICS
from datagen_train.run.metrics import MAX_LABELS, MIN_PER_LABEL

NOISE = 1e-5
"""Change of a metric, relative to its start or 1, below which it is the same: the order of sums in float32."""
CLOSED = f"2 to {MAX_LABELS} different ones, {MIN_PER_LABEL} rows for each on average"
"""When responses are labels."""
HARDLY = 1e-2
"""The same, below which the model was hardly trained."""
DIRECTIONS = {
    "eval_loss": -1,
    "eval_accuracy": 1,
    "eval_exact_match": 1,
    "eval_rouge_l": 1,
    "eval_macro_f1": 1,
    "eval_reward": 1,
}
"""Metrics that decide: 1 if more is better, -1 if less is."""
AT_A_TIE = ("eval_loss", "eval_exact_match")
PERFECT = ("eval_exact_match", "eval_rouge_l", "eval_macro_f1")
"""Metrics that cannot rise above 1."""
INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
Metrics = Mapping[str, float]


@dataclass(frozen=True)
class Outcome:
    """Whether something was learned, and a sentence that says why; None if it cannot be told."""

    learned: bool | None
    sentence: str


@dataclass(frozen=True)
class Course:
    """What a run did, as far as its outcome depends on it."""

    model: str
    """The model that training started from."""
    rate: float
    """Peak learning rate."""
    metric: str | None
    """The metric that decides; None if nothing was held out."""
    start: dict[str, float]
    end: dict[str, float]
    measured: Sequence[float]
    """Values of the metric after the first step and later."""


def check_selection(metric: str | None, start: Metrics) -> None:
    """Raise InputError if the metric that selects the best checkpoint was not measured before the first step."""
    if metric and start and metric not in start:
        name = metric.removeprefix("eval_")
        if name in LABEL_METRICS and "eval_exact_match" in start:
            raise InputError(
                f"--best {name}: the responses of the answered rows are no labels ({CLOSED}); use --best loss"
            )
        raise InputError(f"--best {name}: no held-out row has a response to compare answers with; use --best loss")


def outcome(course: Course, *, changed: bool, failure: str | None = None, doubt: str | None = None) -> Outcome:
    """Apply the rule.

    Args:
        course: the run.
        changed: whether a trained weight differs from the start.
        failure: why the model is no result although it changed; None without a reason.
        doubt: why the measurements alone cannot tell; None without a reason.
    """
    if not changed:
        return Outcome(False, f"nothing was learned: the weights are those of {course.model}. {more(course.rate)}")
    if failure:
        return Outcome(False, failure)
    if course.metric is None:
        return Outcome(None, "The weights changed. Nothing was held out, so nobody knows whether the model got better.")
    return measured_outcome(course, course.metric, doubt)


def measured_outcome(course: Course, metric: str, doubt: str | None) -> Outcome:
    """Apply the rules 4 and 5."""
    verdicts = [(name, direction(name, course.start, course.end)) for name in deciding(course)]
    name, better = next((verdict for verdict in verdicts if verdict[1]), (metric, 0))
    change = f"{name} on held-out rows: {course.start[name]:.6g} before, {course.end[name]:.6g} after"
    if doubt and better <= 0:
        return Outcome(None, f"{change}; {doubt}.")
    if better > 0:
        return Outcome(True, change)
    if not better and any(course.start.get(name) == 1 for name in PERFECT):
        return Outcome(None, f"Every held-out answer was right before training: there was nothing to learn. {change}.")
    return Outcome(False, f"nothing was learned: {change}. {advice(course)}")


def deciding(course: Course) -> Iterator[str]:
    """Yield the metrics that decide, the first one first."""
    names = dict.fromkeys([course.metric or "", *AT_A_TIE])
    return (name for name in names if name in course.start and name in course.end)


def direction(name: str, start: Metrics, end: Metrics) -> int:
    """Return 1 if a metric got better, -1 if it got worse, 0 if the change is noise."""
    change = end[name] - start[name]
    if abs(change) <= NOISE * max(1.0, abs(start[name])):
        return 0
    return DIRECTIONS[name] * (1 if change > 0 else -1)


def advice(course: Course) -> str:
    """Say what to try, from how the metric that decides moved."""
    name = course.metric or ""
    start, sign = course.start[name], DIRECTIONS[name]
    moves = [sign * (value - start) for value in course.measured]
    if all(abs(move) <= HARDLY * max(1.0, abs(start)) for move in moves):
        return f"It hardly moved. {more(course.rate)}"
    if moves[0] < 0 and max(moves) <= 0:
        return f"It got worse at once: lower --learning-rate (it was {course.rate:g}), or train on more rows."
    return "It was better in between, and the last model was kept: use --best, or fewer --steps, or more rows."


def more(rate: float) -> str:
    """Say how to train more."""
    return f"Raise --epochs (or --steps), or --learning-rate (it was {rate:g}), or train on more rows."


def fingerprint(model: Any) -> dict[str, int]:
    """Return a number for each trained parameter, which changes with its values: the sum of their bits as integers."""
    return {name: bits(parameter) for name, parameter in model.named_parameters() if parameter.requires_grad}


def bits(parameter: torch.Tensor) -> int:
    values = local(parameter.detach()).contiguous()
    return int(values.view(INTEGERS[values.element_size()]).sum(dtype=torch.int64))


def has_changed(model: Any, before: Mapping[str, int]) -> bool:
    """Does a parameter differ from what it was when its number was taken?"""
    now = dict(model.named_parameters())
    return any(bits(now[name]) != number for name, number in before.items())
