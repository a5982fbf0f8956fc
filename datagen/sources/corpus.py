"""A corpus for instruction backtranslation: documents in, segments out, judged by rules before anything is paid.

A corpus is a file or a folder, gone through in the order of its names: .txt, .md, .html, and JSON lines of documents
({"text"}, and what is known of each: "path", "url", "title", "licence"); hidden files and other kinds are left out.
Rows with a prompt and a response are seeds: they go through as they are. What cannot be read is a bad line with its
place.

A paragraph that three documents share is boilerplate, and left out where it begins or ends a segment; documents that
are nearly the same count as one. Of two segments that are nearly the same the first stays.

Of an HTML page its text is taken as Markdown, without what stands in menus, forms and footers; spans are places in
that text.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from datagen.errors import InputError
from datagen.records.files import dump_line, open_input
from datagen.records.lines import json_lines
from datagen.records.reader import Kind
from datagen.records.record import Record, Row
from datagen.records.shapes import Shape, key_list
from datagen.select.minhash import NearDuplicates
from datagen.sources.segments import Segment, clean, fault, paragraphs, segments, without_boilerplate
from datagen.text import exact_key

SHARED, SHORT = 3, 20
"""Documents that share a paragraph from which it is boilerplate, if it is longer than so many characters."""
PLAIN, MARKDOWN, HTML = "plain", "markdown", "html"
SUFFIXES = {
    ".txt": PLAIN, ".md": MARKDOWN, ".markdown": MARKDOWN, ".mdx": MARKDOWN, ".html": HTML, ".htm": HTML, ".xhtml": HTML
}  # fmt: skip
LINES = (".jsonl", ".json", ".ndjson")
SKIPPED = frozenset(
    "title script style nav header footer aside form button select noscript svg template iframe".split()
)
BLOCKS = frozenset("p div section article main table tr ul ol dl dt dd blockquote figure figcaption br hr".split())
HEADERS = frozenset(("h1", "h2", "h3", "h4", "h5", "h6"))
VOID = frozenset("area base br col embed hr img input link meta source track wbr".split())


class Source(NamedTuple):
    """A document, and what is known of where it comes from."""

    name: str
    text: str
    kind: str
    licence: str | None


class _PageText(HTMLParser):
    """Takes the text of a page as Markdown."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._skipped: list[str] = []
        self._verbatim = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in SKIPPED or (self._skipped and tag == self._skipped[-1]):
            self._skipped.append(tag)
        if self._skipped:
            return
        if tag in HEADERS:
            self.parts.append(f"\n\n{'#' * int(tag[1])} ")
        elif tag == "li":
            self.parts.append("\n- ")
        elif tag == "pre":
            self._verbatim += 1
            self.parts.append("\n\n```\n")
        elif tag in BLOCKS:
            self.parts.append("\n\n")

    def handle_endtag(self, tag: str) -> None:
        if self._skipped:
            if tag == self._skipped[-1]:
                self._skipped.pop()
        elif tag == "pre" and self._verbatim:
            self._verbatim -= 1
            self.parts.append("\n```\n\n")
        elif tag in HEADERS or tag in BLOCKS:
            self.parts.append("\n\n")

    def handle_data(self, data: str) -> None:
        if not self._skipped:
            self.parts.append(data if self._verbatim else _one_line(data))


def _one_line(text: str) -> str:
    """Fold white space, as a browser does."""
    words = " ".join(text.split())
    return f"{' ' * text[:1].isspace()}{words}{' ' * (text[-1:].isspace() and bool(words))}"


def page_text(page: str) -> str:
    """Return the text of an HTML page as Markdown."""
    parser = _PageText()
    parser.feed(page)
    parser.close()
    lines = "".join(parser.parts).split("\n")
    return "\n".join(line.rstrip() for line in lines).strip() + "\n"


def documents(name: str) -> Iterator[Source | Row]:
    """Yield the documents of a corpus, the seeds among them, and {"problem"} for what cannot be read."""
    path = Path(name)
    if name != "-" and not path.exists():
        raise InputError(f"{name}: no such file or folder")
    if not path.is_dir():
        yield from _of_file(path, name)
        return
    files = [each for each in sorted(path.rglob("*")) if _is_document(each, each.relative_to(path))]
    if not files:
        raise InputError(f"{name}: holds no {', '.join((*SUFFIXES, *LINES))}")
    for each in files:
        yield from _of_file(each, str(each.relative_to(path)))


def _is_document(path: Path, inside: Path) -> bool:
    hidden = any(part.startswith(".") for part in inside.parts)
    return not hidden and path.suffix.lower() in (*SUFFIXES, *LINES) and path.is_file()


def _of_file(path: Path, name: str) -> Iterator[Source | Row]:
    kind = SUFFIXES.get(path.suffix.lower())
    if kind is None:
        yield from _of_lines(name, open_input(str(path)))
        return
    raw = path.read_bytes()
    try:
        yield made(name, raw.decode("utf-8-sig"), kind, None)
    except UnicodeDecodeError as error:
        yield {"problem": f"{name}: not UTF-8 (at byte {error.start})"}


