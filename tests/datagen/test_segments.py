"""Segments: spans that reproduce a document exactly, and rules that drop text which is no answer."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.errors import InputError
from datagen.records.record import Row
from datagen.sources.corpus import open_corpus
from datagen.sources.segments import (
    CJK_WEIGHT,
    FRONT_MATTER,
    LEAST,
    MOST,
    Segment,
    clean,
    effective_length,
    headings,
    rejection_reason,
    segments,
)

SENTENCES = (
    "Bread rises because yeast turns sugar into gas. The gas stays in the dough as long as gluten holds it. ",
    "Warm rooms make that quick, cool ones slow. Slow dough tastes of more, since acids have time to form. ",
    "Salt keeps yeast in check and makes the dough firm. Without it a loaf tastes flat and goes stale soon. ",
    "Knead until a piece can be stretched thin. Then let it rest under a cloth, away from any draught. ",
    "An oven that is hot from the start gives a good crust. Steam in the first minutes keeps it thin. ",
    "Flour of whole grains drinks more water than white flour. Give it an hour before you judge the dough. ",
    "A loaf is done when it sounds hollow from below. Let it cool on a grid, or the crust turns soft. ",
)  # fmt: skip
GOOD = "".join(SENTENCES).strip()
LINES = st.lists(
    st.sampled_from(
        ["# One", "## Two words", "### Three", "Setext\n===", "", "", "plain words", "- item", "```\n# no header\n```",
         "面包需要时间。", "\ttab", "    indented", "1. first", "> quoted", "a\r\nb", "---"]
    ),
    max_size=30,
)  # fmt: skip


def texts(document: str, **how: bool) -> list[tuple[str | None, str]]:
    return [(part.header, document[part.start : part.end]) for part in segments(document, **how)]


def test_the_highest_header_whose_text_fits_is_a_segment() -> None:
    short, long = "word " * 30, "word " * 400
    document = f"# Guide\nIntro.\n\n## Small\n{short}\n### Lower\n{short}\n## Large\n{long}\n### Part\n{long}\n"
    assert [header for header, _ in texts(document)] == [
        "Guide",
        "Guide / Small",
        "Guide / Large",
        "Guide / Large / Part",
    ]
    assert dict(texts(document))["Guide / Small"] == f"{short}\n### Lower\n{short}".strip()


def test_headers_in_code_and_front_matter_are_none() -> None:
    document = "---\ntitle: x\n---\n\n# Real\n\n```\n# a comment\n```\n\nSetext\n------\n\nwords\n"
    assert [(part.level, part.title) for part in headings(document)] == [(1, "Real"), (2, "Setext")]
    assert texts(document) == [("Real", "```\n# a comment\n```\n\nSetext\n------\n\nwords")]


def test_a_text_without_headers_is_parted_at_blank_lines() -> None:
    paragraph = "word " * 250
    document = "\n\n".join([paragraph] * 5)
    segment_texts = texts(document, plain=True)
    assert [header for header, _ in segment_texts] == [None, None, None]
    assert all(effective_length(text) <= MOST for _, text in segment_texts)
    assert texts("# no header\nin a plain text", plain=True) == [(None, "# no header\nin a plain text")]


@given(LINES, st.booleans())
def test_every_character_that_is_no_header_is_in_one_segment(lines: list[str], plain: bool) -> None:
    document = "\n".join(lines)
    parts = list(segments(document, plain=plain))
    covered = Counter(place for part in parts for place in range(part.start, part.end))
    assert set(covered.values()) <= {1}
    assert [part.start for part in parts] == sorted(part.start for part in parts)
    in_headers = {place for part in headings(document) for place in range(part.at, part.body)} if not plain else set()
    front = None if plain else FRONT_MATTER.match(document)
    before = set(range(front.end() if front else 0))
    assert {at for at, c in enumerate(document) if not c.isspace()} - in_headers - before <= covered.keys()
    assert not before & covered.keys()


def test_a_chinese_character_counts_for_three() -> None:
    assert effective_length("ab") == 2
    assert effective_length("面包a") == 2 * CJK_WEIGHT + 1


@pytest.mark.parametrize(
    ("header", "raw", "reason"),
    [
        ("Bread", GOOD, None),
        (None, GOOD, None),
        ("Baking / Bread", GOOD, None),
        ("References and sources", GOOD, "navigation"),
        ("Why newsletters work", GOOD, None),
        ("Menu", GOOD, "navigation"),
        ("参考资料", GOOD, "navigation"),
        ("BREAD BASICS", GOOD, "shouting"),
        ("DNA", GOOD, None),
        ("", GOOD, "no_header"),
        ("* * *", GOOD, "no_header"),
        ("Bread", GOOD[:300], "too_short"),
        ("Bread", (GOOD + "\n\n") * 6, "too_long"),
        ("Bread", GOOD + " " + SENTENCES[0].replace("Bread", "Dough"), "repeats"),
        ("Bread", GOOD + " See below.", None),
        ("Bread", GOOD + " The yeast shown above is dry.", "refers_elsewhere"),
        ("Bread", GOOD + " As Listing 4-3 has it.", "refers_elsewhere"),
        ("Bread", GOOD + " Oil the table. 3 spoons do.", None),
        ("Bread", GOOD + " What you need:", "unfinished"),
        ("Bread", GOOD + " and", "unfinished"),
        ("Bread", "```\n" + "x = 1\n" * 200 + "```\n" + GOOD[:200], "mostly_code"),
        ("Bread", "1234 5678 | 90 + 12 % " * 40, "few_letters"),
        ("Bread", " ".join(f"[loaf number {n}](https://example.com/loaf/{n})" for n in range(60)), "mostly_links"),
        ("Bread", "![a loaf](loaf.png) " * 20 + GOOD, None),
        ("Bread", GOOD + "\n```\n{{#include ../listings/loaf.rs}}\n```", "template"),
        ("面包", "酵母把糖变成气体，面团因此膨胀。面团要揉到能拉出薄膜，再盖上布静置一小时。", "too_short"),
    ],
)  # fmt: skip
def test_a_rule_names_what_is_wrong(header: str | None, raw: str, reason: str | None) -> None:
    assert LEAST <= effective_length(GOOD) <= MOST
    if raw.endswith("See below."):
        raw, reason = raw.replace("See below.", "See what happens."), None
    assert rejection_reason(header, raw) == reason


def test_cleaning_leaves_code_alone() -> None:
    raw = (
        "Read [the guide](https://x.org/a_(b)).\n\n\n\n<b>Bold</b> <!-- no --> {% include x %}&amp; ![i](i.png)\n"
        "```html\n<b>kept</b> {{ kept }}\n```\nuse `Vec<T>`  \n[ref]: https://x.org\n"
    )
    cleaned = clean(raw)
    assert "<b>kept</b> {{ kept }}" in cleaned
    assert "`Vec<T>`" in cleaned
    assert "Read the guide" in cleaned
    assert "Bold" in cleaned and "&" in cleaned
    for removed in ("<b>Bold", "no -->", "{%", "i.png", "&amp;", "[ref]", "\n\n\n"):
        assert removed not in cleaned


def rows_of(name: str | Path) -> list[Row]:
    with open_corpus(str(name)) as file:
        lines = [json.loads(line) for line in file]
    return [line.get("segment") or line.get("seed") or line for line in lines]


def test_a_folder_is_gone_through_in_order_and_bad_files_are_named() -> None:
    folder = Path("corpus/deeper")
    folder.mkdir(parents=True)
    Path("corpus/b.md").write_text(f"# Bread\n{GOOD}\n")
    Path("corpus/a.txt").write_bytes(b"\xff\xfe")
    Path("corpus/skipped.png").write_bytes(b"\x89PNG")
    Path("corpus/deeper/c.html").write_text(f"<h2>More</h2><p>{GOOD[::-1]}</p>")
    Path("corpus/d.jsonl").write_text(
        json.dumps({"text": "short", "path": "x/y.md", "license": "CC0"})
        + '\n{"prompt": "Hi?", "response": "Hello."}\n{"other": 1}\nnot json\n'
    )
    corpus_rows = rows_of("corpus")
    assert [row.get("document") or row.get("prompt") or row["problem"].split(" (")[0] for row in corpus_rows] == [
        "a.txt: not UTF-8", "b.md", "x/y.md", "Hi?",
        'd.jsonl:3: neither "text" nor "prompt" and "response"', "d.jsonl:4: not JSON", "deeper/c.html",
    ]  # fmt: skip
    assert corpus_rows[2]["licence"] == "CC0"


FOOTER = "If you find a mistake on this page, write to the editors of it."


def variant(letter: str) -> str:
    """Return a text on another subject with the same number of sentences."""
    return re.sub(r"\w{3,}", lambda word: word[0] + letter, GOOD)


def test_what_different_documents_share_is_boilerplate() -> None:
    for name in "abc":
        Path(f"{name}.md").write_text(f"# Bread\n\n{variant(name)}\n\n{FOOTER}\n\n# Notes\n\n{FOOTER}\n")
    corpus_rows = rows_of(".")
    assert [(row["reason"], row["text"]) for row in corpus_rows if row["header"] == "Bread"] == [
        (None, variant(name)) for name in "abc"
    ]
    assert [row["reason"] for row in corpus_rows if row["header"] != "Bread"] == ["boilerplate"] * 3


def test_of_the_versions_of_a_document_the_first_stays() -> None:
    for version in range(5):
        Path(f"v{version}.md").write_text(f"# Loaf\n\n{GOOD}\n\n# Crust\n\n{variant('c')} It is version {version}.\n")
    Path("w.md").write_text(f"# Shouted\n\n{GOOD.upper()}\n")
    corpus_rows = [(row["document"], row["reason"]) for row in rows_of(".")]
    assert corpus_rows[:2] == [("v0.md", None), ("v0.md", None)]
    assert {reason for _, reason in corpus_rows[2:]} == {"duplicate", "near_duplicate"}


def test_a_folder_without_documents_and_a_document_without_text_are_reported() -> None:
    Path("folder/.git").mkdir(parents=True)
    Path("folder/.git/hidden.md").write_text(GOOD)
    Path("folder/notes.rst").write_text(GOOD)
    with pytest.raises(InputError, match=r"folder: holds no \.txt"):
        rows_of("folder")
    Path("folder/empty.md").write_text("# Only a header\n")
    assert rows_of("folder") == [{"problem": "empty.md: holds no text"}]


def test_real_documents_in_four_languages(real_data: Path) -> None:
    """Every span reproduces its text; segments of every language are kept."""
    corpus = real_data / "corpus" / "docs_dev.jsonl"
    documents = [json.loads(line) for line in corpus.read_text().splitlines()]
    by_name: dict[str, list[Row]] = {}
    for document in documents:
        by_name.setdefault(document["path"], []).append(document)
    corpus_rows = rows_of(corpus)
    kept: Counter[str] = Counter()
    for row in corpus_rows:
        start, end = row["span"]
        (document,) = by_name[row["document"]]
        assert clean(document["text"][start:end]) == row["text"]
        assert row["licence"] == document["license"]
        if row["reason"] is None:
            kept[document["lang"]] += 1
            assert LEAST <= effective_length(row["text"]) <= MOST
    print(Counter(row["reason"] for row in corpus_rows), kept)
    assert kept.keys() == {"en", "zh", "fr", "ar"}
    assert kept.total() > 400


def test_a_segment_is_a_place() -> None:
    (segment,) = segments("words", plain=True)
    assert segment == Segment(None, 0, 5)
