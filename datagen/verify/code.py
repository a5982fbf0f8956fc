"""Code answers, checked by running them with the tests of their row (HumanEval, arXiv 2107.03374; MBPP, 2108.07732).

The code is the last fenced block of Python in the answer, or the whole answer. The tests are a text, or a list of
asserts: `tests`, `test_list` with `test_setup_code`, or `test` with `entry_point`, which `check(candidate)` gets.
"""

import re
from typing import Any, NamedTuple

from datagen.reasoning import split_thinking
from datagen.records.columns import normal_name
from datagen.records.record import Record
from datagen.verify.sandbox import run_tests

TEST_FIELDS = ("tests", "test_list", "unit_tests", "test")
SETUP_FIELDS = ("test_setup_code", "test_imports")
FENCE = re.compile(r"^[ \t]*(```+|~~~+)[ \t]*([\w+-]{0,20})[^\n]*$", re.MULTILINE)
PYTHON = ("", "py", "python", "python3")


class Code(NamedTuple):
    """The code of an answer."""

    text: str
    is_fenced: bool


def last_code(text: str) -> Code:
    """Return the last fenced block of Python, which may be open at the end; the whole text if nothing is fenced.

    The text is empty if all fenced blocks are in other languages.
    """
    fences = list(FENCE.finditer(text))
    code = Code("" if fences else text, False)
    opening: re.Match[str] | None = None
    for fence in fences:
        if opening is None:
            opening = fence
        elif fence[1][0] == opening[1][0] and len(fence[1]) >= len(opening[1]) and not fence[2]:
            code = _block(text, opening, fence.start()) or code
            opening = None
    return (_block(text, opening, len(text)) or code) if opening else code


def _block(text: str, opening: re.Match[str], end: int) -> Code | None:
    return Code(text[opening.end() + 1 : end], True) if opening[2].lower() in PYTHON else None


def row_tests(record: Record) -> str | None:
    """Return the tests of a row as a program; None if it has none."""
    fields = {normal_name(name): value for name, value in record.extra.items()}
    tests = next((lines for name in TEST_FIELDS if (lines := _lines(fields.get(name)))), None)
    if tests is None:
        return None
    setup = [text for name in SETUP_FIELDS if (text := _lines(fields.get(name)))]
    entry = fields.get("entry_point")
    calls = [f"check({entry})"] if isinstance(entry, str) and entry.isidentifier() and "def check(" in tests else []
    return "\n".join([*setup, tests, *calls])


def _lines(value: Any) -> str | None:
    """Return a text, or a list of texts, as lines."""
    if isinstance(value, list) and value and all(isinstance(line, str) for line in value):
        return "\n".join(value)
    return value if isinstance(value, str) and value.strip() else None


def verify_tests(record: Record, response: str) -> bool | None:
    """Return whether the code of a response passes the tests of its row; None where either is missing."""
    tests, code = row_tests(record), last_code(split_thinking(response)[1])
    return run_tests(code.text, tests, is_fenced=code.is_fenced) if tests and code.text.strip() else None