def _of_lines(name: str, file: BinaryIO) -> Iterator[Source | Row]:
    with file:
        for line in json_lines(name, file):
            row, place = line.row, f"{name}:{line.number}"
            if row is None:
                yield {"problem": f"{place}: {line.problem}"}
            elif isinstance(row.get("text"), str):
                yield _document(row, place)
            elif {"prompt", "response"} <= row.keys():
                yield row
            else:
                yield {"problem": f'{place}: neither "text" nor "prompt" and "response" (found: {key_list(row)})'}


def _document(row: Row, place: str) -> Source:
    name = next((str(row[key]) for key in ("path", "url", "title", "id") if row.get(key)), place)
    licence = row.get("licence") or row.get("license")
    is_page = row["text"].lstrip()[:15].lower().startswith(("<!doctype html", "<html"))
    return made(name, row["text"], HTML if is_page else MARKDOWN, str(licence) if licence else None)


def made(name: str, text: str, kind: str, licence: str | None) -> Source:
    """Make a document; of a page its text is taken."""
    return Source(name, page_text(text) if kind == HTML else text, MARKDOWN if kind == HTML else kind, licence)


class _Corpus:
    """What is known of all documents: what they share, and the segments so far."""

    def __init__(self) -> None:
        self._documents_with = Counter[int]()
        self._keys: set[str] = set()
        self._near, self._documents = NearDuplicates(), NearDuplicates()

    def look_at(self, text: str) -> None:
        """Note the paragraphs of a document, unless it is nearly one that was seen before: a copy or a version."""
        if self._documents.add(text) is not None:
            return
        self._documents_with.update({hash(each) for each in map(str.strip, paragraphs(text)) if len(each) > SHORT})

    def is_boilerplate(self, paragraph: str) -> bool:
        return self._documents_with[hash(paragraph.strip())] >= SHARED

    def repeated(self, text: str) -> str | None:
        key = exact_key(text)
        if key in self._keys:
            return "duplicate"
        self._keys.add(key)
        return "near_duplicate" if self._near.add(text) is not None else None


def rows_of(source: Source, corpus: _Corpus) -> Iterator[Row]:
    """Yield the segments of a document as rows, each with the reason to drop it, if there is one."""
    found = list(segments(source.text, plain=source.kind == PLAIN))
    if not found:
        yield {"problem": f"{source.name}: holds no text"}
    for whole in found:
        own = without_boilerplate(source.text, whole, corpus.is_boilerplate)
        yield _row(source, own, corpus) if own.start < own.end else _row(source, whole, corpus, "boilerplate")


def _row(source: Source, segment: Segment, corpus: _Corpus, reason: str | None = None) -> Row:
    raw = source.text[segment.start : segment.end]
    text = clean(raw)
    reason = reason or fault(segment.header, raw) or corpus.repeated(text)
    return {
        "header": segment.header or "",
        "text": text,
        "document": source.name,
        "span": [segment.start, segment.end],
        "licence": source.licence,
        "reason": reason,
    }


def open_corpus(name: str) -> BinaryIO:
    """Read a corpus to its end; return its segments as JSON lines, to be gone through again."""
    corpus = _Corpus()
    with ExitStack() as opened:
        spool, seen = (opened.enter_context(tempfile.TemporaryFile()) for _ in range(2))
        for each in documents(name):
            if isinstance(each, Source):
                corpus.look_at(each.text)
            seen.write(dump_line(each._asdict() if isinstance(each, Source) else each))
        seen.seek(0)
        for row in map(json.loads, seen):
            for made in rows_of(Source(**row), corpus) if "kind" in row else (row,):
                spool.write(dump_line(made))
        seen.close()
        spool.seek(0)
        opened.pop_all()
        return spool


def _segment(row: Row) -> list[tuple[Any, ...]]:
    if "problem" in row:
        raise ValueError(row["problem"])
    if "text" not in row:
        prompt, response = row["prompt"], row["response"]
        if not isinstance(prompt, str) or not isinstance(response, str):
            raise ValueError('a seed holds a "prompt" and a "response", both of them text')
        return [(prompt, response, None, None, None, None)]
    return [tuple(row[key] for key in ("header", "text", "document", "span", "licence", "reason"))]


def _record(
    name: str, header: str, text: str, document: Any, span: Any, licence: Any, reason: Any, **more: Any
) -> Record:
    about = {"document": document, "span": span, "licence": licence, "reason": reason}
    return Record(name, header, text, **{**more, "meta": about})


FIELDS = frozenset("id meta header text document span licence reason prompt response".split())
CORPUS = Kind(
    "documents", _record, {"segment": Shape(_segment, FIELDS)}, lambda row: "segment", "text", '"text"',
    'A corpus is a folder of .txt, .md and .html, or rows with "text"', "Documents go to 'datagen backtranslate'",
    open_corpus,
)  # fmt: skip
"""Segments as records: the header is the prompt, the text the response; seeds as they are, without a document."""
