"""Whether two answers are the same: True, False where both were understood, else None.

    numbers     by value, exactly; units convert, and a unit that is missing on one side counts for nothing
    options     by letter; yes and true, no and false are one
    ratios      3:4 is 6:8
    formulas    LaTeX, sets, intervals, tuples, expressions, equations: formulas.py, algebra.py
    words       the same words, or plainly others

What cannot be read is no opinion: a right answer in an unknown form would else be trained against.
"""

import re
from fractions import Fraction

from datagen.errors import ParseError
from datagen.verify.algebra import same_formula
from datagen.verify.answers import answer_key
from datagen.verify.choices import option_letter, yes_no
from datagen.verify.expressions import evaluate
from datagen.verify.formulas import MAX_LENGTH, canonical, elements, letter_cases_differ
from datagen.verify.numbers import Quantity, parse_quantity
from datagen.verify.units import conversions, find_unit

POLARITY = {"yes": True, "true": True, "no": False, "false": False}
LEAST_DECIMALS = 2
"""A number with fewer is not taken for a rounded one: 18 is wrong where 18.4 is right."""
VARIABLE = re.compile(r"[\s$(\\]*([A-Za-z])(?:_[A-Za-z0-9])?\s*=")
FACTORIAL = re.compile(r"[0-9)}]!")
BOX = "\\boxed{"
DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
TIME = re.compile(r"[0-9]{1,2}(?::[0-5][0-9]){1,2}")
PLAIN = re.compile(r"[^\W\d_]+(?:[-'’][^\W\d_]+)*")
LEAST_LETTERS = 3
"""Of a word that means something by itself; AB may be a product."""


def same_answer(answer: str | None, reference: str | None) -> bool | None:
    """Return whether two answers are the same; None if either is missing, empty, or not understood."""
    answer, reference = without_box(answer or ""), without_box(reference or "")
    key, reference_key = answer_key(answer), answer_key(reference)
    if not answer or not reference or not key or not reference_key:
        return None
    if answer.split() == reference.split():
        return True
    same_key = key == reference_key
    one, other = _quantity(answer), _quantity(reference)
    if one and other and not _names_differ(answer, reference):
        return same_quantity(one, other)
    if option_letter(reference) or option_letter(answer):
        return True if same_key else _same_option(answer, reference)
    if (choice := yes_no(answer)) and (right := yes_no(reference)):
        return POLARITY[choice] == POLARITY[right]
    if max(len(answer), len(reference)) > MAX_LENGTH:
        return same_key or None
    if DATE.fullmatch(key) and DATE.fullmatch(reference_key):
        return same_key
    if ":" in answer and ":" in reference and (ratios := _ratio(answer), _ratio(reference)):
        return _same_ratio(answer, reference) if all(ratios) else same_key or None
    formulas = canonical(answer), canonical(reference)
    if formulas[0] and formulas[1]:
        return _same_formula(formulas[0], formulas[1])
    return None if any(formulas) else same_key or _same_words(answer, reference)


def without_box(text: str) -> str:
    """Return what stands in the box that is the whole of an answer: \\boxed{18}."""
    inner = text.strip(" $")
    return inner.removeprefix(BOX)[:-1] if inner.startswith(BOX) and inner.endswith("}") else text


def same_quantity(one: Quantity, other: Quantity) -> bool | None:
    """Return whether two numbers with their units are the same; None where one may be the other in another form."""
    unit, other_unit = find_unit(one.unit), find_unit(other.unit)
    if unit and other_unit and unit != other_unit:
        sizes = one.value * unit[1], other.value * other_unit[1]
        return sizes[0] == sizes[1] if unit[0] == other_unit[0] else None
    if one.value == other.value:
        return True
    if (one.unit == "%") != (other.unit == "%"):
        share, plain = (one, other) if one.unit == "%" else (other, one)
        return share.value == 100 * plain.value  # 18 % is 18 or 0.18
    if is_rounded(one, other) or is_rounded(other, one):
        return None
    if one.unit and other.unit:  # 3 gross and 36 dozen
        return None if one.unit != other.unit and not set(one.unit.split()) & set(other.unit.split()) else False
    missing = unit if not other.unit else other_unit if not one.unit else None
    is_converted = missing and other.value and one.value / other.value in conversions(missing[0])
    return None if is_converted else False  # 120 minutes and 2, where hours are asked for


def is_rounded(one: Quantity, other: Quantity) -> bool:
    """Return whether a number is another one, rounded to the digits that it is written with."""
    digits = one.decimals
    return LEAST_DECIMALS <= digits < other.decimals and abs(one.value - other.value) <= Fraction(1, 2 * 10**digits)


