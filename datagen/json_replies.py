"""JSON in the text of a completion, as models write it: fenced, indented, among prose, one object a line, not quite
JSON. `json-repair` mends what no strict reading takes; nothing that it returns counts before a schema has accepted it,
since it makes a value of almost any text.

The time of `json-repair` grows with the square of the text (a fifth of a second for 2,000 brackets), and a reply is
read in the event loop: only texts with few levels and marks for their length are mended (MOST_WORK). Everything else
here is linear.
"""

import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any, NamedTuple

from datagen.errors import ParseError
from datagen.records.lines import finite_float, loads_strictly
from datagen.schemas import Schema, same

BRACKET = re.compile(r"[\[\]{}()]")
MARK = re.compile(r"""[\[\]{}"\\]""")
FENCES = re.compile(r"\A\s*```[\w-]*|```\s*\Z")
SPECIAL = re.compile(r"[^\w\s.,-]")
"""Characters that cost `json-repair` time."""
LONGEST = 40_000
"""Characters of a reply that is not JSON as a whole, in which values are looked for."""
MOST_WORK = 2_000_000
"""Characters of a text times its special ones, up to which it is mended: 0.15 s for the worst texts that a search
through 5,000 hostile ones has met."""
WORK_OF_ONE = 5_000
"""What one text costs beside its length."""
MOST_SPANS = 100
"""Values of a reply of which the last valid one is looked for."""
DEEPEST = 32
"""Levels of brackets in a text that is mended."""
SIGNS = re.compile(r"""["'“”:\d]""")
"""Without any of these a text in brackets is prose."""
ENDS = ('"', "]", "}")
"""What a value ends with whose last brackets alone are missing; after anything else its last part may be torn."""
MOST_BRACKETS = 3
"""Brackets that are never closed, such as those of a face in prose, after which another value is looked for."""
UNREADABLE = "no JSON that can be read"


class Span(NamedTuple):
    """A part of a text from a bracket to the one that closes it."""

    text: str
    is_closed: bool
    is_torn: bool
    """The text ends inside a string or a number in it."""


class Reading(NamedTuple):
    """A JSON value that a schema has accepted."""

    value: Any
    text: str
    """As the model wrote it if it was valid as it stood, else written anew."""


decode = json.JSONDecoder(parse_constant=finite_float, parse_float=finite_float, strict=False).decode
"""Parse JSON; line breaks in strings are let through, as models write them."""


def read_value(text: str, schema: Schema) -> Reading:
    """Read the JSON value of a reply: the last one that is valid.

    Raises:
        ParseError: There is none.
    """
    whole = FENCES.sub("", text).strip()
    problem = ParseError(UNREADABLE)
    try:
        return reading_of(loads_strictly(whole), schema, text.strip())
    except ParseError as error:
        problem = error
    except (ValueError, RecursionError):
        pass
    if len(text) > LONGEST:
        raise ParseError(f"{problem}, and more than {LONGEST:,} characters")
    mender = Mender()
    candidates = chain(reversed(list(spans(text))), after_open_brackets(text))
    for span in islice(candidates, MOST_SPANS):
        for values in (decoded, mender.mended):
            try:
                return reading_of(values(span), schema, "")
            except ParseError as error:
                problem = error if str(error) != UNREADABLE else problem
    raise problem


def reading_of(value: Any, schema: Schema, text: str) -> Reading:
    """Return a valid value with its text: the given one, if it is that value as it stands."""
    valid = schema.read(value)
    written = json.dumps(valid, ensure_ascii=False)
    try:
        written.encode()
    except UnicodeEncodeError:
        raise ParseError("half a character (a lone surrogate)") from None
    return Reading(valid, text if same(valid, value) and text[:1] != "`" and text else written)


def read_items(text: str, name: str, schema: Schema) -> list[Any | None]:
    """Read the objects of a reply that lists some: under a name, in an array, numbered, or one after another.

    Args:
        text: The reply.
        name: The key that was asked for.
        schema: Of one object.

    Returns:
        What the schema made of each object; None for one that is not valid or cannot be read.

    Raises:
        ParseError: None can be read.
    """
    items: list[Any | None] = []
    for value in listed_values(text):
        for item in items_in(value, name):
            try:
                items.append(schema.read(item))
            except ParseError:
                items.append(None)
    if all(item is None for item in items):
        raise ParseError(UNREADABLE if not items else "no object as it was asked for")
    return items


def items_in(value: Any, name: str) -> list[Any]:
    """Return the objects that a value lists; a list without objects, such as the mark [1], lists none."""
    if isinstance(value, dict):
        inner = value.get(name, next(iter(value.values()), None) if len(value) == 1 else list(value.values()))
        if isinstance(inner, dict) and name in value:
            return [inner]
        is_list = isinstance(inner, list) and bool(inner) and all(isinstance(item, dict) for item in inner)
        return inner if isinstance(inner, list) and (is_list or name in value) else [value]
    if isinstance(value, list):
        return value if any(isinstance(item, dict) for item in value) else []
    return [None]


