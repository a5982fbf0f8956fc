"""Every shape in which rows come in: detected once per file, or forced with --format.

    prompt          {"prompt"} or {"prompt", "response"}; the prompt a string or a list of messages (our own rows)
    alpaca          {"instruction", "input", "output"}
    self-instruct   {"instruction", "instances": [{"input", "output"}]}: one record per instance
    messages        {"messages": [{"role", "content"}]}; a last assistant turn is the response
    text            one prompt per line

A file is JSON lines, one JSON array, or text. Lines are parted by \\n alone (U+2028 is text), a BOM and \\r\\n are
accepted, blank lines are skipped. What cannot be used becomes a BadLine with its place and reason, never an error.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, BinaryIO, NamedTuple

from datagen.errors import InputError
from datagen.rows import ID_LENGTH, BadLine, Record, Row, Seen, Text, row_id

DETECT_LINES = 50
"""Lines looked at to tell the shape of a file."""
OWN_ID = re.compile(f"[0-9a-f]{{{ID_LENGTH}}}")
BOM = b"\xef\xbb\xbf"


class Pair(NamedTuple):
    """What every shape is reduced to."""

    prompt: Text
    response: str | None


def _text(row: Row, name: str, *, needed: bool = True) -> str:
    value = row.get(name)
    if value is None and not needed:
        return ""
    if name not in row:
        raise ValueError(f'no "{name}" (found: {", ".join(map(str, row)) or "nothing"})')
    if not isinstance(value, str):
        raise ValueError(f'"{name}" is not text')
    if needed and not value.strip():
        raise ValueError(f'"{name}" is empty')
    return value


def _conversation(value: object) -> list[dict[str, str]]:
    """Check a list of messages; keep role and content."""
    if not isinstance(value, list) or not value:
        raise ValueError("messages are not a list of {role, content}")
    messages = []
    for message in value:
        if not isinstance(message, dict) or not all(isinstance(message.get(k), str) for k in ("role", "content")):
            raise ValueError("a message has no text as role and content")
        messages.append({"role": message["role"], "content": message["content"]})
    return messages


def _as_prompt(messages: list[dict[str, str]]) -> Text:
    if not messages or messages[-1]["role"] != "user" or not messages[-1]["content"].strip():
        raise ValueError("the conversation does not end in a user's message with text")
    return messages[-1]["content"] if len(messages) == 1 else messages


def _prompt(row: Row) -> list[Pair]:
    if isinstance(row.get("prompt"), list):
        return [Pair(_as_prompt(_conversation(row["prompt"])), _text(row, "response", needed=False) or None)]
    return [Pair(_text(row, "prompt"), _text(row, "response", needed=False) or None)]


def join_input(instruction: str, given: str) -> str:
    """Join an instruction and its input as the formats here do: a blank line between them."""
    return f"{instruction}\n\n{given}" if given else instruction


def _alpaca(row: Row) -> list[Pair]:
    given, output = _text(row, "input", needed=False), _text(row, "output", needed=False)
    return [Pair(join_input(_text(row, "instruction"), given), output or None)]


def _self_instruct(row: Row) -> list[Pair]:
    instances = row.get("instances")
    if not isinstance(instances, list) or not instances or not all(isinstance(i, dict) for i in instances):
        raise ValueError('"instances" is not a list of {input, output}')
    return [pair for instance in instances for pair in _alpaca({**instance, "instruction": row.get("instruction")})]


def _messages(row: Row) -> list[Pair]:
    messages = _conversation(row.get("messages"))
    response = messages.pop()["content"] if messages[-1]["role"] == "assistant" else None
    return [Pair(_as_prompt(messages), response)]


class Shape(NamedTuple):
    """One format: how to read a row of it, and the fields that it uses up."""

    pairs: Callable[[Row], list[Pair]]
    fields: frozenset[str]


OURS = frozenset(("id", "prompt", "response", "meta"))
SHAPES = {
    "prompt": Shape(_prompt, OURS),
    "self-instruct": Shape(_self_instruct, OURS | {"instruction", "instances"}),
    "messages": Shape(_messages, OURS | {"messages"}),
    "alpaca": Shape(_alpaca, OURS | {"instruction", "input", "output"}),
    "text": Shape(_prompt, OURS),
}
FORMATS = tuple(SHAPES)


def shape_of(row: Row) -> str | None:
    """Name the format of a row by its keys."""
    if "prompt" in row:
        return "prompt"
    if "instances" in row:
        return "self-instruct"
    return next((name for name, key in (("messages", "messages"), ("alpaca", "instruction")) if key in row), None)


def loads_strictly(text: str) -> Any:
    """Parse JSON as the standard has it: no NaN, no Infinity."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


