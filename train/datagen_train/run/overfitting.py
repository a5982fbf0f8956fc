"""The alarm of a run that learns its rows by heart: its held-out loss rises while its training loss falls.

It is read from the metrics file alone, so a resumed run says the same as an undisturbed one. Two cases are none: a toy
made from nothing, whose held-out loss is least when it knows only the form of the answers; and answers that got better
while the loss rose, which is a model that is too sure, not one that knows less.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from datagen_train.run.folder import RunFolder

NAME = "overfitting"
RISES = 3
"""Measurements in a row, each above the one before, from which it is no chance."""
LOSS, ANSWERS = "eval_loss", "eval_exact_match"
Line = dict[str, Any]


class Alarm(NamedTuple):
    """What happened, and at which step it was certain."""

    step: int
    text: str


def overfitting(folder: RunFolder) -> Alarm | None:
    """Return the first alarm of a run so far; None without one."""
    config = folder.read_config() or {}
    if str(config.get("model")).partition(":")[0] == "tiny":
        return None
    return first_alarm(folder.read_metrics())


def first_alarm(lines: Sequence[Line]) -> Alarm | None:
    """Return the first alarm in the lines of a metrics file, which are in the order of their steps."""
    measured = [line for line in lines if LOSS in line]
    for end in range(RISES + 1, len(measured) + 1):
        if not all(two[LOSS] > one[LOSS] for one, two in pairwise(measured[end - RISES - 1 : end])):
            continue
        best, now = min(measured[:end], key=lambda line: float(line[LOSS])), measured[end - 1]
        trained = losses_around(lines, best["step"], now["step"])
        if trained and trained[1] < trained[0] and not answers_improved(lines, best["step"], now["step"]):
            return Alarm(now["step"], describe(best, now, trained))
    return None


def losses_around(lines: Sequence[Line], best: int, now: int) -> tuple[float, float] | None:
    """Return the training loss when the held-out loss was best, and now; None if there is none of both times."""
    logged = [(line["step"], line["loss"]) for line in lines if "loss" in line and line["step"] <= now]
    before = [loss for step, loss in logged if step <= best]
    after = [loss for step, loss in logged if step > best]
    return (before[-1], after[-1]) if before and after else None


def answers_improved(lines: Sequence[Line], best: int, now: int) -> bool:
    """Are more held-out prompts answered right now than when the held-out loss was best?"""
    matches = {line["step"]: line[ANSWERS] for line in lines if ANSWERS in line}
    return best in matches and now in matches and bool(matches[now] > matches[best])


def describe(best: Line, now: Line, trained: tuple[float, float]) -> str:
    return (
        f"the held-out loss rose {RISES} times in a row, from {best[LOSS]:.4g} at step {best['step']} to "
        f"{now[LOSS]:.4g}, while the training loss fell from {trained[0]:.4g} to {trained[1]:.4g}: the model learns "
        f"its rows by heart. Step {best['step']} was the best; --best loss keeps it. Train for fewer steps, on more "
        "rows, or with --patience"
    )


def message(folder: RunFolder, step: int) -> str | None:
    """Return what to print after the measurement of a step; None if there is nothing new."""
    alarm = overfitting(folder)
    return f"ALARM {NAME}, step {step}: {alarm.text}." if alarm and alarm.step == step else None


def with_alarm(conclusion: dict[str, Any], folder: RunFolder) -> dict[str, Any]:
    """Add the alarm of a run, if there is one, to what its trainer concludes: for the report and the card."""
    alarm = overfitting(folder)
    if alarm is None:
        return conclusion
    alarms = conclusion.get("alarms", {}) | {NAME: f"step {alarm.step}: {alarm.text}"}
    about = [*conclusion.get("about", []), f"Overfitting, step {alarm.step}: {alarm.text}."]
    return conclusion | {"alarms": alarms, "about": about}
