"""A run that learns its rows by heart says so, with the step of the best, and no other run does."""

import json
from pathlib import Path
from typing import Any

import pytest

from datagen_train import sft
from datagen_train.run.overfitting import RISES, first_alarm
from tests.train.runs import Notes, train
from tests.train.tasks import biased, problems, write_rows, write_sft


def course(held_out: list[float], trained: list[float], matches: list[float] | None = None) -> list[dict[str, Any]]:
    """Return the lines of a metrics file, with a measurement every ten steps and a log before each."""
    lines: list[dict[str, Any]] = []
    for i, value in enumerate(held_out):
        lines += [{"step": 10 * i, "loss": trained[i]}] if i else []
        lines += [{"step": 10 * i, "eval_loss": value}]
        lines += [{"step": 10 * i, "eval_exact_match": matches[i]}] if matches else []
    return lines


FALLING = [9.0, 4.0, 3.0, 2.0, 1.0, 0.5, 0.2]
OVERFITTED = [3.0, 2.0, 1.0, 1.1, 1.2, 1.3, 1.4]


def test_the_alarm_names_the_step_of_the_best_and_comes_as_soon_as_it_is_certain() -> None:
    alarm = first_alarm(course(OVERFITTED, FALLING))
    assert alarm is not None and alarm.step == 10 * (2 + RISES)
    assert "from 1 at step 20 to 1.3" in alarm.text
    assert "the training loss fell from 3 to 0.5" in alarm.text


def test_a_dip_on_the_way_up_delays_the_alarm_and_no_more() -> None:
    alarm = first_alarm(course([3.0, 1.0, 1.2, 1.1, 1.3, 1.4, 1.5], FALLING))
    assert alarm is not None and alarm.step == 60
    assert "from 1 at step 10 to 1.5" in alarm.text


NO_ALARM = {
    "it still falls": ([3.0, 2.0, 1.0, 0.9, 0.8, 0.7, 0.6], FALLING, None),
    "it rises once": ([3.0, 2.0, 1.0, 1.1, 1.0, 1.1, 1.0], FALLING, None),
    "the start was the best": ([0.5, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5], FALLING, None),
    "the training loss rises, too": (OVERFITTED, [9.0, 4.0, 3.0, 4.0, 5.0, 6.0, 7.0], None),
    "the answers get better": (OVERFITTED, FALLING, [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]),
    "too early": (OVERFITTED[: 2 + RISES], FALLING, None),
}


@pytest.mark.parametrize("name", NO_ALARM)
def test_another_course_is_no_alarm(name: str) -> None:
    assert first_alarm(course(*NO_ALARM[name])) is None


def test_answers_that_get_no_better_are_no_excuse() -> None:
    assert first_alarm(course(OVERFITTED, FALLING, [0.0, 0.1, 0.2, 0.2, 0.1, 0.1, 0.1])) is not None


def memorise(base: str, model: str) -> tuple[dict[str, Any], Notes]:
    """Train on eight sums with wrong answers, and measure on right ones."""
    write_sft(Path("wrong.jsonl"), biased(problems(0)[:8], 1, share=1.0))
    write_rows("right.jsonl", ({"prompt": p, "response": str(a)} for p, a in problems(0)[100:130]))
    notes = Notes()
    options: dict[str, Any] = {"eval_data": "right.jsonl", "steps": 30, "batch_size": 8, "eval_every": 3}
    return train(sft, "wrong.jsonl", None, notes, model=model or base, output="out", log_every=1, **options), notes


def test_a_run_that_learns_by_heart_says_so_everywhere(base: str) -> None:
    result, notes = memorise(base, base)
    (live,) = [text for text in notes.messages if text.startswith("ALARM overfitting, step ")]
    kept = result["alarms"]["overfitting"]
    assert live == f"ALARM overfitting, {kept}."
    assert f"at step {result['best_step']} to" in kept
    assert kept.partition(": ")[2] in Path("out/README.md").read_text()
    lines = [json.loads(line) for line in Path("out/run/metrics.jsonl").read_text().splitlines()]
    assert f"step {first_alarm(lines).step}: " in kept  # type: ignore[union-attr]


@pytest.mark.slow
def test_a_toy_made_from_nothing_raises_no_alarm() -> None:
    """Its held-out loss is least when it knows only the form of the answers."""
    result, notes = memorise("", "tiny")
    assert "alarms" not in result
    assert not [text for text in notes.messages if text.startswith("ALARM")]
