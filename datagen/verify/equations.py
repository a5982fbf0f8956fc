"""The equations that a solution states, and whether they hold (RFT, arXiv 2308.01825, section 3.3).

If a text has calculator notes as in GSM8K, `<<48/2=24>>`, only these are read. Otherwise plain equations are, `48 / 2 =
24 clips`, and chains `a = b = c`. An equation with a variable, a function or converted units is not arithmetic and is
not listed. Departures from the paper's code: no `eval`; percent signs, units, currencies and thousands separators are
accepted; and the verdict on a path without equations is None, not True.
"""

import re
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

from datagen.errors import ParseError
from datagen.verify.expressions import MAX_LENGTH, NUMBER, TIMES, evaluate
from datagen.verify.numbers import ONE_LETTER_UNITS, SCALES, normalize_symbols

TOLERANCE = Fraction(1, 1000)
"""How far apart the sides of a right equation may be (RFT's released code)."""
MAX_TEXT = 100_000
"""Characters; no equations are read from a longer text."""

NOTE = re.compile(r"<<([^<>\n]{1,400})>>")
BULLET = re.compile(r"^\s*(?:[-*+•]|[0-9]{1,3}[.)])\s+")
BOLD = re.compile(r"(?<![0-9)] )(?<![0-9)])\*\*|\*\*(?! ?[-0-9(])|[`_]")
RELATION = re.compile(r"[<>!:]=|=[=>]|[<>≤≥≠≈]")
"""Signs that end an expression as an equals sign does, but state no equation."""
WORDS = r"[^\W\d_]{2,20}(?:[ -][^\W\d_]{2,20})?"
UNIT = re.compile(
    rf"(?<=[0-9%)])\s{{0,3}}(?!(?:of|times|plus|minus|and|or|{'|'.join(SCALES)})\b)({WORDS})"
    r"(?=\s{0,3}(?:[-+*/=)]|[xX]\s?[0-9(]|$))"
)
TIMES_IN_WORDS = re.compile(r"(?<=[0-9%)])\s{0,3}\b(?:of|times)\s+(?=[0-9(.])")
SIDE = rf"[-+(\s]*+(?:{NUMBER})[%)\s]*+(?:(?:\*\*|[-+*/^])[-+(\s]*+(?:{NUMBER})[%)\s]*+)*"
AT_START, AT_END = re.compile(SIDE), re.compile(rf"(?<![0-9.,]){SIDE}$")
CENTS = re.compile(r"[0-9]\s?(?:cents?\b|¢)")
OPERATION = re.compile(r"[0-9)%]\s*[-+*/^]")
WHOLE_BEFORE = re.compile(r"(?:^\s*|[^\W\d_]\s+|[;,.?!。，：；)\"'’”>|]\s*|:\s+|(?<![0-9]):|[\u3400-\u9fff])$")
"""What may stand before a left side; after an operator, a number or a variable it is only part of an expression."""
BY_FRACTION = re.compile(r"/\s+[0-9]+/[0-9]")
"""6 / 1/30: meant as 6 / (1/30), written as 6 / 1 / 30."""
PART_AFTER = re.compile(
    rf"""\s*[-+*/^]\s*[^\W\d_](?![^\W\d_]) | \s*\(\s*[-0-9.] | [(^!] | \s+(?:and\s+)?[0-9]
       | [^=]{{0,60}}\bremainder\b
       | (?![{"".join(sorted(ONE_LETTER_UNITS))}])[a-zA-Z](?![a-zA-Z])""",
    re.VERBOSE,
)
"""What shows that a right side continues: a variable, a factor, the rest of a mixed number."""
SCALE_AFTER = re.compile(rf"\s*(?:{'|'.join(SCALES)}|[万亿千百])", re.IGNORECASE)
CONVERTED = (
    {"second", "minute", "hour", "day", "week", "month", "year"},
    {"cent", "dollar", "penny", "pennies", "quarter", "dime", "nickel"},
    {"inch", "inche", "foot", "feet", "yard", "mile", "meter", "metre", "km", "cm", "mm"},
    {"gram", "kilogram", "kg", "pound", "ounce", "lb", "oz", "ton"},
    {"ml", "liter", "litre", "cup", "pint", "quart", "gallon"},
)
"""Units that a line may convert into each other, in the singular."""


