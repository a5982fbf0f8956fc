"""Arithmetic in model text: worked out exactly by a small parser, never by Python; and the Game of 24.

The public RFT and Tree of Thoughts code hands model text to `eval` and to sympy (which evaluates it too).
"""

import re
from fractions import Fraction

from datagen.errors import ParseError
from datagen.verify.answers import final_answer
from datagen.verify.numbers import plain

MAX_LENGTH = 200
"""Characters of an expression."""
MAX_DEPTH = 40
MAX_EXPONENT = 64
MAX_BITS = 4_096
"""Size of a power's result."""
GOAL = 24
MAX_PUZZLE = 10_000
"""Characters at the end of a prompt in which its numbers stand."""

NUMBER = r"[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?(?![0-9])|[0-9]+(?:\.[0-9]+)?|\.[0-9]+"
TOKEN = re.compile(rf"\s*(?:(?P<number>(?:{NUMBER})\.?(?:[eE][-+]?[0-9]{{1,2}})?)|(?P<operator>\*\*|[-+*/^%()]))")
SQUARE = str.maketrans("[]{}", "()()")
TIMES = re.compile(r"(?<=[0-9)%])\s*[xX]\s*(?=[0-9(.$])")
"""The letter x between two numbers."""
PUZZLE = re.compile(r"(?<![\w.])([0-9]{1,4})(?:\s*,\s*(?:and\s+)?|\s+(?:and\s+)?)" * 3 + r"([0-9]{1,4})(?![\w])")


def evaluate(text: str) -> Fraction:
    """Evaluate an expression of numbers, + - * / ^ %, brackets; a percent sign divides by 100.

    Raises:
        ParseError: Anything else: too long, too deep, too large, division by zero, names, calls.
    """
    return _Expression(tokens(text)).value()


def tokens(text: str) -> list[str]:
    """Split an expression into numbers and operators."""
    if len(text) > MAX_LENGTH:
        raise ParseError(f"an expression of more than {MAX_LENGTH} characters")
    text = TIMES.sub("*", plain(text).translate(SQUARE)).rstrip()
    parts, at = [], 0
    while at < len(text):
        match = TOKEN.match(text, at)
        if not match:
            raise ParseError(f"no arithmetic at character {at + 1}")
        parts.append(match["number"] or match["operator"])
        at = match.end()
    return parts


class _Expression:
    """A recursive descent over tokens: sum, product, sign, power, percent, atom."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens, self._at, self._depth = [*tokens, ""], 0, 0

    def value(self) -> Fraction:
        result = self._sum()
        if self._next:
            raise ParseError(f"{self._next!r} does not belong here")
        return result

    @property
    def _next(self) -> str:
        return self._tokens[self._at]

    def _take(self) -> str:
        self._at += 1
        return self._tokens[self._at - 1]

    def _sum(self) -> Fraction:
        result = self._product()
        while self._next in ("+", "-"):
            result = result + self._product() if self._take() == "+" else result - self._product()
        return result

    def _product(self) -> Fraction:
        result = self._signed()
        while self._next in ("*", "/"):
            result = result * self._signed() if self._take() == "*" else _divide(result, self._signed())
        return result

    def _signed(self) -> Fraction:
        """Read a number with its signs, and what it is raised to."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ParseError(f"brackets or signs more than {MAX_DEPTH} deep")
        if self._next in ("+", "-"):
            result = self._signed() if self._take() == "+" else -self._signed()
        else:
            result = self._percent()
            if self._next in ("^", "**"):
                self._take()
                result = _raise(result, self._signed())
        self._depth -= 1
        return result

    def _percent(self) -> Fraction:
        """Read a number or a bracket, and the percent signs after it."""
        result = self._atom()
        while self._next == "%":
            self._take()
            result /= 100
        return result

    def _atom(self) -> Fraction:
        token = self._take()
        if token == "(":
            result = self._sum()
            if self._take() != ")":
                raise ParseError("a bracket is not closed")
            return result
        if not _is_number(token):
            raise ParseError(f"a number is missing before {token!r}" if token else "the expression stops short")
        return _number(token)


def _is_number(token: str) -> bool:
    """Distinguish a number from an operator or the end."""
    return any(character.isdigit() for character in token)


def _number(token: str) -> Fraction:
    mantissa, _, exponent = token.replace(",", "").lower().partition("e")
    return Fraction(mantissa.rstrip(".")) * Fraction(10) ** int(exponent or 0)


def _divide(left: Fraction, right: Fraction) -> Fraction:
    if right == 0:
        raise ParseError("division by zero")
    return left / right


def _raise(base: Fraction, exponent: Fraction) -> Fraction:
    size = max(base.numerator.bit_length(), base.denominator.bit_length()) * abs(exponent)
    if exponent.denominator != 1 or abs(exponent) > MAX_EXPONENT or size > MAX_BITS:
        raise ParseError("a power with a broken or too large exponent")
    if base == 0 and exponent < 0:
        raise ParseError("division by zero")
    return base ** int(exponent)


def puzzle_numbers(text: str) -> list[Fraction]:
    """Return the last four whole numbers in a row of a puzzle: "4 5 6 10", "4, 5, 6 and 10"; [] if there are none."""
    puzzles = PUZZLE.findall(text[-MAX_PUZZLE:])
    return [Fraction(number) for number in puzzles[-1]] if puzzles else []


def game24(numbers: list[Fraction], text: str) -> bool | None:
    """Return whether the proposed expression uses each number exactly once and makes 24; None if none is proposed.

    The proposal is the final answer's left side: "Answer: (10 - 4) * 5 - 6 = 24". Only + - * / and brackets count.
    """
    proposed = final_answer(text)
    if proposed is None:
        return None
    try:
        parts = tokens(proposed.partition("=")[0])
        used = [_number(part) for part in parts if _is_number(part)]
        follows_rules = sorted(used) == sorted(numbers) and not {"^", "**", "%"} & set(parts)
        return follows_rules and _Expression(parts).value() == GOAL
    except ParseError:
        return False
