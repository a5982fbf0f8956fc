r"""Formulas: LaTeX and plain text in one form, within bounds, so that a computer algebra system may see them.

The grammar is a list of what is allowed: numbers, single letters, brackets, operators, relations, and the commands of
COMMANDS. Everything else, such as words, units, primes, digits side by side, towers of powers, is no formula: the
library that reads formulas drops what it does not know, and would compare the rest.
"""

import re
from functools import lru_cache

from datagen.verify.numbers import SYMBOLS

MAX_LENGTH = 200
"""Characters; checked before any pattern sees the text."""
MAX_DEPTH = 12
MAX_DIGITS = 15
"""Of a number."""
MAX_EXPONENT_DIGITS = 3
MAX_FACTORIAL_DIGITS = 3

SIGNS = {
    "π": r"\pi ", "√": r"\sqrt ", "∞": r"\infty ", "∪": r"\cup ", "∩": r"\cap ", "≤": r"\le ", "≥": r"\ge ",
    "∈": r"\in ", "²": "^2", "³": "^3", "±": r"\pm ", "∅": r"\emptyset ", "θ": r"\theta ", "α": r"\alpha ",
    "β": r"\beta ", "γ": r"\gamma ", "φ": r"\phi ", "λ": r"\lambda ", "**": "^", "<=": r"\le ", ">=": r"\ge ",
}  # fmt: skip
SAME = {
    "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "leq": "le", "geq": "ge", "leqslant": "le", "geqslant": "ge",
    "lt": "<", "gt": ">", "times": "*", "cdot": "*", "ast": "*", "div": "/", "varnothing": "emptyset", "colon": ":",
    "lbrace": r"\{", "rbrace": r"\}", "lvert": "|", "rvert": "|", "vert": "|", "mid": "|",
}  # fmt: skip
"""Commands that mean another command or sign."""
FUNCTIONS = "sqrt sin cos tan cot sec csc arcsin arccos arctan log ln exp"
COMMANDS = frozenset(
    f"{FUNCTIONS} frac pi theta alpha beta gamma phi lambda infty cup cap pm le ge in emptyset binom".split()
)
IGNORED = frozenset(("left", "right", "big", "Big", "bigg", "Bigg", "displaystyle", "quad", "qquad"))
WORDS = {"pi": r"\pi ", "or": ", ", "and": ", ", **{name: rf"\{name} " for name in FUNCTIONS.split()}}
"""Words of a formula in plain text."""
NO_PRODUCTS = frozenset(
    """am an as at be by do go he hi if in is it me my no of oh ok on so to up us we pm ad mm cm km kg mg ml cl dl lb oz
    ft yd mi hr ln""".split()
)
"""Pairs of letters that are no product of two variables."""
TOKEN = re.compile(
    r"""(?P<space>\s+|\\[,;:!\ ]|~)
    | \\(?:text|mathrm|mathbf|textbf|mbox|operatorname)\s?\{\s*(?P<text>[A-Za-z]{1,12})\s*\}
    | \\(?P<command>[A-Za-z]{1,12})
    | \\(?P<set>[{}])
    | (?P<thousands>[0-9]{1,3}(?:(?:,(?:\\!)?|\{,\})[0-9]{3})+(?:\.[0-9]+)?(?![0-9]))
    | (?P<number>[0-9]+(?:\.[0-9]+)?|\.[0-9]+)
    | (?P<letters>[A-Za-z]+)
    | (?P<sign>[-+*/^=<>()\[\]{}|,;!_])""",
    re.VERBOSE,
)
ARGUMENTS = (
    (re.compile(r"(\\[A-Za-z]{1,12}) (?![A-Za-z])"), r"\1"),
    (re.compile(r"\\frac([0-9])([0-9])"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\frac([0-9])\{"), r"\\frac{\1}{"),
    (re.compile(r"(\\frac\{[^{}]{1,60}\})([0-9])"), r"\1{\2}"),
    (re.compile(r"\\sqrt\(([^()]{1,60})\)"), r"\\sqrt{\1}"),
    (re.compile(r"\\sqrt([0-9])"), r"\\sqrt{\1}"),
    (re.compile(r"\^(-?[0-9]{1,20})"), r"^{\1}"),
)
"""Short forms of arguments, and the long ones: x^12 is meant as x^{12}."""
ROOT = re.compile(r"√\s?([0-9]{1,15})")
UNSAFE = re.compile(
    rf"""\^\{{[^{{}}]{{0,60}}\^ | \^\{{[^{{}}]{{0,60}}\}}\^ | \^\([^()]{{0,60}}\^
    | \^\{{-?[0-9]{{{MAX_EXPONENT_DIGITS + 1}}} | [0-9]{{{MAX_DIGITS + 1}}}
    | [0-9]{{{MAX_FACTORIAL_DIGITS + 1}}}! | [)\]}}!]! | != | \*\* | [<>]= | _(?![{{0-9A-Za-z]) | (?<![A-Za-z])_""",
    re.VERBOSE,
)
"""Towers of powers, large exponents and factorials, signs that spaces held apart, a lower index of a number. What else
is slow, its process ends."""
MAX_BARS = 2
DATE_OR_RANGE = re.compile(r"[0-9]{1,4}([-/.])[0-9]{1,2}\1[0-9]{1,4}|[0-9]+\s?-\s?[0-9]+")
"""12/14/1937 is no quotient, and 3-1 may be a score."""


@lru_cache(maxsize=4096)
def canonical(text: str) -> str | None:
    """Return a formula in one form of LaTeX, without spaces but between letters; None for what is no formula."""
    if len(text) > MAX_LENGTH or DATE_OR_RANGE.fullmatch(text.strip(" $")):
        return None
    text = text.strip().removeprefix("\\(").removesuffix("\\)").removeprefix("\\[").removesuffix("\\]").strip(" $")
    if "$" in text:  # words beside a formula, or two of them
        return None
    text = ROOT.sub(r"\\sqrt{\1}", text.translate(SYMBOLS))
    for sign, command in SIGNS.items():
        text = text.replace(sign, command)
    parts, at, depth = list[str](), 0, 0
    while at < len(text):
        match = TOKEN.match(text, at)
        part = _part(match, depth, parts[-1] if parts else "") if match else None
        if match is None or part is None:
            return None
        depth += sum(part.count(mark) for mark in "([{") - sum(part.count(mark) for mark in ")]}")
        if part:
            is_product = part[0].isalpha() and bool(parts) and parts[-1][-1].isalpha()
            parts.append(f" {part}" if is_product else part)
        if not 0 <= depth <= MAX_DEPTH:
            return None
        at = match.end()
    formula = "".join(parts).strip()
    for short, long in ARGUMENTS:
        formula = short.sub(long, formula)
    is_refused = depth or not formula or formula.count("|") > MAX_BARS or UNSAFE.search(formula)
    return None if is_refused else formula


def _part(match: re.Match[str], depth: int, before: str) -> str | None:
    """Return a token in canonical form, "" for one that means nothing, None for one that is not allowed."""
    kind, token = match.lastgroup or "", match[match.lastgroup or 0]
    if kind == "space":
        return ""
    if kind in ("number", "thousands"):
        is_digit_before = before[-1:].isdigit()  # digits side by side are a mixed number, or two numbers
        if is_digit_before or (kind == "thousands" and depth):
            return None
        digits = re.sub(r"[^0-9.]", "", token)
        return f"{{{digits}}}" if before == "_" else digits
    if kind == "command":
        name = SAME.get(token, token)
        if name in IGNORED:
            return ""
        return rf"\{name} " if name in COMMANDS else name if name in SAME.values() else None
    if kind == "text":
        return WORDS[token] if token in ("or", "and") else None
    if kind == "letters":
        return _letters(token, before)
    return rf"\{token}" if kind == "set" else ", " if token in ",;" else token


def _letters(token: str, before: str) -> str | None:
    """Return letters that are a word of a formula, a variable, or a product of two."""
    if token in WORDS:
        return WORDS[token]
    is_exponent_sign = token in ("e", "E") and before[-1:].isdigit()  # 1.5e3 is a number, and so may 2e be
    if len(token) == 1:
        return None if is_exponent_sign else token
    is_product = len(token) == 2 and token.casefold() not in NO_PRODUCTS and token[0] != token[1]
    return " ".join(token) if is_product else None


def letter_cases_differ(one: str, other: str) -> bool:
    """Return whether two formulas have a letter in both cases, R and r: the library reads them as one."""
    letters = set(re.sub(r"\\[A-Za-z]+", "", one + other)) - set("0123456789")
    return any(letter.isupper() and letter.lower() in letters for letter in letters)


def elements(formula: str) -> tuple[str, list[str]] | None:
    """Return the brackets around a canonical formula, "" for a bare list, and what stands between its commas; None for
    something else, such as a set or a union."""
    brackets = formula[0] + formula[-1]
    inner = formula[1:-1] if brackets in ("()", "[]", "[)", "(]") else formula
    parts, depth = [""], 0
    for character in inner:
        depth += (character in "([{") - (character in ")]}")
        if depth < 0:  # the first bracket is closed before the end: (1, 2) and (3, 4)
            return None
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    parts = [part.strip() for part in parts]
    return (brackets if inner != formula else "", parts) if len(parts) > 1 and all(parts) else None
