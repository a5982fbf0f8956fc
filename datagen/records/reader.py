"""Reads a file of rows, whatever their shape: detected once per file, or forced with --format.

A reader is asked for one kind of row:

    PROMPTS       prompts, with or without a response    the shapes in responses.py
    PREFERENCES   two answers to one prompt              the shapes in preferences.py
    DOCUMENTS     text that answers nobody               {"text"}, or one document per line

A file is JSON lines, one JSON array, or text (lines.py). What cannot be used becomes a BadLine with its place and
reason, never an error; a file that holds another kind is an error.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO, Generic, TypeVar, overload

from datagen.errors import InputError
from datagen.records.fields import Shape, found, join_input, text
from datagen.records.files import open_input
from datagen.records.lines import Line, is_array, json_lines, raw_lines, text_lines
from datagen.records.preferences import NEEDS, PREFERENCE_SHAPES, is_preference, preference_shape
from datagen.records.record import ID_LENGTH, BadLine, Document, Preference, Record, Row, Seen, row_id
from datagen.records.shapes import RESPONSE_SHAPES, response_shape

__all__ = ["DOCUMENTS", "FORMATS", "PREFERENCES", "PROMPTS", "Kind", "Reader", "join_input"]

DETECT_LINES = 50
"""Lines looked at to tell the shape of a file."""
OWN_ID = re.compile(f"[0-9a-f]{{{ID_LENGTH}}}")
FORMATS = tuple(RESPONSE_SHAPES)
"""The names that --format takes for prompts."""
T = TypeVar("T")


def _document(row: Row) -> list[tuple[str]]:
    return [(text(row, "text"),)]


def _has_several(row: Row) -> bool:
    """Does a row hold more than one answer?"""
    return is_preference(row) or "responses" in row


DOCUMENT_SHAPES = {
    "document": Shape(_document, frozenset(("id", "text", "meta"))),
    "text": Shape(_document, frozenset(("text",))),
}


@dataclass(frozen=True)
class Kind(Generic[T]):
    """What a reader is asked for."""

    name: str
    make: Callable[..., T]
    shapes: Mapping[str, Shape]
    shape_of: Callable[[Row], str | None]
    text_key: str
    """The field that a line of text becomes."""
    keys: str
    """What its rows are told by."""
    needs: str
    """What such rows hold, and what makes them."""
    fits: str
    """What they are good for."""
    open: Callable[[str], BinaryIO] = open_input


PROMPTS = Kind(
    "prompts", Record, RESPONSE_SHAPES, lambda row: None if _has_several(row) else response_shape(row), "prompt",
    '"prompt", "instruction" or "messages"',
    'Prompts are rows with "prompt", "instruction", "messages", "conversations", or "question" and "answer"; rows '
    'with "responses" go to \'datagen judge\' and \'datagen pairs\'',
    "Prompts with responses go to 'datagen train sft'",
)  # fmt: skip
PREFERENCES = Kind(
    "preferences", Preference, PREFERENCE_SHAPES, preference_shape, "prompt", '"chosen" or "rejected"',
    NEEDS, "Preferences go to 'datagen train dpo'; --format prompt takes a \"prompt\" alone",
)  # fmt: skip
DOCUMENTS = Kind(
    "documents", Document, DOCUMENT_SHAPES, lambda row: "document" if "text" in row else None, "text", '"text"',
    'Documents are rows with "text", or lines of text', "Documents go to 'datagen train pretrain'",
)  # fmt: skip
KINDS: tuple[Kind[Any], ...] = (PREFERENCES, PROMPTS, DOCUMENTS)


class Reader(Generic[T]):
    """Reads one file, as often as asked; the same rows each time."""

    @overload
    def __init__(self: "Reader[Record]", name: str, file: BinaryIO, shape: str | None = None) -> None: ...
    @overload
    def __init__(self, name: str, file: BinaryIO, shape: str | None, kind: Kind[T]) -> None: ...
    @overload
    def __init__(self, name: str, file: BinaryIO, *, kind: Kind[T]) -> None: ...
    def __init__(self, name: str, file: BinaryIO, shape: str | None = None, kind: Kind[Any] = PROMPTS) -> None:
        """`file` must be seekable; `shape` is one of the kind's, None to detect it."""
        self.name, self._file, self.kind = name, file, kind
        if shape is not None and shape not in kind.shapes:
            raise InputError(f"--format {shape}: expected one of {', '.join(kind.shapes)}")
        self.shape = shape or self._detect()

    def read(self) -> Iterator[T | BadLine]:
        """Yield the rows and the bad lines, in order."""
        places = _Places()
        for line in self._lines(self.shape):
            try:
                found_parts = self._parts(line)
            except ValueError as problem:
                yield BadLine(self.name, line.number, str(problem), line.raw.decode(errors="backslashreplace"))
                continue
            for parts in found_parts:
                yield self._made(line, parts, places)

    def count_lines(self) -> int | None:
        """Count the lines that are not blank, about as many as there are rows; None for a JSON array."""
        if self.shape != "text" and is_array(self._file):
            return None
        return sum(1 for _ in raw_lines(self._file))

    def _lines(self, shape: str) -> Iterator[Line]:
        if shape == "text":
            return text_lines(self._file, self.kind.text_key)
        return json_lines(self.name, self._file)

    def _parts(self, line: Line) -> Sequence[tuple[Any, ...]]:
        if line.row is None:
            raise ValueError(line.problem)
        return self.kind.shapes[self.shape].parts(line.row)

    def _made(self, line: Line, parts: tuple[Any, ...], places: "_Places") -> T:
        row = line.row or {}
        own = isinstance(row.get("meta"), dict) and OWN_ID.fullmatch(str(row.get("id")))
        base = row["id"] if own else row_id("input", [], 0, list(parts))
        place = places.next(base)
        name = base if place == 0 else row_id("input", [base], place, list(parts))
        source = None if own or row.get("id") is None else str(row["id"])
        extra = {key: value for key, value in row.items() if key not in self.kind.shapes[self.shape].fields}
        meta = row["meta"] if own else {}
        made: T = self.kind.make(name, *parts, line=line.number, source_id=source, extra=extra, meta=meta)
        return made

    def _detect(self) -> str:
        lines = list(islice(json_lines(self.name, self._file), DETECT_LINES))
        rows = [line.row for line in lines if line.row is not None]
        if not lines:
            raise InputError(f"{self.name}: no rows (the file is empty)")
        if not rows:
            return self._not_json()
        shapes = Counter(shape for row in rows if (shape := self.kind.shape_of(row)))
        if not shapes:
            raise self._unfit(rows[0])
        return shapes.most_common(1)[0][0]

    def _unfit(self, row: Row) -> InputError:
        """Say what the file holds instead, and where that goes."""
        other = next((kind for kind in KINDS if kind is not self.kind and kind.shape_of(row)), None)
        held = f"holds {other.name}, not {self.kind.name}" if other else f"no {self.kind.keys}"
        sentences = (f"{self.name}: {held} (found: {found(row)})", self.kind.needs, other.fits if other else "")
        return InputError(". ".join(filter(None, sentences)))

    def _not_json(self) -> str:
        """Text, unless it looks like JSON gone wrong throughout."""
        looks_like_json = any(raw.lstrip()[:1] == b"{" for _, raw in islice(raw_lines(self._file), DETECT_LINES))
        if looks_like_json:
            return next(iter(self.kind.shapes))
        if "text" not in self.kind.shapes:
            raise InputError(f"{self.name}: text, not JSON. {self.kind.needs}")
        return "text"


class _Places:
    """Counts how many rows equal to this one came before it."""

    def __init__(self) -> None:
        self._seen, self._again = Seen(), Counter[str]()

    def next(self, name: str) -> int:
        if self._seen.add(name):
            return 0
        self._again[name] += 1
        return self._again[name]
