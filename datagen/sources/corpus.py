"""A corpus for instruction backtranslation: documents in, segments out, filtered by rules before any call is made.

A corpus is a file or a folder, read in the order of file names: .txt, .md, .html, .pdf, .docx, and JSON lines of
documents ({"text"}, and optionally "path", "url", "title", "licence"); hidden files and other kinds are skipped.
Rows with a prompt and a response are seeds and pass unchanged. What cannot be read is a bad line with its place. Each
stands under a key of its own in the files between the passes, so no column of a user's is taken for one of ours.

A paragraph that three documents share is boilerplate, and is cut where it begins or ends a segment; near-duplicate
documents count as one. Of two near-duplicate segments the first stays.

The text of a page, a PDF file or a document of Word is taken out first (extraction.py). A span is a place in that
text: `extraction.extract(kind, bytes)[start:end]`.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from datagen.errors import InputError
from datagen.records.columns import Fields, key_list
from datagen.records.files import dump_line, open_input
from datagen.records.folders import is_data_set
from datagen.records.kinds import file_lines, is_text
from datagen.records.reader import Kind
from datagen.records.record import Record, Row
from datagen.records.shapes import Content, Shape
from datagen.select.minhash import NearDuplicates
from datagen.sources.extraction import DOCX, HTML, PDF, Unreadable, extract
from datagen.sources.segments import BLANK, Segment, clean, rejection_reason, segments, without_boilerplate
from datagen.sources.segments import REASONS as SEGMENT_REASONS
from datagen.text import exact_key

SHARED, SHORT = 3, 20
"""A paragraph of more than SHORT characters in SHARED documents is boilerplate."""
PLAIN, MARKDOWN = "plain", "markdown"
SUFFIXES = {
    ".txt": PLAIN, ".md": MARKDOWN, ".markdown": MARKDOWN, ".mdx": MARKDOWN,
    ".html": HTML, ".htm": HTML, ".xhtml": HTML, ".pdf": PDF, ".docx": DOCX,
}  # fmt: skip
TEXT_OF = {HTML: MARKDOWN, DOCX: MARKDOWN, PDF: PLAIN}
"""The kind of the text that is taken out of a document."""
LINES = (".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".parquet", ".arrow", ".gz", ".zst")

SOURCE, SEED, SEGMENT, PROBLEM = "source", "seed", "segment", "problem"
"""What a line of the files between the passes holds."""
META = ("document", "span", "licence", "reason")
VALUES = ("header", "text", *META)
"""The values of a segment."""


class Source(NamedTuple):
    """A document and its origin."""

    name: str
    text: str
    kind: str
    licence: str | None


def documents(name: str) -> Iterator[Source | Row]:
    """Yield the documents of a corpus, {SEED} for the seeds among them, and {PROBLEM} for what cannot be read."""
    path = Path(name)
    if not path.is_dir() or is_data_set(path):
        yield from _of_file(name, name)
        return
    files = [
        file
        for file in sorted(path.rglob("*"))
        if file.suffix.lower() in (*SUFFIXES, *LINES)
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
        and file.is_file()
    ]
    if not files:
        raise InputError(f"{name}: holds no {', '.join((*SUFFIXES, *LINES))}")
    for file in files:
        yield from _of_file(str(file), str(file.relative_to(path)))


def _of_file(path: str, name: str) -> Iterator[Source | Row]:
    kind = SUFFIXES.get(Path(path).suffix.lower())
    with open_input(path) as file:
        if kind is None and not is_text(name, file):
            yield from _of_lines(name, file)
            return
        file.seek(0)
        raw = file.read()
    yield make_source(name, raw, kind or PLAIN, None)


def _of_lines(name: str, file: BinaryIO) -> Iterator[Source | Row]:
    for line in file_lines(name, file, "text"):
        row, place = line.row, f"{line.file or name}:{line.number}"
        if row is None:
            yield {PROBLEM: f"{place}: {line.problem}"}
        elif {"prompt", "response"} <= row.keys():
            yield {SEED: row, **{name: row[name] for name in ("id", "meta") if name in row}}
        elif isinstance(row.get("text"), str):
            origin = next((str(row[key]) for key in ("path", "url", "title", "id") if row.get(key)), place)
            licence = row.get("licence") or row.get("license")
            is_page = row["text"].lstrip()[:15].lower().startswith(("<!doctype html", "<html"))
            kind = HTML if is_page else MARKDOWN
            yield make_source(origin, row["text"].encode(), kind, str(licence) if licence else None)
        else:
            yield {PROBLEM: f'{place}: neither "text" nor "prompt" and "response" (found: {key_list(row)})'}


def make_source(name: str, content: bytes, kind: str, licence: str | None) -> Source | Row:
    """Make a document of its bytes; {PROBLEM} if they cannot be read."""
    try:
        text = extract(kind, content) if kind in (PDF, DOCX) else content.decode("utf-8-sig")
        if kind == HTML:
            text = extract(kind, text.encode())
    except UnicodeDecodeError as error:
        return {PROBLEM: f"{name}: not UTF-8 (at byte {error.start})"}
    except Unreadable as error:
        return {PROBLEM: f"{name}: {error}"}
    return Source(name, text, TEXT_OF.get(kind, kind), licence)


class _Corpus:
    """State over all documents: the paragraphs they share, and the segments so far."""

    def __init__(self) -> None:
        self._documents_with = Counter[int]()
        self._keys: set[str] = set()
        self._near, self._documents = NearDuplicates(), NearDuplicates()

    def add(self, text: str) -> None:
        """Count the paragraphs of a document, unless it is a near-duplicate (a copy or another version)."""
        if self._documents.add(text) is not None:
            return
        self._documents_with.update({hash(part) for part in map(str.strip, BLANK.split(text)) if len(part) > SHORT})

    def is_boilerplate(self, paragraph: str) -> bool:
        return self._documents_with[hash(paragraph.strip())] >= SHARED

    def repetition_reason(self, text: str) -> str | None:
        """Return the reason to drop a segment that came before; else remember it."""
        key = exact_key(text)
        if key in self._keys:
            return "duplicate"
        self._keys.add(key)
        return "near_duplicate" if self._near.add(text) is not None else None


def rows_of(source: Source, corpus: _Corpus) -> Iterator[Row]:
    """Yield the segments of a document as rows, each with the reason to drop it, if there is one."""
    passages = list(segments(source.text, plain=source.kind == PLAIN))
    if not passages:
        yield {PROBLEM: f"{source.name}: holds no text"}
    for passage in passages:
        rest = without_boilerplate(source.text, passage, corpus.is_boilerplate)
        yield _row(source, rest, corpus) if rest.start < rest.end else _row(source, passage, corpus, "boilerplate")


def _row(source: Source, segment: Segment, corpus: _Corpus, reason: str | None = None) -> Row:
    raw = source.text[segment.start : segment.end]
    text = clean(raw)
    reason = reason or rejection_reason(segment.header, raw) or corpus.repetition_reason(text)
    values = (segment.header or "", text, source.name, [segment.start, segment.end], source.licence, reason)
    return {SEGMENT: dict(zip(VALUES, values, strict=True))}


def open_corpus(name: str) -> BinaryIO:
    """Read a corpus to its end; return a file of its segments as JSON lines, which can be read more than once."""
    corpus = _Corpus()
    with ExitStack() as stack:
        segments_file, documents_file = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(2))
        # First pass: count shared paragraphs, which needs all documents.
        for document in documents(name):
            if isinstance(document, Source):
                corpus.add(document.text)
            documents_file.write(dump_line({SOURCE: document} if isinstance(document, Source) else document))
        # Second pass: cut the documents into segments.
        documents_file.seek(0)
        for row in map(json.loads, documents_file):
            for segment in rows_of(Source(*row[SOURCE]), corpus) if SOURCE in row else (row,):
                segments_file.write(dump_line(segment))
        documents_file.close()
        segments_file.seek(0)
        stack.pop_all()
        return segments_file


def _segment(fields: Fields) -> list[Content]:
    row = fields.row
    fields.read |= row.keys()
    if PROBLEM in row:
        raise ValueError(row[PROBLEM])
    if SEGMENT in row:
        return [Content(tuple(row[SEGMENT][name] for name in VALUES), {})]
    seed = row[SEED]
    if not isinstance(seed["prompt"], str) or not isinstance(seed["response"], str):
        raise ValueError('a seed holds a "prompt" and a "response", both of them text')
    fields.passed_on = {name: value for name, value in seed.items() if name not in ("id", "meta", "prompt", "response")}
    return [Content((seed["prompt"], seed["response"], *[None] * len(META)), {})]


def _record(
    name: str, header: str, text: str, document: Any, span: Any, licence: Any, reason: Any, **fields: Any
) -> Record:
    meta = dict(zip(META, (document, span, licence, reason), strict=True))
    return Record(name, header, text, **{**fields, "meta": meta})


REASONS = SEGMENT_REASONS | {
    "boilerplate": "The passage stands in several documents.",
    "near_duplicate": "The passage is nearly the same as an earlier one.",
}
"""Why a segment is dropped, and what that means."""
CORPUS = Kind(
    "documents", _record, {"segment": Shape(_segment, needs_any=(SEGMENT, SEED, PROBLEM))}, "text", '"text"',
    'A corpus is a folder of .txt, .md, .html, .pdf and .docx, or rows with "text"',
    "Documents go to 'datagen backtranslate'",
    open=open_corpus,
)  # fmt: skip
"""Segments as records: the header is the prompt, the text the response; seeds as they are, without a document."""
