"""The lines of a file of text: JSON lines, one JSON array, or plain text.

The library `jsonlines` reads the lines, with a parser that holds to the standard. Only \\n ends a line (U+2028 is
text); a BOM and \\r\\n are accepted, blank lines are skipped. A line without a usable row has a reason instead: not
UTF-8, not JSON (NaN and Infinity are not JSON), cut off, a lone surrogate.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from math import isfinite
from typing import Any, BinaryIO, NamedTuple, Self

import jsonlines

from datagen.errors import InputError
from datagen.records.record import Row

BOM = b"\xef\xbb\xbf"
LONGEST_LINE, LONGEST_VALUE = 1 << 28, 1 << 30
"""Bytes of the longest line, and of the longest JSON value of many lines. Whatever a packed file unpacks to, no more
than this is held in memory."""
FIRST_LINES = 50
"""Lines that tell what a file holds."""
WRAPPERS = ("data", "rows", "examples", "items", "records")
"""The names under which one object, without any other key, holds all rows of a file."""


class Line(NamedTuple):
    """One row of a file, or what stands in its place."""

    number: int
    """From 1: the line where it begins; in a JSON array and in Parquet or Arrow the number of the row."""
    raw: bytes
    row: Row | None
    """None if the line cannot be used."""
    problem: str
    """Why it cannot be used, else empty."""
    file: str = ""
    """The name of its own file, where an input is a folder; else empty."""
    repeated: tuple[str, ...] = ()
    """The keys that stand twice in an object; the last one counts."""


def finite_float(number: str) -> float:
    """Parse a JSON number; NaN and Infinity, which Python's parser lets through, are not JSON."""
    value = float(number)
    if not isfinite(value):
        raise ValueError(f"{number} is too large a number" if number[-1].isdigit() else f"{number} is not JSON")
    return value


