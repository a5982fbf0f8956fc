"""How the procedural teacher plays the Game of 24.

It has two abilities, and every strategy calls on the same two: it makes legal steps at random, and it sees whether 24
can still be reached, rightly as often as its skill says. In a chain of thought it looks at a few steps and takes the
first that looks good to it; asked for proposals or for values it does one of the two, as often as it is asked.
"""

import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import cache
from itertools import permutations
from typing import NamedTuple

from datagen.llm.sim.chance import Chance

GOAL = Fraction(24)
LOOKS = 3
"""Steps that it looks at before it takes one, in a chain of thought."""
PUZZLE = re.compile(r"(?:24|twenty-four)\D{0,80}?((?:\d{1,2}[ ,]+(?:and )?){3}\d{1,2})\b", re.IGNORECASE)


class Made(NamedTuple):
    """A number, and the expression that it came from."""

    value: Fraction
    text: str


Hand = tuple[Made, ...]


class Move(NamedTuple):
    """A step: how it is written, and what is left after it."""

    text: str
    left: Hand


@cache
def reachable(values: tuple[Fraction, ...]) -> bool:
    """Say whether 24 can be made of the numbers."""
    if len(values) == 1:
        return values[0] == GOAL
    hand = tuple(Made(value, str(value)) for value in values)
    return any(reachable(numbers(move.left)) for move in moves(hand))


def numbers(hand: Hand) -> tuple[Fraction, ...]:
    return tuple(sorted(each.value for each in hand))


def moves(hand: Hand) -> list[Move]:
    """Return every legal step."""
    found = []
    for first, second in permutations(range(len(hand)), 2):
        a, b = hand[first], hand[second]
        rest = tuple(each for at, each in enumerate(hand) if at not in (first, second))
        results = [("-", a.value - b.value), *([("/", a.value / b.value)] if b.value else [])]
        results += [("+", a.value + b.value), ("*", a.value * b.value)] if first < second else []
        found += [
            Move(f"{a.value} {sign} {b.value} = {value}", (*rest, Made(value, f"({a.text} {sign} {b.text})")))
            for sign, value in results
        ]
    return found


def draw(hand: Hand, count: int, chance: Chance) -> list[Move]:
    """Draw steps; those to a natural number come to mind first."""
    found = moves(hand)
    chance.shuffle(found)
    return sorted(found, key=lambda move: move.left[-1].value < 0 or move.left[-1].value.denominator > 1)[:count]


def looks_good(hand: Hand, chance: Chance) -> bool:
    """See whether 24 can still be reached, rightly as often as the skill says."""
    return reachable(numbers(hand)) != chance.errs()


def puzzle(prompt: str) -> Hand | None:
    """Find the four numbers of a puzzle in a prompt."""
    found = PUZZLE.search(prompt)
    if not found:
        return None
    return tuple(Made(Fraction(number), number) for number in re.findall(r"\d+", found[1]))


def chain(hand: Hand, chance: Chance) -> str:
    """Play to the end in one go."""
    steps = []
    while len(hand) > 1:
        looked = draw(hand, LOOKS, chance)
        move = next((each for each in looked if looks_good(each.left, chance)), looked[-1])
        steps.append(f"{move.text} (left: {shown(move.left)})")
        hand = move.left
    (last,) = hand
    if last.value == GOAL or chance.errs():
        return "\n".join((*steps, f"Answer: {last.text[1:-1]} = 24"))
    return "\n".join((*steps, "That is not 24, and I see no other way."))


def shown(hand: Hand) -> str:
    return " ".join(map(str, numbers(hand)))


def _hand(fields: Mapping[str, str]) -> Hand:
    return tuple(Made(Fraction(number), number) for number in fields["numbers"].split())


def propose(fields: Mapping[str, str], chance: Chance) -> str:
    """Write down legal steps, drawn at random."""
    drawn = draw(_hand(fields), int(fields["count"]), chance)
    return "\n".join(f"{move.text} (left: {shown(move.left)})" for move in drawn)


def value(fields: Mapping[str, str], chance: Chance) -> str:
    """Say whether 24 can be reached: sure or impossible; a number that is left alone is easy to judge."""
    hand = _hand(fields)
    good = numbers(hand) == (GOAL,) if len(hand) == 1 else looks_good(hand, chance)
    return f"I tried a few ways.\nVerdict: {'sure' if good else 'impossible'}"


def plan(fields: Mapping[str, str], chance: Chance) -> str:
    """Plan a text: an opening, a middle and an end, in an order that is good as often as the skill says."""
    parts = ["Begin with the question.", "Then give two reasons.", "End with what follows."]
    if chance.errs():
        chance.shuffle(parts)
    return "\n".join([*parts, f"Keep to {chance.choice(('one example', 'two examples', 'a short scene'))}."])


def passage(fields: Mapping[str, str], chance: Chance) -> str:
    from datagen.llm.sim.arithmetic import answer

    return f"{answer(fields, chance)}\n{' '.join(fields['plan'].split())}"


def vote(fields: Mapping[str, str], chance: Chance) -> str:
    """Vote for a candidate that keeps to a good order, if the skill lets it see that."""
    parts = re.split(r"(?:\n\n|^)Candidate (\w{3}):\n<<<\n", fields["candidates"])
    shown_ = dict(zip(parts[1::2], parts[2::2], strict=True))
    ordered = [label for label, text in shown_.items() if re.search("Begin with.*Then give.*End with", text, re.DOTALL)]
    best = chance.choice(list(shown_)) if chance.errs() or not ordered else ordered[0]
    return f"I weighed them.\nVerdict: {best}"


ACTS: dict[str, Callable[[Mapping[str, str], Chance], str]] = {
    "tree/propose": propose,
    "tree/value": value,
    "tree/plan": plan,
    "tree/passage": passage,
    "tree/vote": vote,
}
