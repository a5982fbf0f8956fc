"""Arithmetic in the text of a model, evaluated exactly by a small parser, never by `eval`; and the Game of 24.

The public code of RFT and Tree of Thoughts passes such text to `eval`, or to sympy, which calls `eval` too.
"""

import re
from collections.abc import Callable
from fractions import Fraction
from operator import add, mul, sub, truediv

from datagen.errors import ParseError
from datagen.verify.answers import final_answer
from datagen.verify.numbers import normalize_symbols

Token = str | Fraction
"""A number, or an operator or bracket."""
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
SUM, PRODUCT, POWER = 1, 2, 3
PRECEDENCE: dict[Token, int] = {"+": SUM, "-": SUM, "*": PRODUCT, "/": PRODUCT, "^": POWER, "**": POWER}
ARITHMETIC: dict[Token, Callable[[Fraction, Fraction], Fraction]] = {"+": add, "-": sub, "*": mul, "/": truediv}
PUZZLE = re.compile(r"(?<![\w.])([0-9]{1,4})(?:\s*,\s*(?:and\s+)?|\s+(?:and\s+)?)" * 3 + r"([0-9]{1,4})(?![\w])")


def evaluate(expression: str | list[Token]) -> Fraction:
    """Evaluate an expression, or its tokens: numbers, + - * / ^ %, brackets; a percent sign divides by 100.

    Raises:
        ParseError: Anything else: too long, too deep, too large, division by zero, names, calls.
    """
    rest = ["", *reversed(tokens(expression) if isinstance(expression, str) else expression)]
    value = _evaluate(rest, SUM, 1)
    if rest[-1] != "":
        raise ParseError(f"{rest[-1]} does not belong here")
    return value


def tokens(text: str) -> list[Token]:
    """Split an expression into numbers and operators."""
    if len(text) > MAX_LENGTH:
        raise ParseError(f"an expression of more than {MAX_LENGTH} characters")
    text = TIMES.sub("*", normalize_symbols(text).translate(SQUARE)).rstrip()
    parts, at = list[Token](), 0
    while at < len(text):
        match = TOKEN.match(text, at)
        if not match:
            raise ParseError(f"no arithmetic at character {at + 1}")
        if number := match["number"]:
            mantissa, _, exponent = number.replace(",", "").lower().partition("e")
            parts.append(Fraction(mantissa.rstrip(".")) * Fraction(10) ** int(exponent or 0))
        else:
            parts.append(match["operator"])
        at = match.end()
    return parts


def _evaluate(rest: list[Token], weakest: int, depth: int) -> Fraction:
    """Evaluate the expression that comes next, up to an operator that binds less than `weakest` (precedence climbing).

    Args:
        rest: The tokens, the next one last; "" ends the expression. Those that are evaluated are removed.
        weakest: SUM, PRODUCT or POWER.
        depth: 1 for the whole text, and 1 more inside each bracket, sign or power.
    """
    if depth > MAX_DEPTH:
        raise ParseError(f"brackets or signs more than {MAX_DEPTH} deep")

    # 1. The first operand: a number, an expression in brackets, or a sign and what it belongs to (-2^2 is -4).
    token = rest.pop()
    if isinstance(token, Fraction):
        value = token
    elif token == "(":
        value = _evaluate(rest, SUM, depth + 1)
        if rest.pop() != ")":
            raise ParseError("a bracket is not closed")
    elif token in ("+", "-"):
        operand = _evaluate(rest, POWER, depth + 1)
        value = operand if token == "+" else -operand
    else:
        raise ParseError(f"a number is missing before {token!r}" if token else "the expression stops short")
    while rest[-1] == "%":
        rest.pop()
        value /= 100

    # 2. Operators and their right operands, from left to right; a power is the right operand of a power (2^3^2 is 2^9).
    while (precedence := PRECEDENCE.get(rest[-1], 0)) >= weakest:
        operator = rest.pop()
        if precedence == POWER:
            value = _power(value, _evaluate(rest, POWER, depth + 1))
            continue
        right = _evaluate(rest, precedence + 1, depth)
        if operator == "/" and right == 0:
            raise ParseError("division by zero")
        value = ARITHMETIC[operator](value, right)
    return value


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    """Raise a number to a whole power; ParseError for a result of more than MAX_BITS bits."""
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
        used = sorted(part for part in parts if isinstance(part, Fraction))
        signs = {part for part in parts if isinstance(part, str)}
        follows_rules = used == sorted(numbers) and signs <= set("+-*/()")
        return follows_rules and evaluate(parts) == GOAL
    except ParseError:
        return False
