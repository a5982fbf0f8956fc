"""The two tasks of Tree of Thoughts: what a state is, which states may follow it, and which ones are good ends.

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
MAX_NUMBERS = 5
"""The most numbers of a puzzle: the time of the exact search grows faster than exponentially with them."""
MAX_LINE = 200
"""Characters; a longer line is no step."""


class Term(NamedTuple):
    """A number that is left, and the expression that it is the value of."""

    value: Fraction
    text: str


@dataclass(frozen=True, slots=True)
class State:
    """A partial answer."""

    path: tuple[str, ...]
    """The steps so far."""
    terms: tuple[Term, ...] = ()
    """game24: the numbers left."""

    @property
    def numbers(self) -> str:
        """The numbers left, in order."""
        return " ".join(str(term.value) for term in sorted(self.terms))

    @property
    def key(self) -> str:
        """What identifies a state and is evaluated: states with the same key are the same."""
        return self.numbers if self.terms else "\n".join(self.path)


def start_game(numbers: Sequence[Fraction]) -> State:
    return State((), tuple(Term(number, str(number)) for number in numbers))


def next_states(state: State, reply: str) -> tuple[list[State], int]:
    """Return the legal next states that a reply proposes, each once, and how many of its lines are no legal step."""
    states = [play(state, line) for line in reply.splitlines() if line.strip()]
    legal: dict[str, State] = {}
    for following in states:
        if following is not None:
            legal.setdefault(following.key, following)
    return list(legal.values()), states.count(None)


def play(state: State, line: str) -> State | None:
    """Return the state after the step on a line; None unless its two numbers are left and its result is right."""
    match = STEP.match(line) if len(line) <= MAX_LINE else None
    if not match:
        return None
    left, sign, right, result = match.groups()
    sign = SIGNS.get(sign, sign)
    try:
        a, b, value = evaluate(left), evaluate(right), evaluate(result)
        if evaluate(f"({a}){sign}({b})") != value:
            return None
    except ParseError:
        return None
    terms, operands = list(state.terms), []
    for number in (a, b):
        place = next((at for at, term in enumerate(terms) if term.value == number), None)
        if place is None:
            return None
        operands.append(terms.pop(place).text)
    result_term = Term(value, f"({operands[0]} {sign} {operands[1]})")
    return State((*state.path, f"{a} {sign} {b} = {value}"), (*terms, result_term))


def final_expression(state: State) -> str:
    """Return the expression of all numbers that the path has built, and its value."""
    (term,) = state.terms
    text = term.text[1:-1] if term.text.startswith("(") else term.text
    return f"{text} = {term.value}"


@cache
def is_solvable(numbers: tuple[Fraction, ...]) -> bool:
    """Return whether the numbers, each used once, can make 24: an exact search, fast for four numbers."""
    if len(numbers) == 1:
        return numbers[0] == GOAL
    for a, b, *rest in set(permutations(numbers)):
        results = [a + b, a - b, a * b, *([a / b] if b else [])]
        if any(is_solvable(tuple(sorted((*rest, result)))) for result in results):
            return True
    return False


def can_win(state: State) -> bool:
    return is_solvable(tuple(sorted(term.value for term in state.terms)))
