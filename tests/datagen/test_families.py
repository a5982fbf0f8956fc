"""Task families of the procedural teacher: each recognises only its own tasks, and its answers are right."""

import re
from datetime import date, timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.llm.sim.families import FAMILIES, UNITS, make_task, solve
from datagen.verify.equality import same_answer

SEEDS = st.integers(0, 10**9)


@given(SEEDS)
def test_a_task_is_solved_by_its_own_family_alone(seed: int) -> None:
    for name in FAMILIES:
        task = make_task(name, Random(seed))
        assert [other for other, solve_task in FAMILIES.items() if solve_task(task)] == [name], task


@given(SEEDS)
def test_no_wrong_answer_is_the_right_one(seed: int) -> None:
    for name in FAMILIES:
        solved = solve(make_task(name, Random(seed)))
        assert solved is not None and solved.wrong
        assert not any(same_answer(wrong, solved.answer) for wrong in solved.wrong), solved


def task_and_answer(name: str, seed: int) -> tuple[str, str]:
    task = make_task(name, Random(seed))
    solved = solve(task)
    assert solved is not None
    return task, solved.answer


@given(SEEDS)
def test_dates_are_those_of_the_calendar(seed: int) -> None:
    task, answer = task_and_answer("dates", seed)
    days, direction, start = re.findall(r"is (\d+) days (\w+) ([\d-]+)", task)[0]
    off = date.fromisoformat(answer) - date.fromisoformat(start)
    assert off == timedelta(int(days)) * (1 if direction == "after" else -1)


@given(SEEDS)
def test_units_are_converted_whole(seed: int) -> None:
    task, answer = task_and_answer("units", seed)
    numbers = list(map(int, re.findall(r"\d+", task)))
    large = min(
        (name for name in UNITS if f"{numbers[0]} {name}" in task), key=lambda name: task.index(f"{numbers[0]} {name}")
    )
    assert int(answer) == numbers[0] * UNITS[large][1] + sum(numbers[1:])


@given(SEEDS)
def test_words_are_sorted_and_letters_counted(seed: int) -> None:
    task, answer = task_and_answer("lists", seed)
    assert answer.split(", ") == sorted(task.removeprefix("Sort these words: ").rstrip(".").split(", "))
    task, answer = task_and_answer("letters", seed)
    letter, word = re.findall(r"letter (\w) stand in (\w+)", task)[0]
    assert int(answer) == len(re.findall(letter, word))


@given(SEEDS)
def test_the_tallest_is_taller_than_everybody(seed: int) -> None:
    task, answer = task_and_answer("logic", seed)
    shorter = {below for _, below in re.findall(r"(\w+) is taller than (\w+)", task)}
    names = set(re.findall(r"\b[A-Z]\w+", task)) - {"Who"}
    assert names - shorter == {answer}


@pytest.mark.parametrize(
    "prompt",
    [
        "What date is 3 days after 2024-02-30?",
        "How many minutes are 3 kilograms?",
        "Sort these words for me.",
        "How often does it rain?",
        "Ann is taller than Ben. Ben is taller than Ann. Who is the tallest?",
        "Write about dates and figs.",
    ],
)
def test_other_prompts_are_solved_by_no_family(prompt: str) -> None:
    assert solve(prompt) is None