def keep_last(pairs: list[tuple[str, Any]], repeated: list[str]) -> Row:
    """Return the object of these keys and values; add the keys that stand twice to `repeated`."""
    row = dict(pairs)
    if len(row) != len(pairs):
        repeated += [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    return row


loads_strictly = json.JSONDecoder(parse_constant=finite_float, parse_float=finite_float).decode
"""Parse JSON text by the standard: ValueError at NaN, Infinity, and numbers that overflow a float."""


def raw_lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not blank, numbered from 1. For errors see `all_lines`."""
    for number, raw in enumerate(all_lines(file), 1):
        if raw.strip():
            yield number, raw


def all_lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a file from its start, without a BOM.

    Raises:
        InputError: A line is longer than LONGEST_LINE.
    """
    file.seek(0)
    number, size = 0, LONGEST_LINE
    while raw := file.readline(size):
        number += 1
        if len(raw) == size:
            raise InputError(f"line {number} is longer than {size >> 20} MiB; split the file into rows")
        yield raw.removeprefix(BOM) if number == 1 else raw


def first_lines(file: BinaryIO) -> list[bytes]:
    """Return the first lines that are not blank."""
    return [raw.strip() for _, raw in islice(raw_lines(file), FIRST_LINES)]


def is_json(file: BinaryIO) -> bool:
    """Tell whether a text file holds JSON: an array, or lines of which one begins an object or is a string."""
    lines = first_lines(file)
    return (
        any(line.startswith(b"{") for line in lines) or is_array(file) or (lines != [] and all(map(is_string, lines)))
    )


def is_array(file: BinaryIO) -> bool:
    """Tell whether a file starts like a JSON array of objects or of strings."""
    file.seek(0)
    head = file.read(4096).removeprefix(BOM).lstrip()
    return head[:1] == b"[" and head[1:].lstrip()[:1] in (b"{", b'"', b"]")


def is_string(raw: bytes) -> bool:
    """Tell whether a line is a JSON string and nothing else."""
    try:
        return raw.startswith(b'"') and isinstance(loads_strictly(raw.decode()), str)
    except (ValueError, RecursionError):
        return False


def text_lines(file: BinaryIO, key: str) -> Iterator[Line]:
    """Yield every line of a text file as a row with one field, `key`."""
    for number, raw in raw_lines(file):
        try:
            text, problem = raw.decode().rstrip("\r\n"), "holds a NUL byte, which no text does" if 0 in raw else ""
        except UnicodeDecodeError:
            problem = "not UTF-8"
        yield Line(number, raw, None if problem else {key: text}, problem)


def json_lines(name: str, file: BinaryIO, text_key: str | None = None) -> Iterator[Line]:
    """Yield the lines of a file of JSON lines, or the items of its one JSON array.

    Args:
        name: The file's name, for messages.
        file: The file, seekable; it is read from its start.
        text_key: The field that each item becomes if the first one is a JSON string. None: only an object is a row.

    Raises:
        InputError: The file starts like a JSON array, or like one object on many lines, and is not one.
    """
    items = _array(name, file) if is_array(file) else _object(name, file)
    text_key = text_key if _begins_with_a_string(file) else None
    if items is not None:
        for number, item in enumerate(items, 1):
            yield _line(number, json.dumps(item).encode(), item, text_key)
        return
    numbered, repeated = Numbered(file), list[str]()
    reader = jsonlines.Reader(numbered, loads=strict_loads(repeated))
    while True:
        repeated.clear()
        try:
            value = reader.read(allow_none=True, skip_empty=True)
        except EOFError:
            return
        except jsonlines.InvalidLineError as error:
            yield Line(numbered.number, numbered.raw, None, _problem(error.__cause__, numbered.raw))
        else:
            line = _line(numbered.number, numbered.raw, value, text_key)
            yield line._replace(repeated=tuple(repeated)) if repeated else line


class Numbered:
    """The lines of a file, for a reader that gives their values alone: the number and the bytes of the last one."""

    def __init__(self, file: BinaryIO) -> None:
        self._lines = enumerate(all_lines(file), 1)
        self.number, self.raw = 0, b""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        self.number, self.raw = next(self._lines)
        return self.raw


def strict_loads(repeated: list[str]) -> Callable[[str | bytes], Any]:
    """Return a parser of JSON text by the standard, which adds keys that stand twice in an object to `repeated`."""
    take = partial(keep_last, repeated=repeated)
    decoder = json.JSONDecoder(parse_constant=finite_float, parse_float=finite_float, object_pairs_hook=take)

    def loads(text: str | bytes) -> Any:
        try:
            return decoder.decode(str(text))
        except RecursionError as error:  # nested too deeply
            raise ValueError(str(error)) from None

    return loads


def _problem(error: BaseException | None, raw: bytes) -> str:
    """Return why a line is not JSON."""
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    cut = "" if raw.endswith(b"\n") else ", perhaps cut off: the file ends here without a line end"
    return f"not JSON ({error}){cut}"


def _array(name: str, file: BinaryIO) -> list[Any]:
    """Return the items of a file's one JSON array."""
    try:
        items: list[Any] = loads_strictly(_whole(name, file))
    except (ValueError, RecursionError) as error:
        way_out = "; to read it as lines of text: --format text" if _begins_with_a_string(file) else ""
        raise InputError(f"{name}: starts like a JSON array but is not one: {error}{way_out}") from error
    return items


def _begins_with_a_string(file: BinaryIO) -> bool:
    """Tell whether the first item of an array, or the first line, is a JSON string."""
    file.seek(0)
    return file.read(4096).removeprefix(BOM).lstrip().removeprefix(b"[").lstrip()[:1] == b'"'


def _object(name: str, file: BinaryIO) -> list[Any] | None:
    """Return the rows of a file that is one JSON object: itself, or those under its one key; None for JSON lines."""
    lines = first_lines(file)
    is_pretty = len(lines) > 1 and lines[0][:1] == b"{" and lines[0][-1:] in b"{[,"
    if not is_pretty and len(lines) != 1:
        return None
    try:
        value = loads_strictly(_whole(name, file))
    except (ValueError, RecursionError) as error:
        if not is_pretty:
            return None  # its line says what is wrong
        problem = f"JSON on many lines that is not one object ({error})"
        raise InputError(f"{name}: {problem}; to write one row per line: jq -c . FILE") from error
    if isinstance(value, dict) and len(value) == 1:
        ((key, inner),) = value.items()
        if key in WRAPPERS and isinstance(inner, list) and inner and all(map(is_row, inner)):
            return list(inner)
    return [value] if is_pretty else None


def is_row(value: object) -> bool:
    """Tell whether a JSON value may be a row: an object that is no turn of a conversation."""
    return isinstance(value, dict) and "role" not in value and "from" not in value


def _whole(name: str, file: BinaryIO) -> str:
    """Return the text of a file that is one JSON value."""
    file.seek(0)
    data = file.read(LONGEST_VALUE)
    if len(data) == LONGEST_VALUE:
        raise InputError(f"{name}: one JSON value of more than {LONGEST_VALUE >> 30} GiB; write it as JSON lines")
    return data.removeprefix(BOM).decode()


def _line(number: int, raw: bytes, value: Any, text_key: str | None) -> Line:
    """Accept a JSON value as a row if it is an object without lone surrogates."""
    if isinstance(value, str) and text_key is not None:
        value = {text_key: value}
    if not isinstance(value, dict):
        return Line(number, raw, None, "not a JSON object")
    if rb"\ud" in raw.lower():
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return Line(number, raw, None, "half a character (a lone surrogate)")
    return Line(number, raw, value, "")