class Equation(NamedTuple):
    """Two sides without spaces, in ASCII."""

    lhs: str
    rhs: str


def equations(text: str) -> list[Equation]:
    """List the equations of a solution in order; a chain a = b = c gives two."""
    if len(text) > MAX_TEXT:
        return []
    if notes := NOTE.findall(text):
        sides = [[re.sub(r"\s", "", side) for side in _arithmetic(note).split("=")] for note in notes]
        return [Equation(*pair) for chain in sides for pair in pairwise(chain)]
    return [pair for line in text.splitlines() if "=" in line for pair in _equations_of_line(line)]


def equations_hold(text: str) -> bool | None:
    """Return whether all equations are right; None if there are none, or none is wrong and some cannot be read."""
    verdicts = [holds(equation) for equation in equations(text)]
    if False in verdicts:
        return False
    return True if verdicts and None not in verdicts else None


def holds(equation: Equation) -> bool | None:
    """Return whether the sides are equal within TOLERANCE; a percent sign is read as a hundredth or as a unit."""
    try:
        readings = [tuple(evaluate(side) for side in equation)]
        if "%" in "".join(equation):
            readings.append(tuple(evaluate(side.replace("%", "")) for side in equation))
    except ParseError:
        return None
    return any(abs(lhs - rhs) < TOLERANCE for lhs, rhs in readings)


def equation_key(text: str) -> str:
    """Return what a solution computes: its equations joined in order; "" if it states none.

    3+4 and 4+3, or another order of steps, are different (section 3.3); spaces, currencies and × for * are not.
    """
    return ";".join(f"{lhs}={rhs}" for lhs, rhs in equations(text))


def _equations_of_line(line: str) -> list[Equation]:
    line = BOLD.sub("", BULLET.sub("", line))
    # A line that converts units is no arithmetic: the numbers alone of $0.50 + $0.20 = 70 cents are not equal.
    units = {word.lower().rstrip("s") for words in UNIT.findall(normalize_symbols(line)) for word in words.split()}
    units |= {"cent", "dollar"} if "$" in line and CENTS.search(line) else set()
    if any(len(units & kind) > 1 for kind in CONVERTED):
        return []
    pairs = []
    for part in RELATION.split(_arithmetic(line)):
        for place, (left, right) in enumerate(pairwise(part.split("="))):
            pair = Equation(_left(left), _right(right))
            chained = place > 0 and _balanced(left) == pair.lhs
            if all(pair) and OPERATION.search(pair.lhs if not chained else " ".join(pair)):
                pairs.append(pair)
    return pairs


def _arithmetic(text: str) -> str:
    """Write arithmetic in ASCII and drop the units."""
    return TIMES.sub("*", TIMES_IN_WORDS.sub("*", UNIT.sub("", normalize_symbols(text))))


def _left(text: str) -> str:
    """Return the expression that a text ends with, "" if there is none or it is part of another."""
    text = text[-MAX_LENGTH:]
    match = AT_END.search(text)
    side = match[0].lstrip() if match else ""
    before = text[: len(text) - len(side)]
    continues = side[:1] in ("+", "-") and before.rstrip()[-1:].isalnum()
    if not side or continues or not WHOLE_BEFORE.search(before) or BY_FRACTION.search(side):
        return ""
    return _balanced(side)


def _right(text: str) -> str:
    """Return the expression that a text begins with, "" if there is none or it is part of another."""
    match = AT_START.match(text[:MAX_LENGTH])
    side = match[0].rstrip() if match else ""
    rest = text[len(side) :]
    return "" if PART_AFTER.match(rest) or SCALE_AFTER.match(rest) else _balanced(side)


def _balanced(side: str) -> str:
    """Drop spaces, and brackets at the ends that have no partner."""
    side = re.sub(r"\s", "", side)
    while side.startswith("(") and side.count("(") > side.count(")"):
        side = side[1:]
    while side.endswith(")") and side.count(")") > side.count("("):
        side = side[:-1]
    return side