def listed_values(text: str) -> list[Any]:
    """Return the JSON values of a reply, None for one that cannot be read."""
    whole = FENCES.sub("", text).strip()
    try:
        return [loads_strictly(whole)]
    except (ValueError, RecursionError):
        pass
    if len(text) > LONGEST:
        return []
    values = [decoded_or_none(span) for span in spans(text)]
    if None not in values:
        return values
    mender = Mender()
    lines = [line.strip().rstrip(",") for line in text.splitlines()]
    of_lines = [next(spans(line)) for line in lines if line.startswith("{") and line != "{"]
    if any(decoded_or_none(line) is not None for line in of_lines):
        return mender.all_readable(of_lines)
    return mender.all_readable(piece for span in spans(text) for piece in pieces(span))


def spans(text: str, begin: int = 0) -> Iterator[Span]:
    """Yield the parts of a text that stand in brackets, the outermost alone."""
    start, depth, mark = begin, 0, ""
    for at, mark, depth in brackets(text, begin):
        if mark in "[{" and depth == 1:
            start = at
        elif not depth:
            yield Span(text[start : at + 1], is_closed=True, is_torn=False)
    if depth:
        rest = FENCES.sub("", text[start:]).rstrip()
        yield Span(rest, is_closed=False, is_torn=mark == '"' or not rest.endswith(ENDS))


def brackets(text: str, begin: int = 0) -> Iterator[tuple[int, str, int]]:
    """Yield the brackets of a text that stand in no string: the place, the bracket, and how many are open behind it.

    Strings stand within brackets, and a bracket that closes none is left out. A string that does not end comes last, as
    its quotation mark.
    """
    depth, escaped, quoted = 0, -1, False
    for match in MARK.finditer(text, begin):
        at, mark = match.start(), match[0]
        if at == escaped:
            continue
        if quoted:
            quoted = mark != '"'
            escaped = at + 1 if mark == "\\" else -1
        elif mark == '"':
            quoted = depth > 0
        elif mark in "[{" or (mark in "]}" and depth):
            depth += 1 if mark in "[{" else -1
            yield at, mark, depth
    if quoted:
        yield len(text), '"', depth


def after_open_brackets(text: str) -> Iterator[Span]:
    """Yield the values that stand behind brackets which are never closed, the last first."""
    begin = 0
    for _ in range(MOST_BRACKETS):
        last = next((span for span in reversed(list(spans(text, begin))) if not span.is_closed), None)
        if last is None:
            return
        begin = text.index(last.text, begin) + 1
        yield from (span for span in reversed(list(spans(text, begin))) if span.is_closed)


def pieces(span: Span) -> Iterator[Span]:
    """Yield the innermost objects of a part that cannot be read as a whole."""
    start = -1
    for at, mark, _ in brackets(span.text):
        if mark == "{":
            start = at
        elif mark == "}" and start >= 0:
            yield Span(span.text[start : at + 1], is_closed=True, is_torn=False)
            start = -1
    if start >= 0:
        yield Span(span.text[start:], is_closed=False, is_torn=True)


def decoded(span: Span) -> Any:
    """Parse a part of a text as JSON. Raises ParseError if it is none."""
    try:
        return decode(span.text)
    except (ValueError, RecursionError):
        raise ParseError(UNREADABLE) from None


def decoded_or_none(span: Span) -> Any:
    """Parse a part of a text as JSON; None if it is none."""
    try:
        return decoded(span)
    except ParseError:
        return None


class Mender:
    """Mends what is nearly JSON, for one reply: its work is bounded."""

    def __init__(self) -> None:
        self._work = 0

    def all_readable(self, parts: Iterable[Span]) -> list[Any]:
        """Parse or mend parts of a text; None for one where neither can be done."""
        return [self._readable(part) for part in parts]

    def _readable(self, span: Span) -> Any:
        for values in (decoded, self.mended):
            try:
                return values(span)
            except ParseError:
                continue
        return None

    def mended(self, span: Span) -> Any:
        """Make an object or a list of a text that is nearly one. Raises ParseError if that would be a guess."""
        text = span.text
        if span.is_torn or self._work > MOST_WORK or not SIGNS.search(text):
            raise ParseError(UNREADABLE)
        self._work += len(text) * len(SPECIAL.findall(text)) + WORK_OF_ONE
        if self._work > MOST_WORK or levels(text) > DEEPEST:
            raise ParseError(UNREADABLE)
        from json_repair import loads

        try:
            value = loads(text, skip_json_loads=True)
            json.dumps(value, allow_nan=False)
        except Exception:  # of a library that reads anything: whatever it cannot, is not read
            raise ParseError(UNREADABLE) from None
        if not isinstance(value, dict | list):
            raise ParseError(UNREADABLE)
        return value


def levels(text: str) -> int:
    """Count how deep brackets stand in each other, at most."""
    depth = deepest = 0
    for bracket in BRACKET.findall(text):
        depth = depth + 1 if bracket in "[{(" else max(0, depth - 1)
        deepest = max(depth, deepest)
    return deepest
