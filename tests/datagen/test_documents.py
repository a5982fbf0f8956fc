"""Pages, PDF files and documents of Word: their text in order, and one line for a file that cannot be read."""

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from datagen.errors import InputError
from datagen.records.record import Row
from datagen.sources import extraction
from datagen.sources.corpus import open_corpus
from datagen.sources.extraction import DOCX, HTML, PDF, Unreadable, extract, join_lines
from datagen.subprocesses import LineProcess

pytest.importorskip("trafilatura")
pypdf = pytest.importorskip("pypdf")
docx = pytest.importorskip("docx")

BREAD = "The baker measures flour, water and salt, and lets the dough rest until it has doubled. " * 4
OVEN = "A hot oven makes the crust crisp, and steam in the first minutes lets the loaf grow. " * 4
MENU = "<div class='menu'><a href='/'>Home</a> <a href='/shop'>Shop</a></div>"
NOTICE = "<div id='cookie-banner'>We use cookies to improve your visit. <button>Accept</button></div>"
PAGES = {
    "tables": (
        f"<article><h1>Prices</h1><p>{BREAD}</p><table><tr><th>Fruit</th><th>Price</th></tr><tr><td>Apple</td>"
        f"<td>3</td></tr></table><p>{OVEN}</p></article>",
        ["# Prices", "| Apple | 3 |"],
    ),
    "a form around the page": (f"<form><h2>Bread</h2><p>{BREAD}</p><p>{OVEN}</p></form>", [OVEN.strip()]),
    "a title in a header": (f"<article><header><h1>Bread</h1></header><p>{BREAD}</p></article>", ["# Bread"]),
    "a menu that is never closed": (f"<nav><ul><li><a href='/'>Home</a></ul><p>{BREAD}</p><p>{OVEN}</p>", [OVEN[:80]]),
    "menus and notices": (f"{MENU}<main><h1>Bread</h1><p>{BREAD}</p></main>{NOTICE}<footer>Copyright</footer>", []),
    "lists and code": (
        f"<main><p>{BREAD}</p><ol><li>Mix</li><li>Bake</li></ol><p>Run <code>make bread</code> now. {OVEN}</p>"
        "<pre><code>a = 1\n  b = 2</code></pre></main>",
        ["1. Mix\n2. Bake", "`make bread`", "a = 1\n  b = 2"],
    ),
}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_keeps_its_text_and_loses_its_menus(name: str) -> None:
    page, parts = PAGES[name]
    text = extract(HTML, f"<html><body>{page}</body></html>".encode())
    assert BREAD.strip() in text
    assert [part for part in parts if part not in text] == []
    for removed in ("Home", "Shop", "cookies", "Accept", "Copyright", "<p>"):
        assert removed not in text
    assert extract(HTML, f"<html><body>{page}</body></html>".encode()) == text


def pdf_of(*pages: str, password: str = "") -> bytes:
    """Make a PDF file with lines of text on each page."""
    from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

    writer = pypdf.PdfWriter()
    font = DictionaryObject(
        {NameObject("/Type"): NameObject("/Font"), NameObject("/Subtype"): NameObject("/Type1"),
         NameObject("/BaseFont"): NameObject("/Helvetica")}
    )  # fmt: skip
    for text in pages:
        page = writer.add_blank_page(600, 800)
        lines = "".join(f"({line}) Tj 0 -14 Td " for line in text.split("\n"))
        stream = DecodedStreamObject()
        stream.set_data(f"BT /F1 12 Tf 20 780 Td {lines} ET".encode("latin-1"))
        page[NameObject("/Contents")] = writer._add_object(stream)
        page[NameObject("/Resources")] = DictionaryObject(
            {NameObject("/Font"): DictionaryObject({NameObject("/F1"): font})}
        )
    if password:
        writer.encrypt(password, algorithm="RC4-128")
    file = io.BytesIO()
    writer.write(file)
    return file.getvalue()


def test_the_pages_of_a_pdf_are_plain_text_in_order() -> None:
    text = extract(
        PDF, pdf_of("The baker measures the flour and the wa-\nter, and waits.\nThen the oven is lit.", "Two.")
    )
    assert text.index("The baker measures the flour and the water, and waits.") < text.index("Two.")


def test_the_lines_of_a_paragraph_are_joined() -> None:
    page = "A line that is as long as the page is wide\nand one more of the very same leng-\nth ends here.\nA new one."
    assert join_lines(page).split("\n\n") == [
        "A line that is as long as the page is wide and one more of the very same length ends here.",
        "A new one.",
    ]
    assert join_lines("") == ""


