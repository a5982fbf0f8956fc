"""Reads a file of rows, whatever their shape: detected for each row, or forced with --format.

A reader is asked for one kind of row:

    PROMPTS       prompts, with or without a response              prompt_shapes.py
    DOCUMENTS     text without a prompt                            prompt_shapes.py
    PREFERENCES   two answers to one prompt                        preferences.py
    RANKED        several answers to one prompt, with their ranks  ranked.py
    SAMPLES       several answers, ranked or not                   ranked.py

A file is of any kind that kinds.py knows: JSON, CSV, Parquet, Arrow, text, packed or not. A line that cannot be used
becomes a BadLine with its place and reason; a file that holds another kind is an error. So is a single row of which a
shape of another kind explains all that the asked kind does and more: answers are never set aside in silence.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, BinaryIO, Generic, TypeVar

from datagen.errors import InputError, unknown_value
from datagen.records.columns import MISSING, Account, Fields, flat_row, is_repeatable, key_list, mapped_row, value_at
from datagen.records.kinds import count_rows, file_lines, is_text
from datagen.records.layout import is_meta, unpack_row
from datagen.records.lines import FIRST_LINES, Line
from datagen.records.messages import ASSISTANT
from datagen.records.preferences import NEEDS, PREFERENCE_SHAPES
from datagen.records.preferences import OURS as OUR_PREFERENCES
from datagen.records.prompt_shapes import DOCUMENT_SHAPES, OUR_DOCUMENTS, OURS, PROMPT_SHAPES
from datagen.records.ranked import RANKED, SAMPLES
from datagen.records.record import ID_LENGTH, BadLine, Document, Preference, Record, Row, as_messages, row_id
from datagen.records.row_kinds import Kind as Kind
from datagen.records.seen import Seen
from datagen.records.shapes import Content, Shape, best_shape
from datagen.records.trees import grow_trees, is_message

TWO_ANSWERS = "chosen", "rejected"
"""Columns that are never set aside where nothing else of a row is a response."""
OUR_ID = re.compile(f"[0-9a-f]{{{ID_LENGTH}}}")
T = TypeVar("T")
PROMPTS = Kind(
    "prompts", Record, PROMPT_SHAPES, "prompt", '"prompt", "instruction" or "messages"',
    'Prompts are rows with "prompt", "instruction", "messages", "conversations", or "question" and "answer"; '
    "--map prompt=COLUMN,response=COLUMN names others",
    "Prompts with responses go to 'datagen train sft'", OURS,
)  # fmt: skip
PREFERENCES = Kind(
    "preferences", Preference, PREFERENCE_SHAPES, "prompt", '"chosen" or "rejected"',
    NEEDS, "Preferences go to 'datagen train dpo'; --format prompt takes a \"prompt\" alone", OUR_PREFERENCES,
)  # fmt: skip
DOCUMENTS = Kind(
    "documents", Document, DOCUMENT_SHAPES, "text", '"text"',
    'Documents are rows with "text", or lines of text', "Documents go to 'datagen train pretrain'", OUR_DOCUMENTS,
)  # fmt: skip
KINDS: tuple[Kind[Any], ...] = (PREFERENCES, PROMPTS, DOCUMENTS, SAMPLES)
"""The kinds that a file may turn out to hold instead of the expected one; of two that fit as well, the first."""
SEVERAL: tuple[Kind[Any], ...] = (PREFERENCES, SAMPLES, RANKED)
"""The kinds of several answers: a row of one of them may be one of another too."""


def kind_of_row(row: Row) -> Kind[Any] | None:
    """Return the kind that explains most columns of a row; None if none does.

    Two answers with a soft label are a preference, although only samples read the label.
    """
    row = flat_row(row)
    fits = [(kind, fit) for kind in KINDS if (fit := best_shape(kind.shapes, row))]
    return max(fits, key=lambda fit: len(fit[1].explains - {"soft_label"}), default=(None, None))[0]


class Reader(Generic[T]):
    """Reads the rows of one file, any number of times.

    Args:
        name: The file's name, for messages.
        file: The open file, seekable.
        kind: The kind of rows to read, such as PROMPTS.
        shape: The name of one of the kind's shapes; None detects it, row by row.
        mapping: The columns of the file by our names (`parse_map`).

    Raises:
        InputError: The file is empty, holds another kind of rows or lacks a column of `mapping`, or `shape` is unknown.
    """

    def __init__(
        self,
        name: str,
        file: BinaryIO,
        kind: Kind[T],
        shape: str | None = None,
        mapping: Mapping[str, str] | None = None,
    ) -> None:
        self.name, self._file, self.kind, self._mapping = name, file, kind, mapping or {}
        if shape is not None and shape not in kind.shapes:
            raise unknown_value("--format", shape, kind.shapes)
        self._forced, self._shapes, self._holds_messages = shape, dict[Any, tuple[str, Shape, bool] | None](), False
        self.account = Account()
        """What became of the columns in the rows that were read last."""
        self.shape = shape or self._detect()
        """The shape of most rows."""

    def _detect(self) -> str:
        """Return the most frequent shape of the first lines."""
        if is_text(self.name, self._file):
            if "text" not in self.kind.shapes:
                raise InputError(f"{self.name}: text, not JSON. {self.kind.needs}")
            return "text"
        first = [line.row for line in islice(self._lines(), FIRST_LINES)]
        if not first:
            raise InputError(f"{self.name}: no rows (the file is empty)")
        whole = [row for row in first if row is not None]
        if not whole:
            return next(iter(self.kind.shapes))  # damaged: every line becomes a BadLine
        for ours, path in self._mapping.items():
            if all(value_at(row, path) is MISSING for row in whole):
                raise InputError(f"{self.name}: --map {ours}={path}: no such column (found: {key_list(whole[0])})")
        self._holds_messages = is_message(whole[0])
        rows = whole
        if self._holds_messages:  # they grow into trees
            rows = [line.row for line in islice(self._lines(), FIRST_LINES) if line.row is not None]
        shapes, others = Counter[str](), list[Row]()
        for row in rows or whole:
            by_us = is_ours(row)
            try:
                named = self._named(row, by_us)
            except ValueError:
                continue  # a row of ours that is damaged
            try:
                shape = self._shape_of(named, by_us)
            except ValueError:
                shape = None
            if shape:
                shapes[shape[0]] += 1
            else:
                others.append(named)
        if others and not shapes:
            raise self._wrong_kind(others[0])
        return shapes.most_common(1)[0][0] if shapes else next(iter(self.kind.shapes))

    def _wrong_kind(self, row: Row) -> InputError:
        other = kind_of_row(row)
        other = None if other is self.kind else other
        problem = f"holds {other.name}, not {self.kind.name}" if other else f"no {self.kind.keys}"
        sentences = [f"{self.name}: {problem} (found: {key_list(row)})", self.kind.needs, other.use if other else ""]
        return InputError(". ".join(filter(None, sentences)))

    def _lines(self, *, as_text: bool | None = None) -> Iterator[Line]:
        lines = file_lines(self.name, self._file, self.kind.text_key, as_text=as_text)
        return grow_trees(lines) if self._holds_messages else lines

    def _named(self, row: Row, ours: bool) -> Row:
        """Return a row with its columns as `--map` names them, and without a wrapper around them; ours unpacked."""
        row = unpack_row(row) if ours else row
        row = mapped_row(row, self._mapping) if self._mapping else row
        return row if ours else flat_row(row)

    def _shape_of(self, row: Row, is_ours: bool) -> tuple[str, Shape, bool] | None:
        """Return the shape of a row, its name first, and whether only our own names of columns count; None for none.

        Raises:
            ValueError: The row is of another kind.
        """
        if self._forced:
            return self._forced, self.kind.shapes[self._forced], False
        key = (is_ours, *((name, type(value)) for name, value in row.items()))
        if key not in self._shapes:
            self._shapes[key] = self._best(row, is_ours)
        return self._shapes[key]

    def _best(self, row: Row, is_ours: bool) -> tuple[str, Shape, bool] | None:
        must = frozenset(self._mapping)
        shapes = self.kind.ours if is_ours else self.kind.shapes
        fit = best_shape(shapes, row, exact=is_ours, must=must)
        if fit is None:
            return self._best(row, False) if is_ours else None
        others = [kind for kind in KINDS if kind is not self.kind and not {kind, self.kind} <= {*SEVERAL}]
        for other in others if self.kind in (*KINDS, *SEVERAL) else ():
            more = best_shape(other.ours if is_ours else other.shapes, row, exact=is_ours)
            if more is None or must:
                continue
            explains_more = fit.core < more.explains and len(fit.reads) < len(more.explains)
            if explains_more or len(fit.core) + 1 < len(more.core):  # a prompt alone, beside a prompt and two answers
                raise self._of_another_kind(other, row)
        return fit.shape, shapes[fit.shape], is_ours

    def _of_another_kind(self, other: Kind[Any], row: Row) -> ValueError:
        return ValueError(f"holds {other.name}, not {self.kind.name} (found: {key_list(row)})")

    def _read(self, line: Line) -> tuple[Row, bool, Fields, list[Content], str]:
        """Read the row of a line; return it, whether it is ours, its fields, its contents and the name of its shape."""
        if line.row is None:
            raise ValueError(line.problem)
        ours = is_ours(line.row)
        row = self._named(line.row, ours)
        # A row of no shape is read as most rows are: that says what is missing.
        name, shape, exact = self._shape_of(row, ours) or (self.shape, self.kind.shapes[self.shape], False)
        fields = Fields(row, shape.roles, exact)
        contents = list(shape.read(fields))
        is_open = self.kind is PROMPTS and not (self._forced or self._mapping) and {*TWO_ANSWERS} <= row.keys()
        if is_open and not fields.read & {*TWO_ANSWERS} and all(content.base[1:] == (None,) for content in contents):
            raise self._of_another_kind(PREFERENCES, row)
        return row, ours, fields, contents, name

    def read(self) -> Iterator[T | BadLine]:
        """Yield the rows and the bad lines in the order of the file, the same ones each time.

        A row that a command of ours wrote keeps its id. Any other row gets an id from its content, and keeps its own
        as `source_id`. The n-th repetition of a row gets another id, from the id and n.
        """
        seen, repetitions, account = Seen(), Counter[str](), Account()
        self.account = account
        for line in self._lines(as_text=self.shape == "text"):
            try:
                row, ours, fields, contents, shape = self._read(line)
            except ValueError as problem:
                yield BadLine(
                    line.file or self.name, line.number, str(problem), line.raw.decode(errors="backslashreplace")
                )
                continue
            extra = rest_of(fields, contents, ours)
            fields.notes += [f'the key "{key}" twice in one object; the last one counts' for key in line.repeated]
            account.add(shape, row, fields, extra)
            source_id = None if ours or row.get("id") is None else str(row["id"])
            for base, more in contents:
                content = [*base, more] if more else list(base)
                name = row["id"] if ours else row_id("input", [], 0, content)
                if not seen.add_digest(int(name, 16) or 1):  # an id is a digest
                    repetitions[name] += 1
                    name = row_id("input", [name], repetitions[name], content)
                common: Row = {"line": line.number, "source_id": source_id, "extra": extra}
                if self.kind is PROMPTS and isinstance(row.get("instruction"), str):
                    common["instruction"] = row["instruction"]
                yield self.kind.make(name, *base, **more, **common, meta=row["meta"] if ours else {})

    def count_lines(self) -> int | None:
        """Count the rows, nearly; None where that takes as long as to read them."""
        return count_rows(self.name, self._file)


def is_ours(row: Row) -> bool:
    """Tell whether a command of ours wrote a row."""
    return is_meta(row.get("meta")) and OUR_ID.fullmatch(str(row.get("id"))) is not None


def rest_of(fields: Fields, contents: list[Content], is_ours: bool) -> Row:
    """Return the columns of a row that are passed on: those that were not read, and do not repeat what was."""
    if not any(is_repeatable(name) for name in fields.row.keys() - fields.read):
        return fields.rest(is_ours=is_ours)
    texts, conversations = list[str](), list[object]()
    for content in contents:
        prompt, *answers = content.base
        before = as_messages(prompt)
        answers = [text for answer in answers for text in (answer if isinstance(answer, tuple) else (answer,))]
        answers = [text for text in answers if isinstance(text, str)]
        texts += [*(message["content"] for message in before), *answers]
        conversations += [before, *([*before, {"role": ASSISTANT, "content": answer}] for answer in answers)]
    return fields.rest(texts, conversations, is_ours)
