"""The two tasks of Tree of Thoughts: what a state is, how the next ones are made, and when one is the end.

game24    four numbers; a step puts a result in the place of two of them (section 4.1)
text      a plan, then the answer that it is for (section 4.2)
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import permutations
from typing import NamedTuple

from datagen.errors import ParseError
from datagen.verify.expressions import evaluate

NUMBER = r"(-?[\d./]{1,12})"
BULLET = r"^\s{0,9}(?:(?:[-*•>]|\d{1,2}[.)])\s{1,3})?"
STEP = re.compile(rf"{BULLET}{NUMBER} ?([-+*/×÷−]) ?{NUMBER} ?= ?{NUMBER}(?!\S)")
"""`2 + 8 = 10`, at the start of a line, with or without a bullet."""
SIGNS = {"×": "*", "÷": "/", "−": "-"}
GOAL = Fraction(24)
MOST_NUMBERS = 5
"""Of a puzzle: the exact search grows faster than exponentially with them."""
MOST_LINE = 200
"""Characters; a longer line is no step."""


class Term(NamedTuple):
    """A number that is left, and how it came about."""

    value: Fraction
    text: str


@dataclass(frozen=True, slots=True)
class State:
    """Where a search has come to."""

    path: tuple[str, ...]
    """What was done so far, a text for each step."""
    terms: tuple[Term, ...] = ()
    """game24: the numbers left."""

    @property
    def numbers(self) -> str:
        """The numbers left, in order: what a state is judged and told apart by."""
        return " ".join(str(term.value) for term in sorted(self.terms))

    @property
    def key(self) -> str:
        return self.numbers if self.terms else "\n".join(self.path)


def start_game(numbers: Sequence[Fraction]) -> State:
    return State((), tuple(Term(number, str(number)) for number in numbers))


def next_states(state: State, reply: str) -> tuple[list[State], int]:
    """Return the legal next states that a reply proposes, each once, and how many of its lines are no legal step."""
    found = [play(state, line) for line in reply.splitlines() if line.strip()]
    legal: dict[str, State] = {}
    for made in found:
        if made is not None:
            legal.setdefault(made.key, made)
    return list(legal.values()), found.count(None)


def play(state: State, line: str) -> State | None:
    """Make the step that a line says, if the two numbers are there and the result is right."""
    match = STEP.match(line) if len(line) <= MOST_LINE else None
    if not match:
        return None
    left, sign, right, result = match.groups()
    sign = SIGNS.get(sign, sign)
    try:
        a, b, made = evaluate(left), evaluate(right), evaluate(result)
        if evaluate(f"({a}){sign}({b})") != made:
            return None
    except ParseError:
        return None
    terms = list(state.terms)
    first = _take(terms, a)
    second = _take(terms, b)
    if first is None or second is None:
        return None
    text = f"({first.text} {sign} {second.text})"
    told = f"{a} {sign} {b} = {made}"
    return State((*state.path, told), (*terms, Term(made, text)))


def _take(terms: list[Term], value: Fraction) -> Term | None:
    """Take a number from those that are left."""
    place = next((at for at, term in enumerate(terms) if term.value == value), None)
    return None if place is None else terms.pop(place)


def answer_of(state: State) -> str:
    """Write the one expression that the path has made of all numbers."""
    (term,) = state.terms
    text = term.text[1:-1] if term.text.startswith("(") else term.text
    return f"{text} = {term.value}"


@cache
def is_solvable(numbers: tuple[Fraction, ...]) -> bool:
    """Say whether 24 can be made of the numbers, each used once: an exact search, small for four."""
    if len(numbers) == 1:
        return numbers[0] == GOAL
    for a, b, *rest in set(permutations(numbers)):
        made = [a + b, a - b, a * b, *([a / b] if b else [])]
        if any(is_solvable(tuple(sorted((*rest, each)))) for each in made):
            return True
    return False


def can_win(state: State) -> bool:
    return is_solvable(tuple(sorted(term.value for term in state.terms)))
