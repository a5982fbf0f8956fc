"""The families of tasks that the procedural teacher can solve: each finds its own tasks by their words.

    arithmetic   Compute 7 * 12 + 5.
    dates        What date is 12 days after 2024-02-20?
    units        How many minutes are 3 hours and 15 minutes?
    lists        Sort these words: pear, fig, plum.
    letters      How often does the letter r stand in strawberry?
    logic        Ann is taller than Ben. Ben is taller than Cora. Who is the tallest?

The Game of 24 and questions over facts have files of their own (game24.py, facts.py).
"""

import re
from collections.abc import Callable
from datetime import date, timedelta
from itertools import pairwise
from random import Random
from typing import NamedTuple

from datagen.llm.sim import arithmetic


class Solved(NamedTuple):
    """A task worked out."""

    steps: tuple[str, ...]
    answer: str
    wrong: tuple[str, ...]
    """Answers that one could come to by mistake."""


class Family(NamedTuple):
    """Tasks of one kind."""

    solve: Callable[[str], Solved | None]
    make: Callable[[Random], str]
    """Thinks up a task."""


UNITS = {
    "hours": ("minutes", 60), "minutes": ("seconds", 60), "days": ("hours", 24), "weeks": ("days", 7),
    "kilometres": ("metres", 1000), "metres": ("centimetres", 100), "kilograms": ("grams", 1000),
    "dozens": ("pieces", 12),
}  # fmt: skip
WORDS = "amber birch cedar delta ember fjord grove heron inlet juniper kelp lagoon meadow nectar otter pebble".split()
NAMES = "Ann Ben Cora Dan Edith Finn Greta Hugo".split()
ISO = r"(\d{4}-\d{2}-\d{2})"
AFTER = re.compile(rf"What date is (\d{{1,4}}) days (after|before) {ISO}\?")
UNIT = re.compile(r"How many (\w+) are (\d{1,5}) (\w+)(?: and (\d{1,5}) (\w+))?\?")
SORT = re.compile(r"Sort these words: ([a-z]+(?:, [a-z]+){1,20})\.")
LETTER = re.compile(r"How often does the letter ([a-z]) stand in ([a-z]{1,40})\?")
TALLER = re.compile(r"([A-Z][a-z]+) is taller than ([A-Z][a-z]+)\.")


def numbers_near(value: int) -> tuple[str, ...]:
    """Return wrong numbers: off by a little, by ten, doubled."""
    return tuple(str(near) for near in (value - 2, value - 1, value + 1, value + 10, 2 * value + 3))


def solve_arithmetic(prompt: str) -> Solved | None:
    steps, result = arithmetic.solve(prompt)
    return None if result is None else Solved(tuple(steps), str(result), numbers_near(result))


def make_arithmetic(random: Random) -> str:
    return f"Compute {random.randint(2, 60)} * {random.randint(2, 40)} + {random.randint(1, 90)}."


def solve_dates(prompt: str) -> Solved | None:
    found = AFTER.search(prompt)
    if not found:
        return None
    try:
        start, days = date.fromisoformat(found[3]), int(found[1]) * (1 if found[2] == "after" else -1)
        end = start + timedelta(days)
        wrong = tuple((end + timedelta(off)).isoformat() for off in (-1, 1, 30, -30))
    except (ValueError, OverflowError):
        return None
    steps = (f"{found[1]} days {found[2]} {found[3]}.", f"The month of {start:%m} is left behind, as far as need be.")
    return Solved(steps, end.isoformat(), wrong)


def make_dates(random: Random) -> str:
    start = date(2000, 1, 1) + timedelta(random.randint(0, 9000))
    return f"What date is {random.randint(2, 90)} days {random.choice(('after', 'before'))} {start.isoformat()}?"


def solve_units(prompt: str) -> Solved | None:
    found = UNIT.search(prompt)
    if not found or found[3] not in UNITS:
        return None
    small, each = UNITS[found[3]]
    if found[1] != small or found[5] not in (None, small):
        return None
    whole, rest = int(found[2]) * each, int(found[4] or 0)
    steps = [f"{found[2]} * {each} = {whole}"] + ([f"{whole} + {rest} = {whole + rest}"] if rest else [])
    return Solved(tuple(steps), str(whole + rest), numbers_near(whole + rest))


def make_units(random: Random) -> str:
    large, (small, each) = random.choice(sorted(UNITS.items()))
    rest = f" and {random.randint(1, each - 1)} {small}" if random.random() < 0.6 else ""
    return f"How many {small} are {random.randint(2, 40)} {large}{rest}?"


def solve_lists(prompt: str) -> Solved | None:
    found = SORT.search(prompt)
    if not found:
        return None
    words = found[1].split(", ")
    ordered = sorted(words)
    others = (words[::-1], words[1:] + words[:1], sorted(words, key=len), ordered[::-1])
    steps = tuple(f"{word} is number {place}." for place, word in enumerate(ordered, 1))
    return Solved(steps, ", ".join(ordered), tuple(", ".join(each) for each in others if each != ordered) or ("none",))


def make_lists(random: Random) -> str:
    return f"Sort these words: {', '.join(random.sample(WORDS, random.randint(3, 6)))}."


def solve_letters(prompt: str) -> Solved | None:
    found = LETTER.search(prompt)
    if not found:
        return None
    count = found[2].count(found[1])
    steps = tuple(f"{found[1]} at place {at}." for at, letter in enumerate(found[2], 1) if letter == found[1])
    return Solved(steps, str(count), numbers_near(count))


def make_letters(random: Random) -> str:
    word = random.choice(WORDS)
    return f"How often does the letter {random.choice(word)} stand in {word}?"


def solve_logic(prompt: str) -> Solved | None:
    told = TALLER.findall(prompt)
    names = list(dict.fromkeys(name for pair in told for name in pair))
    tallest = [name for name in names if all(name != shorter for _, shorter in told)]
    if "Who is the tallest?" not in prompt or len(names) < 2 or len(tallest) != 1:
        return None
    steps = tuple(f"{shorter} is not the tallest, since {taller} is taller." for taller, shorter in told)
    return Solved(steps, tallest[0], tuple(name for name in names if name != tallest[0]))


def make_logic(random: Random) -> str:
    names = random.sample(NAMES, random.randint(3, 5))
    told = [f"{taller} is taller than {shorter}." for taller, shorter in pairwise(names)]
    random.shuffle(told)
    return f"{' '.join(told)} Who is the tallest?"


FAMILIES = {
    "arithmetic": Family(solve_arithmetic, make_arithmetic),
    "dates": Family(solve_dates, make_dates),
    "units": Family(solve_units, make_units),
    "lists": Family(solve_lists, make_lists),
    "letters": Family(solve_letters, make_letters),
    "logic": Family(solve_logic, make_logic),
}


def solve(prompt: str) -> Solved | None:
    """Work a task out, if it is of a family; the first that knows it does."""
    return next((solved for family in FAMILIES.values() if (solved := family.solve(prompt))), None)
