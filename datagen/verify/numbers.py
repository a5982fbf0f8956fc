"""Parse an answer that is one number: exactly, within bounds, without guessing.

Signs, thousands separators, currencies, units, percent signs, fractions, mixed numbers, scientific notation and their
LaTeX are read; so are Chinese scales (3万). The unit is a word beside the value: 3 km is 3, and 18% is 18. A text with
two numbers, a date, a comparison or a variable is no number.
"""

import re
from fractions import Fraction
from typing import NamedTuple

MAX_LENGTH = 200
"""Characters of an answer that can be a number; checked before any pattern sees the text."""
MAX_UNIT_WORDS = 6

VULGAR = {"½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅛": "1/8"}
SYMBOLS = str.maketrans(
    {
        **{chr(0xFF10 + digit): str(digit) for digit in range(10)},
        **dict.fromkeys("−–—﹣－‐‑", "-"),
        **dict.fromkeys("$€£¥￥₹＄", " "),
        **dict.fromkeys("\u00a0\u2002\u2003\u2009\u202f\u3000", " "),
        **dict.fromkeys("×∗＊·⋅", "*"),
        **dict.fromkeys("÷⁄∕／", "/"),
        **{"，": ",", "．": ".", "％": "%", "＋": "+", "＝": "=", "（": "(", "）": ")", "：": ":"},
        **{sign: f" {fraction}" for sign, fraction in VULGAR.items()},
    }
)
LATEX = (
    (re.compile(r"\\[dt]?frac\{([^{}]{1,60})\}\{([^{}]{1,60})\}"), r" (\1)/(\2)"),
    (re.compile(r"\\(?:text|mathrm|mathbf|textbf|mbox)\{([^{}]{0,100})\}"), r" \1 "),
    (re.compile(r"\\(?:times|cdot)(?![a-z])"), "*"),
    (re.compile(r"\\div(?![a-z])"), "/"),
    (re.compile(r"\^?\{?\\circ(?![a-z])\}?"), "°"),
    (re.compile(r"\\(?:left|right|!)|\\[()\[\]]"), ""),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\[,;: ]"), " "),
    (re.compile(r"\\(?=[$%])"), ""),
)
INTEGER = r"(?:[0-9]{1,3}(?:[, ][0-9]{3})+(?![0-9])|[0-9]+)"
DECIMAL = rf"(?:{INTEGER}(?:\.[0-9]*)?|\.[0-9]+)"
LEAD_WORDS = (
    "about|approximately|approx|around|roughly|nearly|exactly|only|just|an?|the|totals?|of|is|are|was|equals?|to|it"
    "|there|they|us|usd|rmb|cny|eur|gbp"
)
LEAD = re.compile(
    rf"""\s*+ (?:(?:[^\W\d][^\d=<>!≠≤≥≈,;]{{0,40}} | [-+*/^%().\ 0-9]{{1,80}})? [=≈])?+
    \s*+ (?:(?:(?:{LEAD_WORDS})(?![^\W\d]) | 大?约 | 一?共 | 总共 | 是 | 为 | 百分之 | 人民币) [\s:.]*+)*+
    [\s(]*+""",
    re.IGNORECASE | re.VERBOSE,
)
"""What may stand before the number: "x =", "4 + 5 =", "about"; any other word makes another answer: Room 12, May 5."""
NUMBER = re.compile(
    rf"""(?P<sign>[-+]?)\s*+
    (?: (?:(?P<whole>[0-9]+)\s+(?:and\s+)?)? \(?(?P<top>[-+]?{INTEGER})\)?\s*/\s*\(?(?P<bottom>{INTEGER})\)?
      | (?P<decimal>{DECIMAL})
        (?: e(?P<e>[-+]?[0-9]{{1,3}})(?![0-9])
          | \s*[*x]\s*10\s*(?:\^|\*\*)\s*[({{]?(?P<power>[-+]?[0-9]{{1,3}})(?![0-9])[)}}]? )?
    )""",
    re.IGNORECASE | re.VERBOSE,
)
LETTER = r"[^\W\d_²³¹⁰-₟]"
"""A letter; Python counts superscripts among the word characters."""
UNIT = re.compile(
    rf"(?:[\s%°().,:!?'\"’\]。]|/(?=\s*{LETTER})|(?<={LETTER})-(?={LETTER})|{LETTER}|(?<={LETTER})(?:\^?[23]|[²³])(?!\w))*+"
)
WORD = re.compile(rf"{LETTER}+")
SCALES = {"dozen": 12, "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
CHINESE_SCALE = re.compile(r"\s*(万亿|亿|万|千(?![克米瓦])|百(?!分))")
CHINESE_SCALES = {"百": 100, "千": 10**3, "万": 10**4, "亿": 10**8, "万亿": 10**12}
ONE_LETTER_UNITS = frozenset("amgshlwvcfkj")
NOT_UNITS = frozenset(
    """january february march april may june july august september october november december jan feb mar apr jun jul
    aug sep sept oct nov dec am pm ad bc bce or and to pi π sqrt log ln sin cos tan half halves thirds fourths fifths
    sixths eighths tenths hundredths thousandths""".split()
)
"""Words that make another answer of the number before them."""


class Quantity(NamedTuple):
    """A number, and the words after it."""

    value: Fraction
    unit: str
    """In small letters; "%" for a percent sign, "" for none. A currency sign is no unit."""
    decimals: int
    """Digits after the point, as it is written; EXACT for a fraction."""


EXACT = 1_000
"""Digits: a fraction is not rounded."""


def parse_number(text: str) -> Fraction | None:
    """Return the number that a text is, or None: no number, more than one, or too long to be one."""
    quantity = parse_quantity(text)
    return quantity.value if quantity else None


def parse_quantity(text: str) -> Quantity | None:
    """Return the number that a text is, with its unit, or None: no number, more than one, or too long to be one."""
    if len(text) > MAX_LENGTH:
        return None
    text = normalize_symbols(text).strip(" \t\n*_`\"'“”")
    lead = LEAD.match(text)
    match = NUMBER.match(text, lead.end() if lead else 0)
    value = _value(match) if match else None
    scale = _scale(text[match.end() :]) if match else None
    if match is None or value is None or scale is None:
        return None
    decimals = len(match["decimal"].partition(".")[2]) if match["decimal"] else EXACT
    return Quantity(value * scale, _unit(text[match.end() :]), decimals)


def normalize_symbols(text: str) -> str:
    """Write symbols in ASCII: full-width digits, signs, currencies (a space), the LaTeX of arithmetic."""
    text = text.translate(SYMBOLS)
    if "\\" in text or "{" in text:
        for pattern, replacement in LATEX:
            text = pattern.sub(replacement, text)
    return text


def _value(match: re.Match[str]) -> Fraction | None:
    """Return the value of a decimal number or of a fraction; None for a zero denominator."""
    sign = -1 if match["sign"] == "-" else 1
    numbers = {name: match[name] or "0" for name in ("decimal", "top", "bottom")}
    digits = {name: text.replace(",", "").replace(" ", "").rstrip(".") for name, text in numbers.items()}
    if match["decimal"] is not None:
        exponent = int(match["e"] or match["power"] or 0)
        return sign * Fraction(digits["decimal"]) * Fraction(10) ** exponent
    bottom = int(digits["bottom"])
    if bottom == 0:
        return None
    return sign * (int(match["whole"] or 0) + Fraction(int(digits["top"]), bottom))


def _unit(rest: str) -> str:
    """Return the words after a number, without those of its scale."""
    words = [word for word in WORD.findall(rest.lower()) if word.removesuffix("s") not in SCALES]
    return "%" if words == ["percent"] or (not words and "%" in rest) else " ".join(words)


def _scale(rest: str) -> int | None:
    """Return the factor that the words after a number stand for, 1 for a unit; None if they are no unit."""
    words = WORD.findall(rest.lower())
    if not UNIT.fullmatch(rest) or len(words) > MAX_UNIT_WORDS or re.match(r"\s*[ap]\.\s?m\b", rest, re.IGNORECASE):
        return None
    if any(word in NOT_UNITS or (len(word) == 1 and word.isascii() and word not in ONE_LETTER_UNITS) for word in words):
        return None
    if chinese := CHINESE_SCALE.match(rest):
        return CHINESE_SCALES[chinese[1]]
    if rest[:1] in ("k", "K") and words[0] == "k":
        return 1000
    return SCALES.get(words[0].removesuffix("s"), 1) if words else 1