def _same_words(answer: str, reference: str) -> bool | None:
    """Compare answers of other words; None where one may be another way to say the other."""
    one, other = PLAIN.findall(answer.casefold()), PLAIN.findall(reference.casefold())
    if not (_is_plain(answer, one) and _is_plain(reference, other)):
        return None
    commas = answer.count(","), reference.count(",")
    if sorted(one) == sorted(other) and not any(commas):
        return False  # another order of the same words
    if commas[0] == commas[1] == len(one) - 1 == len(other) - 1 > 0:  # lists: their order may count, or not
        return False if set(one) != set(other) else None
    is_short_for = _initials(one) & set(other) or _initials(other) & set(one)
    return None if set(one) & set(other) or is_short_for else False


def _initials(words: list[str]) -> set[str]:
    """Return the first letters of words, with and without those of short ones: usoa, usa."""
    return {"".join(word[0] for word in words if len(word) >= least) for least in (1, 4)}


def _is_plain(text: str, words: list[str]) -> bool:
    """Return whether a text is words alone, not all of them shorter than words are."""
    rest = PLAIN.sub("", text).strip(" \t\n,.;!?*_`\"'$()[]“”")
    is_long = any(len(word) >= LEAST_LETTERS or not word.isascii() for word in words)
    return is_long and not rest.replace(",", "").replace(";", "").strip()


def _same_option(answer: str, reference: str) -> bool | None:
    """Compare option letters; None where only one side is a letter."""
    right = option_letter(reference)
    letter = option_letter(answer, loose=True) if right else None
    return letter == right if letter and right else None


def _ratio(text: str) -> list[Fraction]:
    """Return the terms of a ratio, "3 : 4"; [] for something else."""
    quantities = [parse_quantity(part.strip(" $*\\")) for part in text.split(":")]
    terms = [quantity.value for quantity in quantities if quantity and quantity.value]
    return terms if len(terms) == len(quantities) else []


def _same_ratio(answer: str, reference: str) -> bool | None:
    """Compare ratios; None where they are in proportion and one may be a time of day."""
    one, other = _ratio(answer), _ratio(reference)
    if one == other:
        return True
    in_proportion = len(one) == len(other) and all(a * other[0] == b * one[0] for a, b in zip(one, other, strict=True))
    is_time = any(TIME.fullmatch(text.strip()) for text in (answer, reference))
    return None if in_proportion and is_time else in_proportion


def _same_formula(one: str, other: str) -> bool | None:
    """Compare two canonical formulas: by arithmetic where that is enough, else by algebra."""
    if one == other:
        return True
    if len(one) == len(other) == 1 and one.isalpha() and other.isalpha():
        return one.casefold() == other.casefold()
    if (one.isalpha() and len(one) == 1) or (other.isalpha() and len(other) == 1) or letter_cases_differ(one, other):
        return None
    values = _value(one), _value(other)
    if values[0] is not None and values[1] is not None:
        return values[0] == values[1]
    lists = elements(one), elements(other)
    if lists[0] and lists[1]:
        return _same_list(lists[0], lists[1], one, other)
    return same_formula(one, other)


def _same_list(one: tuple[str, list[str]], other: tuple[str, list[str]], *formulas: str) -> bool | None:
    """Compare tuples, intervals and lists without brackets, element by element.

    Where the brackets may say the same, [1, 2] and (1, 2), or the order may not count, 1, 2 and 2, 1, it is None.
    """
    verdicts = [_same_formula(*pair) for pair in zip(one[1], other[1], strict=False)]
    same = len(one[1]) == len(other[1]) and (False if False in verdicts else None if None in verdicts else True)
    brackets = {one[0], other[0]}
    if brackets == {""} and same is False:
        return False if same_formula(*formulas) is False else None
    if brackets == {"[]", "()"} or ("" in brackets and same is False and brackets != {""}):
        return False if same is False and "" not in brackets else None
    return same if len(brackets) == 1 or "" in brackets else same_formula(*formulas)


def _value(formula: str) -> Fraction | None:
    """Return the value of a formula of arithmetic; None for any other."""
    try:
        return evaluate(formula)
    except ParseError:
        return None


def _quantity(text: str) -> Quantity | None:
    """Return the number that an answer is; None for one that may be a factorial."""
    return None if FACTORIAL.search(text[:MAX_LENGTH]) else parse_quantity(text)


def _names_differ(answer: str, reference: str) -> bool:
    """Return whether two answers give a value to other letters: x = 5, y = 5."""
    names = [VARIABLE.match(text[:MAX_LENGTH]) for text in (answer, reference)]
    return bool(names[0] and names[1] and names[0][1] != names[1][1])
