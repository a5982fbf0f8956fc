"""The lines of an input file: JSON lines, one JSON array, or text.

Lines are parted by \\n alone (U+2028 is text), a BOM and \\r\\n are accepted, blank lines are skipped. A line that
holds no row says why: not UTF-8, not JSON (NaN and Infinity are none), cut off, half a character.
"""

import json
from collections.abc import Iterator
from math import isinf
from typing import Any, BinaryIO, NamedTuple

from datagen.errors import InputError
from datagen.records.record import Row

BOM = b"\xef\xbb\xbf"


class Line(NamedTuple):
    """A place in a file and the row that stands there, or the reason why none does."""

    number: int
    raw: bytes
    row: Row | None
    problem: str


def loads_strictly(text: str) -> Any:
    """Parse JSON as the standard has it: no NaN, no Infinity, and no number that would become one."""
    return STRICT(text)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _finite(number: str) -> float:
    if isinf(value := float(number)):
        raise ValueError(f"{number} is too large a number")
    return value


STRICT = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite).decode


def raw_lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not blank, numbered from 1."""
    file.seek(0)
    for number, raw in enumerate(file, 1):
        raw = raw.removeprefix(BOM) if number == 1 else raw
        if raw.strip():
            yield number, raw


def is_array(file: BinaryIO) -> bool:
    """Does the file start like a JSON array of objects?"""
    file.seek(0)
    head = file.read(4096).removeprefix(BOM).lstrip()
    return head[:1] == b"[" and head[1:].lstrip()[:1] in (b"{", b"]")


def text_lines(file: BinaryIO, key: str) -> Iterator[Line]:
    """Yield every line as a row that holds it under a key."""
    return (_text_line(number, raw, key) for number, raw in raw_lines(file))


def json_lines(name: str, file: BinaryIO) -> Iterator[Line]:
    """Yield the rows of JSON lines or of one JSON array; `name` is the file's, for messages."""
    if is_array(file):
        return _array(name, file)
    return (_json_line(number, raw) for number, raw in raw_lines(file))


def _text_line(number: int, raw: bytes, key: str) -> Line:
    try:
        return Line(number, raw, {key: raw.decode().rstrip("\r\n")}, "")
    except UnicodeDecodeError:
        return Line(number, raw, None, "not UTF-8")


def _json_line(number: int, raw: bytes) -> Line:
    try:
        row = loads_strictly(raw.decode())
    except UnicodeDecodeError:
        return Line(number, raw, None, "not UTF-8")
    except (ValueError, RecursionError) as error:
        torn = "" if raw.endswith(b"\n") else ", perhaps cut off: the file ends here without a line end"
        return Line(number, raw, None, f"not JSON ({error}){torn}")
    if not isinstance(row, dict):
        return Line(number, raw, None, "not a JSON object")
    return _without_surrogate(Line(number, raw, row, ""))


def _array(name: str, file: BinaryIO) -> Iterator[Line]:
    """Read one JSON array; a line number is then the number of the item."""
    file.seek(0)
    try:
        items = loads_strictly(file.read().removeprefix(BOM).decode())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: starts like a JSON array and is none: {error}") from error
    for number, item in enumerate(items, 1):
        raw = json.dumps(item).encode()
        problem = "" if isinstance(item, dict) else "not a JSON object"
        yield _without_surrogate(Line(number, raw, None if problem else item, problem))


def _without_surrogate(line: Line) -> Line:
    if rb"\ud" in line.raw.lower():
        try:
            json.dumps(line.row, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return line._replace(row=None, problem="half a character (a lone surrogate)")
    return line
