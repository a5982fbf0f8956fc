"""How the procedural teacher plays the Game of 24 and does the other tasks of tree search.

In the Game of 24 it has two abilities, and every strategy uses the same two: it makes legal steps at random, and it
sees whether 24 can still be reached, rightly as often as its skill says. In a chain of thought it considers a few steps
and takes the first that looks good to it. Asked for proposals or for values, it uses one of the two, once per request.
"""

import re
from fractions import Fraction
from functools import cache
from itertools import permutations
from typing import NamedTuple

from datagen.llm.sim import Fields, Handler, SimRandom
from datagen.llm.sim.answer import answer

GOAL = Fraction(24)
CONSIDERED = 3
"""Steps that it considers before it takes one, in a chain of thought."""
PUZZLE = re.compile(r"(?:24|twenty-four)\D{0,80}?((?:\d{1,2}[ ,]+(?:and )?){3}\d{1,2})\b", re.IGNORECASE)


class Term(NamedTuple):
    """A number, and the expression that it came from."""

    value: Fraction
    text: str


Hand = tuple[Term, ...]
"""The numbers that are left."""


class Move(NamedTuple):
    """A step as it is written, and the hand after it."""

    text: str
    left: Hand

    def line(self) -> str:
        return f"{self.text} (left: {' '.join(map(str, numbers(self.left)))})"


@cache
def reachable(values: tuple[Fraction, ...]) -> bool:
    """Check whether the numbers can give 24."""
    if len(values) == 1:
        return values[0] == GOAL
    hand = tuple(Term(value, str(value)) for value in values)
    return any(reachable(numbers(move.left)) for move in moves(hand))


def numbers(hand: Hand) -> tuple[Fraction, ...]:
    """Return the numbers of a hand in order."""
    return tuple(sorted(term.value for term in hand))


def moves(hand: Hand) -> list[Move]:
    """Return every legal step."""
    legal = []
    for first, second in permutations(range(len(hand)), 2):
        a, b = hand[first], hand[second]
        rest = tuple(term for place, term in enumerate(hand) if place not in (first, second))
        results = [("-", a.value - b.value), *([("/", a.value / b.value)] if b.value else [])]
        results += [("+", a.value + b.value), ("*", a.value * b.value)] if first < second else []
        legal += [
            Move(f"{a.value} {sign} {b.value} = {value}", (*rest, Term(value, f"({a.text} {sign} {b.text})")))
            for sign, value in results
        ]
    return legal


def draw_moves(hand: Hand, count: int, rng: SimRandom) -> list[Move]:
    """Draw steps at random, those that give a natural number first."""
    legal = moves(hand)
    rng.shuffle(legal)
    return sorted(legal, key=lambda move: move.left[-1].value < 0 or move.left[-1].value.denominator > 1)[:count]


def looks_good(hand: Hand, rng: SimRandom) -> bool:
    """Check whether 24 can still be reached; right as often as the skill says."""
    return reachable(numbers(hand)) != rng.errs()


def read_puzzle(prompt: str) -> Hand | None:
    """Return the four numbers of the puzzle in a prompt, if there is one."""
    match = PUZZLE.search(prompt)
    return read_hand(re.findall(r"\d+", match[1])) if match else None


def read_hand(texts: list[str]) -> Hand:
    return tuple(Term(Fraction(text), text) for text in texts)


def write_chain(hand: Hand, rng: SimRandom) -> str:
    """Play to the end in one chain of thought."""
    lines = []
    while len(hand) > 1:
        considered = draw_moves(hand, CONSIDERED, rng)
        move = next((move for move in considered if looks_good(move.left, rng)), considered[-1])
        lines.append(move.line())
        hand = move.left
    (last,) = hand
    if last.value == GOAL or rng.errs():
        return "\n".join((*lines, f"Answer: {last.text[1:-1]} = 24"))
    return "\n".join((*lines, "That is not 24, and I see no other way."))


def propose(fields: Fields, rng: SimRandom) -> str:
    """Write legal steps, drawn at random."""
    hand = read_hand(fields["numbers"].split())
    return "\n".join(move.line() for move in draw_moves(hand, int(fields["count"]), rng))


def value(fields: Fields, rng: SimRandom) -> str:
    """Say whether 24 can be reached: sure or impossible. A single number is always judged rightly."""
    hand = read_hand(fields["numbers"].split())
    good = numbers(hand) == (GOAL,) if len(hand) == 1 else looks_good(hand, rng)
    return f"I tried a few ways.\nVerdict: {'sure' if good else 'impossible'}"


def plan(fields: Fields, rng: SimRandom) -> str:
    """Plan a text: a beginning, a middle and an end, in the right order as often as the skill says."""
    parts = ["Begin with the question.", "Then give two reasons.", "End with what follows."]
    if rng.errs():
        rng.shuffle(parts)
    return "\n".join([*parts, f"Keep to {rng.choice(('one example', 'two examples', 'a short scene'))}."])


def vote(fields: Fields, rng: SimRandom) -> str:
    """Vote for a candidate whose parts are in the right order, as often as the skill says."""
    parts = re.split(r"(?:\n\n|^)Candidate (\w{3}):\n<<<\n", fields["candidates"])
    candidates = dict(zip(parts[1::2], parts[2::2], strict=True))
    ordered = [label for label, text in candidates.items() if in_order(text, "Begin with", "Then give", "End with")]
    best = rng.choice(list(candidates)) if rng.errs() or not ordered else ordered[0]
    return f"I weighed them.\nVerdict: {best}"


def in_order(text: str, *phrases: str) -> bool:
    """Return whether a text holds some phrases, one after another."""
    at = 0
    for phrase in phrases:
        at = text.find(phrase, at)
        if at < 0:
            return False
        at += len(phrase)
    return True


HANDLERS: dict[str, Handler] = {
    "tree/propose": propose,
    "tree/value": value,
    "tree/plan": plan,
    "tree/passage": lambda fields, rng: f"{answer(fields, rng)}\n{' '.join(fields['plan'].split())}",
    "tree/vote": vote,
}
"""The names of the templates of `datagen respond --strategy tree`."""
