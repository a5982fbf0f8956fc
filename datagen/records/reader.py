"""Reads a file of rows, whatever their shape: detected once per file, or forced with --format.

A reader is asked for one kind of row:

    PROMPTS       prompts, with or without a response              shapes.py
    DOCUMENTS     text without a prompt                            shapes.py
    PREFERENCES   two answers to one prompt                        preferences.py
    RANKED        several answers to one prompt, with their ranks  ranked.py
    SAMPLES       several answers, ranked or not                   ranked.py

A file is JSON lines, one JSON array, or text (lines.py). A line that cannot be used becomes a BadLine with its place
and reason; a file that holds another kind is an error.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO, Generic, TypeVar

from datagen.errors import InputError
from datagen.records.files import open_input
from datagen.records.lines import is_array, json_lines, raw_lines, text_lines
from datagen.records.preferences import NEEDS, PREFERENCE_SHAPES, preference_shape
from datagen.records.record import ID_LENGTH, BadLine, Document, Preference, Record, Row, Seen, row_id
from datagen.records.shapes import DOCUMENT_SHAPES, PROMPT_SHAPES, Shape, key_list, prompt_shape

DETECT_LINES = 50
"""Lines that the shape of a file is detected from."""
OUR_ID = re.compile(f"[0-9a-f]{{{ID_LENGTH}}}")
T = TypeVar("T")


@dataclass(frozen=True)
class Kind(Generic[T]):
    """A kind of row that a reader can be asked for.

    Args:
        name: What the rows are, in the plural, for messages: "preferences".
        make: Makes a row: `make(id, *content, line=, source_id=, extra=, meta=)`, with the content that `Shape.read`
            returns. Usually the row's class.
        shapes: The shapes in which such rows come, by the name that `--format` takes. The first one is assumed for a
            file of damaged JSON; a shape named "text" allows files of plain text.
        detect: Takes a row and returns the name of its shape by its keys, None if it is of another kind.
        text_key: The field that a line of a text file becomes.
        keys: The keys by which such rows are recognised, for messages.
        needs: A sentence that says what such rows hold and how to make them, for messages.
        use: A sentence that names the command that takes such rows, for a user who gave them to another one.
        open: Opens a file by its name, seekable. May raise InputError.
    """

    name: str
    make: Callable[..., T]
    shapes: Mapping[str, Shape]
    detect: Callable[[Row], str | None]
    text_key: str
    keys: str
    needs: str
    use: str
    open: Callable[[str], BinaryIO] = open_input


PROMPTS = Kind(
    "prompts", Record, PROMPT_SHAPES, prompt_shape, "prompt", '"prompt", "instruction" or "messages"',
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
"""The kinds that a file may turn out to hold instead of the expected one, for messages."""


class Reader(Generic[T]):
    """Reads the rows of one file, any number of times.

    Args:
        name: The file's name, for messages.
        file: The open file, seekable.
        kind: The kind of rows to read, such as PROMPTS.
        shape: The name of one of the kind's shapes; None detects it from the first lines.

    Raises:
        InputError: The file is empty, holds another kind of rows, or `shape` is unknown.
    """

    def __init__(self, name: str, file: BinaryIO, kind: Kind[T], shape: str | None = None) -> None:
        self.name, self._file, self.kind = name, file, kind
        if shape is not None and shape not in kind.shapes:
            raise InputError(f"--format {shape}: expected one of {', '.join(kind.shapes)}")
        self.shape = shape or self._detect()

    def _detect(self) -> str:
        """Return the most frequent shape of the first lines."""
        lines = list(islice(json_lines(self.name, self._file), DETECT_LINES))
        rows = [line.row for line in lines if line.row is not None]
        if not lines:
            raise InputError(f"{self.name}: no rows (the file is empty)")
        if not rows:
            if any(raw.lstrip()[:1] == b"{" for _, raw in islice(raw_lines(self._file), DETECT_LINES)):
                return next(iter(self.kind.shapes))  # damaged JSON: every line becomes a BadLine
            if "text" not in self.kind.shapes:
                raise InputError(f"{self.name}: text, not JSON. {self.kind.needs}")
            return "text"
        shapes = Counter(shape for row in rows if (shape := self.kind.detect(row)))
        if shapes:
            return shapes.most_common(1)[0][0]
        other = next((kind for kind in KINDS if kind is not self.kind and kind.detect(rows[0])), None)
        problem = f"holds {other.name}, not {self.kind.name}" if other else f"no {self.kind.keys}"
        sentences = [f"{self.name}: {problem} (found: {key_list(rows[0])})", self.kind.needs]
        raise InputError(". ".join([*sentences, other.use] if other else sentences))

    def read(self) -> Iterator[T | BadLine]:
        """Yield the rows and the bad lines in the order of the file, the same ones each time.

        A row that a command of ours wrote keeps its id. Any other row gets an id from its content, and keeps its own
        as `source_id`. The n-th repetition of a row gets another id, from the id and n.
        """
        shape, is_text = self.kind.shapes[self.shape], self.shape == "text"
        seen, repetitions = Seen(), Counter[str]()
        for line in text_lines(self._file, self.kind.text_key) if is_text else json_lines(self.name, self._file):
            try:
                if (row := line.row) is None:
                    raise ValueError(line.problem)
                contents = shape.read(row)
            except ValueError as problem:
                yield BadLine(self.name, line.number, str(problem), line.raw.decode(errors="backslashreplace"))
                continue
            is_ours = isinstance(row.get("meta"), dict) and OUR_ID.fullmatch(str(row.get("id")))
            source_id = None if is_ours or row.get("id") is None else str(row["id"])
            extra = {key: value for key, value in row.items() if key not in shape.fields}
            meta = row["meta"] if is_ours else {}
            for content in contents:
                name = row["id"] if is_ours else row_id("input", [], 0, list(content))
                if not seen.add(name):
                    repetitions[name] += 1
                    name = row_id("input", [name], repetitions[name], list(content))
                yield self.kind.make(name, *content, line=line.number, source_id=source_id, extra=extra, meta=meta)

    def count_lines(self) -> int | None:
        """Count the lines that are not blank, about the number of rows; None for a JSON array."""
        if self.shape != "text" and is_array(self._file):
            return None
        return sum(1 for _ in raw_lines(self._file))
