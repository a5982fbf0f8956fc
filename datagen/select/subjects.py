"""Rows of every kind as rules see them: a prompt, the answers that would be learned from, and the row itself.

    kind                  the answers that rules and verifiers look at
    response              the response; none of a row whose label says that it is a bad one, or that only calls tools
    preference            the chosen one
    ranked answers        those of the best rank
    samples               all of them: a row is dropped if each has a reason
    document              its text

The answers of a row are more than those: benchmark questions are looked for in all of them. What was thought before an
answer is never looked at.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, BinaryIO

from datagen.errors import InputError, unknown_value
from datagen.records.files import open_input
from datagen.records.kinds import file_lines
from datagen.records.lines import FIRST_LINES
from datagen.records.ranked import SAMPLES
from datagen.records.reader import DOCUMENTS, PREFERENCES, PROMPTS, Kind, Reader, kind_of_row
from datagen.records.record import BadLine, Document, Preference, Record, Row

KINDS = (PROMPTS, PREFERENCES, SAMPLES, DOCUMENTS)
"""The kinds that a file may hold, the first one if two fit as well; of text, each line is a prompt."""


@dataclass(frozen=True, slots=True)
class Subject(Record):
    """A row of any kind. `response` is the first of its `learned` answers."""

    learned: tuple[str, ...] = ()
    """The answers that rules look at."""
    answers: tuple[str, ...] = ()
    """All of its answers, or the text of a document."""
    is_document: bool = False
    columns: Row = field(default_factory=dict, compare=False)
    """The whole row in our own layout, as it is written."""

    @property
    def row(self) -> Row:
        return self.columns

    @property
    def views(self) -> Iterator[Record]:
        """The row with each of its learned answers as the response; itself without one."""
        yield self
        for answer in self.learned[1:]:
            yield replace(self, response=answer)


class SubjectReader(Reader[Any]):
    """A reader of rows of one kind, as subjects."""

    def read(self) -> Iterator[Subject | BadLine]:
        for item in Reader.read(self):
            yield item if isinstance(item, BadLine) else subject_of(item)


def subject_of(item: Record | Preference | Document) -> Subject:
    """Return a row of any kind as a Subject."""
    learned, answers = answers_of(item)
    if not item.meta:  # a row of somebody else
        item = replace(item, meta={"method": "input", "source_id": item.source_id})
    common: Row = {name: getattr(item, name) for name in ("source_id", "extra", "meta", "line")}
    return Subject(
        item.id,
        "" if isinstance(item, Document) else item.prompt,
        learned[0] if learned else None,
        **common,
        tools=() if isinstance(item, Document) else item.tools,
        learned=learned,
        answers=answers,
        is_document=isinstance(item, Document),
        columns=item.row,
    )


def answers_of(item: Record | Preference | Document) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the answers of a row that would be learned from, and all of its answers."""
    if isinstance(item, Document):
        return (item.text,), (item.text,)
    if isinstance(item, Preference):
        return (item.chosen,), (item.chosen, item.rejected)
    if item.responses:
        ranked = zip(item.responses, item.ranks, strict=False)
        best = tuple(answer for answer, rank in ranked if rank == min(item.ranks))
        return best or item.responses, item.responses
    answers = () if item.response is None else (item.response,)
    calls_only = "tool_calls" in item.response_fields and not (item.response or "").strip()
    return () if item.label is False or calls_only else answers, answers


def read_any(
    name: str, file: BinaryIO, shape: str | None = None, mapping: Mapping[str, str] | None = None
) -> SubjectReader:
    """Return a reader of a file, whatever kind of rows it holds.

    Args:
        name: The file's name, for messages.
        file: The open file, seekable.
        shape: The name of a shape of any kind; None detects it.
        mapping: As for Reader.

    Raises:
        InputError: The file is empty, no kind fits its rows, or `shape` is unknown.
    """
    kinds = [kind for kind in KINDS if shape is None or shape in kind.shapes]
    if not kinds:
        raise unknown_value("--format", str(shape), dict.fromkeys(name for kind in KINDS for name in kind.shapes))
    readers, problems = list[SubjectReader](), list[InputError]()
    for kind in kinds:
        try:
            readers.append(SubjectReader(name, file, kind, None, mapping))
        except InputError as problem:
            problems.append(problem)
    if not readers and shape is None:
        raise problems[0]
    fits = [reader.kind for reader in readers] or kinds
    if len(fits) > 1:  # a file of several kinds: that of most rows
        first = islice(file_lines(name, file, PROMPTS.text_key), FIRST_LINES)
        counts = Counter(usual_kind(line.row) for line in first if line.row is not None)
        fits.sort(key=lambda kind: -counts[kind])
    return SubjectReader(name, file, fits[0], shape, mapping)


def usual_kind(row: Row) -> Kind[Any] | None:
    """Return the kind of a row; two answers are a preference, though they may be read as samples too."""
    kind = kind_of_row(row)
    return PREFERENCES if kind is SAMPLES and PREFERENCES.detect(row) else kind


def read_subjects(path: str) -> Iterator[Subject]:
    """Yield the rows of a file of any kind; InputError for one that cannot be used: it would not be looked at."""
    with open_input(path) as file:
        for row in read_any(path, file).read():
            if isinstance(row, BadLine):
                raise InputError(f"{row}; fix the line, or leave it out")
            yield row
