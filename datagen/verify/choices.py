"""Answers from a closed set (an option letter, yes or no, true or false), and answers that are words or lists."""

import re

from datagen.verify.numbers import parse_number

LETTER = re.compile(
    r"""(?:(?i:option|choice|answer)\s*)?
    (?: \(([A-Za-z])\) | \[([A-Za-z])\] | ([A-Z])(?=[).:]?\s*$) | ([A-Z])(?=[):]\s) )
    [).:]?(?:\s.*)?""",
    re.DOTALL | re.VERBOSE,
)
LEADING_LETTER = re.compile(
    r"(?:(?i:option|choice|answer)\s*)?[(\[]?([A-Za-z])(?:[)\].,:]|\s*$|\s+(?:is|because|since)\b)"
)
YES_NO = re.compile(
    r"(yes|no|true|false|是的|是|否|不是|正确|错误)(?:\s*[,;:!。，；！]|\s*\.(?!\s*[0-9])|\s*$)", re.IGNORECASE
)
CHINESE = {"是": "yes", "是的": "yes", "否": "no", "不是": "no", "正确": "true", "错误": "false"}
BREAKS = re.compile(r"[\s;|、，；→\"“”]+|,(?![0-9]{3}(?![0-9]))")
ALL_BREAKS = re.compile(r"[\s,;|、，；→\"“”]+")
FIGURES = re.compile(r"[-+]?[0-9.][0-9.,/]{0,40}")
EDGES = "*_`'’‘.。!?！？:：$"


def option_letter(text: str, *, loose: bool = False) -> str | None:
    """Return the option that an answer names, lower case: "(B)", "B.", "Option B", "(B) 12 May", "B: 12 May".

    `loose` takes "B. Tallinn" and "B because" too: right where the reference is a letter, a guess where it may be
    "E. coli".
    """
    match = (LEADING_LETTER.match if loose else LETTER.fullmatch)(text.strip(" \t\n*_`$"))
    return next(group for group in match.groups() if group).lower() if match else None


def yes_no(text: str) -> str | None:
    """Return the yes, no, true or false that an answer begins with: "Yes.", "No, they meet later", "是"."""
    match = YES_NO.match(text.strip(" \t\n*_`$\"'"))
    return CHINESE.get(match[1], match[1].lower()) if match else None


def words(text: str, breaks: re.Pattern[str] = BREAKS) -> str:
    """Write an answer as its words or elements, one space between; numbers among them in one form."""
    normal = []
    for part in (part.strip(EDGES) for part in breaks.split(text.casefold())):
        if part and part not in ("and", "&"):
            number = parse_number(part) if FIGURES.fullmatch(part) else None
            normal.append(part if number is None else str(number))
    return " ".join(normal)
