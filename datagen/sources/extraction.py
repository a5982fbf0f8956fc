"""The text of pages, PDF files and documents of Word, taken out by kept libraries in a process of its own.

    HTML    Markdown, without menus, forms and notices (trafilatura)
    DOCX    Markdown: headings, paragraphs, lists and tables in order (python-docx)
    PDF     plain text, the lines of a paragraph joined (pypdf)

Pictures, notes, comments, links and scripts are left out, and nothing is fetched. A file is of somebody else: what it
may cost has a bound in bytes, pages, text, memory and time (datagen/subprocesses.py); one that exceeds it is not read.
"""

import logging
import re
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable
from functools import cache
from io import BytesIO
from itertools import pairwise
from typing import Any
from zipfile import ZipFile

from datagen.errors import DatagenError
from datagen.libraries import check_library, import_library
from datagen.records.record import Row
from datagen.subprocesses import LineProcess, ProcessEnded, serve

HTML, PDF, DOCX = "HTML", "PDF", "DOCX"
EXTRA = "docs"
LIBRARIES = {HTML: "trafilatura", PDF: "pypdf", DOCX: "docx"}
"""What is imported for each format."""
MOST_BYTES = 200 << 20
MOST_UNPACKED = 500 << 20
"""Bytes of a document of Word, unpacked: a zip archive of some kilobytes may hold terabytes."""
MOST_PAGES = 5000
MOST_TEXT = 20_000_000
"""Characters of the text of one document."""
CPU_SECONDS = 60.0
"""For one document; a page of the web takes about 0.02."""
SHORT_LINE = 0.75
"""A line that is shorter than this share of the longest one of its page ends a paragraph."""
BROKEN_WORD = re.compile(r"(?<=[^\W\d_])[-\u00ad]\Z")
ITEM = re.compile(r"1\. |- ")
HEADING = re.compile(r"Heading ([1-6])\Z|Title\Z", re.IGNORECASE)


class Unreadable(DatagenError):
    """A document from which no text can be taken."""


def extract(kind: str, content: bytes) -> str:
    """Return the text of a document. The same versions of the libraries make the same text of it.

    Raises:
        InputError: The library is not installed.
        Unreadable: It is damaged, encrypted, too large or takes too long, with the reason in one line.
    """
    check_library(LIBRARIES[kind], f"to read {kind}", EXTRA)
    if len(content) > MOST_BYTES:
        raise Unreadable(f"{len(content) >> 20:,} MiB, more than {MOST_BYTES >> 20}")
    try:
        reply = process().request({"kind": kind, "content": b64encode(content).decode()})
    except ProcessEnded as error:
        problem = f"takes more than {CPU_SECONDS:g} s" if error.is_slow else f"its reader ended ({error})"
        raise Unreadable(problem) from None
    if "error" in reply:
        raise Unreadable(" ".join(str(reply["error"]).split()))
    return str(reply["text"])


@cache
def process() -> LineProcess:
    """Return the process that reads documents."""
    return LineProcess("datagen.sources.extraction", CPU_SECONDS)


def read_request(request: Row) -> Row:
    """Take the text out of one document, in the other process."""
    text = READERS[request["kind"]](b64decode(request["content"]))
    if len(text) > MOST_TEXT:
        return {"error": f"{len(text):,} characters of text, more than {MOST_TEXT:,}"}
    return {"text": text}


def page_text(content: bytes) -> str:
    """Return the text of an HTML page as Markdown."""
    trafilatura = import_library("trafilatura", "to read HTML", EXTRA)
    options = {"include_comments": False, "include_formatting": True, "favor_recall": True, "deduplicate": False}
    text = trafilatura.extract(content.decode(), output_format="markdown", **options)
    return f"{text.strip()}\n" if text else ""


def pdf_text(content: bytes) -> str:
    """Return the text of a PDF file, its pages one after another."""
    reader = import_library("pypdf", "to read PDF", EXTRA).PdfReader(BytesIO(content))
    if reader.is_encrypted:
        raise Unreadable("encrypted: save a copy without a password")
    if len(reader.pages) > MOST_PAGES:
        raise Unreadable(f"{len(reader.pages):,} pages, more than {MOST_PAGES:,}")
    pages, size = [], 0
    for page in reader.pages:
        pages.append(join_lines(page.extract_text()))
        size += len(pages[-1])
        if size > MOST_TEXT:
            raise Unreadable(f"more than {MOST_TEXT:,} characters of text")
    return "\n\n".join(filter(None, pages)) + "\n"


def join_lines(text: str) -> str:
    """Return the text of a page with the lines of each paragraph joined, and a blank line between paragraphs.

    PDF knows no paragraphs: one ends where a line is blank or clearly shorter than the longest.
    """
    lines = [line.strip() for line in text.splitlines()]
    full = SHORT_LINE * max(map(len, lines), default=0)
    paragraphs: list[list[str]] = [[]]
    for line in lines:
        parts = paragraphs[-1]
        if parts and BROKEN_WORD.search(parts[-1]) and line[:1].islower():
            parts[-1] = parts[-1][:-1]
            parts.append(line)
        elif line:
            parts.append(f" {line}" if parts else line)
        if len(line) < full:
            paragraphs.append([])
    return "\n\n".join(filter(None, map("".join, paragraphs)))


def docx_text(content: bytes) -> str:
    """Return the text of a document of Word as Markdown."""
    with ZipFile(BytesIO(content)) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    if size > MOST_UNPACKED:
        raise Unreadable(f"{size >> 20:,} MiB when it is unpacked, more than {MOST_UNPACKED >> 20}")
    document = import_library("docx", "to read DOCX", EXTRA).Document(BytesIO(content))
    blocks = [table_text(one) if hasattr(one, "rows") else paragraph_text(one) for one in document.iter_inner_content()]
    parts = []
    for before, block in pairwise(["", *filter(None, blocks)]):
        parts += ["\n" if ITEM.match(before) and ITEM.match(block) else "\n\n", block]
    return "".join(parts).strip() + "\n"


def paragraph_text(paragraph: Any) -> str:
    """Return a paragraph of Word with the marks of a heading or of a list."""
    text, style = paragraph.text.strip(), str(getattr(paragraph.style, "name", "") or "")
    properties = paragraph._p.pPr
    if not text:
        return ""
    if heading := HEADING.match(style):
        return f"{'#' * int(heading[1] or 1)} {' '.join(text.split())}"
    if style.startswith("List") or (properties is not None and properties.numPr is not None):
        return f"{'1.' if 'Number' in style else '-'} {text}"
    return str(text)


def table_text(table: Any) -> str:
    """Return a table of Word as one of Markdown."""
    rows = [[" ".join(cell.text.split()).replace("|", r"\|") for cell in row.cells] for row in table.rows]
    lines = [f"| {' | '.join(cells)} |" for cells in rows]
    rule = f"|{'---|' * len(rows[0])}" if rows else ""
    return "\n".join([*lines[:1], rule, *lines[1:]])


READERS: dict[str, Callable[[bytes], str]] = {HTML: page_text, PDF: pdf_text, DOCX: docx_text}

if __name__ == "__main__":
    logging.disable()  # libraries repeat words of the document
    serve(read_request, float(sys.argv[1]))
