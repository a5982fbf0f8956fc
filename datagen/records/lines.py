"""The lines of an input file: JSON lines, one JSON array, or text.

Only \\n ends a line (U+2028 is text); a BOM and \\r\\n are accepted, blank lines are skipped. A line without a usable
row has a reason instead: not UTF-8, not JSON (NaN and Infinity are not JSON), cut off, a lone surrogate.
"""

import json
from collections.abc import Iterator
from math import isfinite
from typing import Any, BinaryIO, NamedTuple

from datagen.errors import InputError
from datagen.records.record import Row

BOM = b"\xef\xbb\xbf"


class Line(NamedTuple):
    """One line of a file, or one item of its JSON array."""

    number: int
    """From 1."""
    raw: bytes
    row: Row | None
    """None if the line cannot be used."""
    problem: str
    """Why it cannot be used, else empty."""


def _finite_float(number: str) -> float:
    """Parse a JSON number; NaN and Infinity, which Python's parser lets through, are not JSON."""
    value = float(number)
    if not isfinite(value):
        raise ValueError(f"{number} is too large a number" if number[-1].isdigit() else f"{number} is not JSON")
    return value


loads_strictly = json.JSONDecoder(parse_constant=_finite_float, parse_float=_finite_float).decode
"""Parse JSON text by the standard: ValueError at NaN, Infinity, and numbers that overflow a float."""


def raw_lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not blank, numbered from 1."""
    file.seek(0)
    for number, raw in enumerate(file, 1):
        raw = raw.removeprefix(BOM) if number == 1 else raw
        if raw.strip():
            yield number, raw


def is_array(file: BinaryIO) -> bool:
    """Tell whether a file starts like a JSON array of objects."""
    file.seek(0)
    head = file.read(4096).removeprefix(BOM).lstrip()
    return head[:1] == b"[" and head[1:].lstrip()[:1] in (b"{", b"]")


def text_lines(file: BinaryIO, key: str) -> Iterator[Line]:
    """Yield every line of a text file as a row with one field, `key`."""
    for number, raw in raw_lines(file):
        try:
            line = Line(number, raw, {key: raw.decode().rstrip("\r\n")}, "")
        except UnicodeDecodeError:
            line = Line(number, raw, None, "not UTF-8")
        yield line


def json_lines(name: str, file: BinaryIO) -> Iterator[Line]:
    """Yield the lines of a file of JSON lines, or the items of its one JSON array.

    Args:
        name: The file's name, for messages.
        file: The file, seekable; it is read from its start.

    Raises:
        InputError: The file starts like a JSON array and is not one.
    """
    if is_array(file):
        file.seek(0)
        try:
            items = loads_strictly(file.read().removeprefix(BOM).decode())
        except (ValueError, RecursionError) as error:
            raise InputError(f"{name}: starts like a JSON array but is not one: {error}") from error
        for number, item in enumerate(items, 1):
            yield _line(number, json.dumps(item).encode(), item)
        return
    for number, raw in raw_lines(file):
        try:
            value = loads_strictly(raw.decode())
        except UnicodeDecodeError:
            yield Line(number, raw, None, "not UTF-8")
        except (ValueError, RecursionError) as error:
            cut = "" if raw.endswith(b"\n") else ", perhaps cut off: the file ends here without a line end"
            yield Line(number, raw, None, f"not JSON ({error}){cut}")
        else:
            yield _line(number, raw, value)


def _line(number: int, raw: bytes, value: Any) -> Line:
    """Accept a JSON value as a row if it is an object without lone surrogates."""
    if not isinstance(value, dict):
        return Line(number, raw, None, "not a JSON object")
    if rb"\ud" in raw.lower():
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return Line(number, raw, None, "half a character (a lone surrogate)")
    return Line(number, raw, value, "")