class Line(NamedTuple):
    """A place in a file and the row that stands there, or the reason why none does."""

    number: int
    raw: bytes
    row: Row | None
    problem: str


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


def _without_surrogate(line: Line) -> Line:
    if rb"\ud" in line.raw.lower():
        try:
            json.dumps(line.row, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return line._replace(row=None, problem="half a character (a lone surrogate)")
    return line


def _text_line(number: int, raw: bytes) -> Line:
    try:
        return Line(number, raw, {"prompt": raw.decode().rstrip("\r\n")}, "")
    except UnicodeDecodeError:
        return Line(number, raw, None, "not UTF-8")


def _raw_lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    for number, raw in enumerate(file, 1):
        raw = raw.removeprefix(BOM) if number == 1 else raw
        if raw.strip():
            yield number, raw


def _array(name: str, file: BinaryIO) -> Iterator[Line]:
    """Read one JSON array; a line number is then the number of the item."""
    try:
        items = loads_strictly(file.read().removeprefix(BOM).decode())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: starts like a JSON array and is none: {error}") from error
    for number, item in enumerate(items, 1):
        raw = json.dumps(item).encode()
        problem = "" if isinstance(item, dict) else "not a JSON object"
        yield _without_surrogate(Line(number, raw, None if problem else item, problem))


class Reader:
    """Reads one file, as often as asked; the same records each time."""

    def __init__(self, name: str, file: BinaryIO, shape: str | None = None) -> None:
        """`file` must be seekable; `shape` is one of FORMATS, None to detect it."""
        self.name, self._file = name, file
        if shape is not None and shape not in SHAPES:
            raise InputError(f"--format {shape}: expected one of {', '.join(FORMATS)}")
        self.shape = shape or self._detect()

    def read(self) -> Iterator[Record | BadLine]:
        """Yield the records and the bad lines, in order."""
        places = _Places()
        for line in self._lines():
            try:
                pairs = self._pairs(line)
            except ValueError as problem:
                yield BadLine(self.name, line.number, str(problem), line.raw.decode(errors="backslashreplace"))
                continue
            for pair in pairs:
                yield self._record(line.row or {}, pair, places)

    def count_lines(self) -> int | None:
        """Count the lines that are not blank, about as many as there are rows; None for a JSON array."""
        self._file.seek(0)
        return None if self._is_array() else sum(1 for _ in _raw_lines(self._file))

    def _pairs(self, line: Line) -> list[Pair]:
        if line.row is None:
            raise ValueError(line.problem)
        return SHAPES[self.shape].pairs(line.row)

    def _record(self, row: Row, pair: Pair, places: "_Places") -> Record:
        own = isinstance(row.get("meta"), dict) and OWN_ID.fullmatch(str(row.get("id")))
        base = row["id"] if own else row_id("input", [], 0, list(pair))
        place = places.next(base)
        name = base if place == 0 else row_id("input", [base], place, list(pair))
        source = None if own or row.get("id") is None else str(row["id"])
        extra = {key: value for key, value in row.items() if key not in SHAPES[self.shape].fields}
        return Record(name, pair.prompt, pair.response, source, extra)

    def _lines(self) -> Iterator[Line]:
        self._file.seek(0)
        if self._is_array():
            return _array(self.name, self._file)
        make = _text_line if self.shape == "text" else _json_line
        return (make(number, raw) for number, raw in _raw_lines(self._file))

    def _is_array(self) -> bool:
        head = self._file.read(4096).removeprefix(BOM).lstrip()
        self._file.seek(0)
        return head[:1] == b"[" and head[1:].lstrip()[:1] in (b"{", b"]") and self.shape != "text"

    def _detect(self) -> str:
        self.shape = "prompt"
        rows = [line.row for line in islice(self._lines(), DETECT_LINES)]
        found = [row for row in rows if row is not None]
        if not rows:
            raise InputError(f"{self.name}: no rows (the file is empty)")
        if not found:
            return self._not_json()
        shapes = Counter(shape for row in found if (shape := shape_of(row)))
        if not shapes:
            keys = ", ".join(map(str, found[0])) or "nothing"
            raise InputError(f'{self.name}: no "prompt", "instruction" or "messages" (found: {keys})')
        return shapes.most_common(1)[0][0]

    def _not_json(self) -> str:
        """Text, unless it looks like JSON gone wrong throughout."""
        self._file.seek(0)
        looks_like_json = any(raw.lstrip()[:1] == b"{" for _, raw in islice(_raw_lines(self._file), DETECT_LINES))
        return "prompt" if looks_like_json else "text"


class _Places:
    """Counts how many rows equal to this one came before it."""

    def __init__(self) -> None:
        self._seen, self._again = Seen(), Counter[str]()

    def next(self, name: str) -> int:
        if self._seen.add(name):
            return 0
        self._again[name] += 1
        return self._again[name]