def docx_of() -> bytes:
    document = docx.Document()
    document.add_heading("Bread", 1)
    document.add_paragraph(BREAD)
    document.add_paragraph("Mix", style="List Number")
    document.add_paragraph("Salt", style="List Bullet")
    table = document.add_table(2, 2)
    for row, texts in zip(table.rows, (("Fruit", "Price"), ("Apple|Pear", "3")), strict=True):
        for cell, text in zip(row.cells, texts, strict=True):
            cell.text = text
    document.add_heading("Oven", 2)
    document.add_paragraph(OVEN)
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


def test_a_document_of_word_is_markdown_in_its_order() -> None:
    table = "| Fruit | Price |\n|---|---|\n| Apple\\|Pear | 3 |"
    parts = ["# Bread", BREAD.strip(), "1. Mix\n- Salt", table, "## Oven", OVEN.strip()]
    assert extract(DOCX, docx_of()) == "\n\n".join(parts) + "\n"


def bomb() -> bytes:
    """Make a document of Word of some megabytes less than a gigabyte, in a megabyte."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("word/document.xml", "w") as part:
        for _ in range(6):
            part.write(bytes(100 << 20))
    return file.getvalue()


def endless() -> bytes:
    """Make a PDF file whose page tree is its own child."""
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Kids [2 0 R 2 0 R] /Count 99999999 >>"]
    body, places = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(body))
        body += b"%d 0 obj %b endobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    head = b"xref\n0 3\n0000000000 65535 f \n"
    return body + head + table + b"trailer << /Size 3 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % len(body)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give documents two seconds."""
    limited = LineProcess("datagen.sources.extraction", 2.0)
    monkeypatch.setattr(extraction, "process", lambda: limited)
    yield
    limited.close()


def test_a_hostile_file_costs_one_line_and_the_next_one_is_read(quick: None) -> None:
    hostile = {
        "encrypted.pdf": pdf_of("Secret.", password="x"), "endless.pdf": endless(), "damaged.pdf": b"%PDF-1.7\n\0",
        "damaged.docx": b"PK\x03\x04", "a.html": b"\xff\xfe",
    }  # fmt: skip
    folder = Path("corpus")
    folder.mkdir()
    for name, content in (hostile | {"z.docx": docx_of()}).items():
        (folder / name).write_bytes(content)
    rows = rows_of("corpus")
    problems = {row["problem"].partition(":")[0]: row["problem"] for row in rows if "problem" in row}
    assert problems.keys() == hostile.keys()
    assert "password" in problems["encrypted.pdf"]
    assert all("\n" not in problem and len(problem) < 400 for problem in problems.values())
    assert {row["document"] for row in rows if "document" in row} == {"z.docx"}


@pytest.mark.slow
def test_a_small_archive_of_much_is_not_unpacked() -> None:
    with pytest.raises(Unreadable, match="600 MiB when it is unpacked, more than 500"):
        extract(DOCX, bomb())


def test_a_process_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    limited = LineProcess("datagen.sources.extraction", 0.01)
    monkeypatch.setattr(extraction, "process", lambda: limited)
    with pytest.raises(Unreadable, match="takes more than"):
        extract(HTML, f"<p>{BREAD * 20_000}</p>".encode())
    assert limited._process is None


def rows_of(name: str) -> list[Row]:
    with open_corpus(name) as file:
        lines = [json.loads(line) for line in file]
    return [line.get("segment") or line for line in lines]


def test_spans_are_places_in_the_text_that_is_taken_out() -> None:
    folder = Path("corpus")
    folder.mkdir()
    page = f"<html><body><article><h2>Bread</h2><p>{BREAD}</p><p>{OVEN}</p></article></body></html>".encode()
    for name, content in {"a.html": page, "b.docx": docx_of(), "c.pdf": pdf_of(f"{BREAD}\n{OVEN}")}.items():
        (folder / name).write_bytes(content)
    rows = rows_of("corpus")
    kinds = {"a.html": HTML, "b.docx": DOCX, "c.pdf": PDF}
    assert {row["document"] for row in rows} == kinds.keys()
    for row in rows:
        start, end = row["span"]
        text = extract(kinds[row["document"]], (folder / row["document"]).read_bytes())
        assert "".join(text[start:end].split())[:200] == "".join(row["text"].split())[:200]


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(extraction.LIBRARIES, PDF, "no_such_library")
    with pytest.raises(InputError, match=r"to read PDF, no_such_library is needed\. To install: .*\[docs\]"):
        extract(PDF, b"%PDF-")
