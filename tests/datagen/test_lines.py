"""Lines without a row, and numbers that JSON cannot represent."""

import io

import pytest

from datagen.records.lines import json_lines, loads_strictly


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b'{"a": NaN}\n', "not JSON (NaN is not JSON)"),
        (b'{"a": -Infinity}\n', "not JSON (-Infinity is not JSON)"),
        (b'{"a": 1e999}\n', "not JSON (1e999 is too large a number)"),
        (b'{"a": "\\ud800"}\n', "half a character (a lone surrogate)"),
        (b'{"a": "\xff"}\n', "not UTF-8"),
        (b"[1]\n", "not a JSON object"),
        (b"[" * 100_000 + b"\n", "not JSON (maximum recursion depth exceeded"),
        (b'{"a": "cut', "perhaps cut off: the file ends here without a line end"),
    ],
)
def test_a_line_without_a_row_says_why(raw: bytes, problem: str) -> None:
    (line,) = json_lines("x.jsonl", io.BytesIO(b"\xef\xbb\xbf\r\n" + raw))
    assert (line.number, line.row) == (2, None)
    assert problem in line.problem


def test_a_line_separator_is_text() -> None:
    rows = [line.row for line in json_lines("x.jsonl", io.BytesIO('{"a": "b\u2028c"}\r\n{"a": "d"}'.encode()))]
    assert rows == [{"a": "b\u2028c"}, {"a": "d"}]


def test_numbers_that_json_can_carry_are_read() -> None:
    assert loads_strictly("[1e308, -0.5, 12345678901234567890]") == [1e308, -0.5, 12345678901234567890]
