"""The families of tasks that the procedural teacher can solve: each recognises its tasks by their words.

    arithmetic   Compute 7 * 12 + 5.
    dates        What date is 12 days after 2024-02-20?
    units        How many minutes are 3 hours and 15 minutes?
    lists        Sort these words: pear, fig, plum.
    letters      How often does the letter r stand in strawberry?
    logic        Ann is taller than Ben. Ben is taller than Cora. Who is the tallest?

The Game of 24 (game24.py) and questions over facts (reason.py) are in files of their own.
"""

import re
from collections.abc import Callable
from datetime import date, timedelta
from itertools import pairwise
from random import Random
from typing import NamedTuple

from datagen.llm.sim.answer import compute


class Solved(NamedTuple):
    """A task and its solution."""

    steps: tuple[str, ...]
    answer: str
    wrong: tuple[str, ...]
    """Plausible wrong answers."""


UNITS = {
    "hours": ("minutes", 60), "minutes": ("seconds", 60), "days": ("hours", 24), "weeks": ("days", 7),
    "kilometres": ("metres", 1000), "metres": ("centimetres", 100), "kilograms": ("grams", 1000),
    "dozens": ("pieces", 12),
}  # fmt: skip
WORDS = "amber birch cedar delta ember fjord grove heron inlet juniper kelp lagoon meadow nectar otter pebble".split()
NAMES = "Ann Ben Cora Dan Edith Finn Greta Hugo".split()
DATE = re.compile(r"What date is (\d{1,4}) days (after|before) (\d{4}-\d{2}-\d{2})\?")
UNIT = re.compile(r"How many (\w+) are (\d{1,5}) (\w+)(?: and (\d{1,5}) (\w+))?\?")
SORT = re.compile(r"Sort these words: ([a-z]+(?:, [a-z]+){1,20})\.")
LETTER = re.compile(r"How often does the letter ([a-z]) stand in ([a-z]{1,40})\?")
TALLER = re.compile(r"([A-Z][a-z]+) is taller than ([A-Z][a-z]+)\.")


def solve(prompt: str) -> Solved | None:
    """Solve a task by the first family that recognises it; None if no family does."""
    return next((solved for solve_task in FAMILIES.values() if (solved := solve_task(prompt))), None)


def make_task(family: str, rng: Random) -> str:
    """Write a task of a family."""
    if family == "arithmetic":
        return f"Compute {rng.randint(2, 60)} * {rng.randint(2, 40)} + {rng.randint(1, 90)}."
    if family == "dates":
        start = date(2000, 1, 1) + timedelta(rng.randint(0, 9000))
        return f"What date is {rng.randint(2, 90)} days {rng.choice(('after', 'before'))} {start.isoformat()}?"
    if family == "units":
        large, (small, factor) = rng.choice(sorted(UNITS.items()))
        rest = f" and {rng.randint(1, factor - 1)} {small}" if rng.random() < 0.6 else ""
        return f"How many {small} are {rng.randint(2, 40)} {large}{rest}?"
    if family == "lists":
        return f"Sort these words: {', '.join(rng.sample(WORDS, rng.randint(3, 6)))}."
    if family == "letters":
        word = rng.choice(WORDS)
        return f"How often does the letter {rng.choice(word)} stand in {word}?"
    names = rng.sample(NAMES, rng.randint(3, 5))
    facts = [f"{taller} is taller than {shorter}." for taller, shorter in pairwise(names)]
    rng.shuffle(facts)
    return f"{' '.join(facts)} Who is the tallest?"


def solve_arithmetic(prompt: str) -> Solved | None:
    steps, result = compute(prompt)
    return None if result is None else Solved(tuple(steps), str(result), numbers_near(result))


def numbers_near(value: int) -> tuple[str, ...]:
    """Return wrong numbers: off by a little, off by ten, doubled."""
    return tuple(str(near) for near in (value - 2, value - 1, value + 1, value + 10, 2 * value + 3))


def solve_dates(prompt: str) -> Solved | None:
    match = DATE.search(prompt)
    if not match:
        return None
    try:
        start, days = date.fromisoformat(match[3]), int(match[1]) * (1 if match[2] == "after" else -1)
        end = start + timedelta(days)
        wrong = tuple((end + timedelta(offset)).isoformat() for offset in (-1, 1, 30, -30))
    except (ValueError, OverflowError):
        return None
    steps = (f"{match[1]} days {match[2]} {match[3]}.", f"The month of {start:%m} is left behind, as far as need be.")
    return Solved(steps, end.isoformat(), wrong)


def solve_units(prompt: str) -> Solved | None:
    match = UNIT.search(prompt)
    if not match or match[3] not in UNITS:
        return None
    small, factor = UNITS[match[3]]
    if match[1] != small or match[5] not in (None, small):
        return None
    product, rest = int(match[2]) * factor, int(match[4] or 0)
    steps = [f"{match[2]} * {factor} = {product}"] + ([f"{product} + {rest} = {product + rest}"] if rest else [])
    return Solved(tuple(steps), str(product + rest), numbers_near(product + rest))


def solve_lists(prompt: str) -> Solved | None:
    match = SORT.search(prompt)
    if not match:
        return None
    words = match[1].split(", ")
    ordered = sorted(words)
    others = (words[::-1], words[1:] + words[:1], sorted(words, key=len), ordered[::-1])
    wrong = tuple(", ".join(order) for order in others if order != ordered) or ("none",)
    steps = tuple(f"{word} is number {place}." for place, word in enumerate(ordered, 1))
    return Solved(steps, ", ".join(ordered), wrong)


def solve_letters(prompt: str) -> Solved | None:
    match = LETTER.search(prompt)
    if not match:
        return None
    letter, word = match[1], match[2]
    steps = tuple(f"{letter} at place {place}." for place, other in enumerate(word, 1) if other == letter)
    return Solved(steps, str(word.count(letter)), numbers_near(word.count(letter)))


def solve_logic(prompt: str) -> Solved | None:
    pairs = TALLER.findall(prompt)
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    tallest = [name for name in names if all(name != shorter for _, shorter in pairs)]
    if "Who is the tallest?" not in prompt or len(names) < 2 or len(tallest) != 1:
        return None
    steps = tuple(f"{shorter} is not the tallest, since {taller} is taller." for taller, shorter in pairs)
    return Solved(steps, tallest[0], tuple(name for name in names if name != tallest[0]))


FAMILIES: dict[str, Callable[[str], Solved | None]] = {
    "arithmetic": solve_arithmetic,
    "dates": solve_dates,
    "units": solve_units,
    "lists": solve_lists,
    "letters": solve_letters,
    "logic": solve_logic,
}
"""Family to the function that solves its tasks; None for a prompt of another kind."""
