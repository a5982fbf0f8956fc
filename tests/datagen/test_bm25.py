"""BM25 follows the textbook formula, and the span of a passage is right."""

from collections import Counter
from itertools import pairwise
from math import isclose, log
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.errors import InputError
from datagen.records.files import dump_line
from datagen.sources.bm25 import K1, B, BM25Index, Passage, load_index, passages_of
from tests.jobs import rows

WORD = st.sampled_from("river bridge clock salt bell map tower".split())
TEXT = st.lists(WORD, min_size=1, max_size=8).map(" ".join)


def as_passages(texts: list[str]) -> list[Passage]:
    return [Passage(str(at), 0, len(text), text) for at, text in enumerate(texts)]


def score(texts: list[str], at: int, query: str) -> float:
    """The formula, term by term."""
    words, lengths = [text.split() for text in texts], [len(text.split()) for text in texts]
    total = 0.0
    for word in set(query.split()):
        holding = sum(word in text for text in words)
        often = Counter(words[at])[word]
        rarity = log(1 + (len(texts) - holding + 0.5) / (holding + 0.5))
        total += rarity * often * (K1 + 1) / (often + K1 * (1 - B + B * lengths[at] / (sum(lengths) / len(lengths))))
    return total


@given(st.lists(TEXT, min_size=1, max_size=8), TEXT)
def test_the_best_passages_are_those_of_the_formula(texts: list[str], query: str) -> None:
    passages = BM25Index(as_passages(texts)).search(query, len(texts))
    scores = [score(texts, at, query) for at in range(len(texts))]
    expected = sorted((at for at, value in enumerate(scores) if value > 0), key=lambda at: (-scores[at], at))
    documents = [int(passage.document) for passage in passages]
    assert sorted(documents) == sorted(expected)
    assert all(isclose(scores[a], scores[b], rel_tol=1e-9) for a, b in zip(documents, expected, strict=True))


@given(st.lists(st.text(alphabet="ab .\n\t\u3000你", max_size=12), max_size=5).map("\n\n".join))
def test_a_passage_is_where_it_says(text: str) -> None:
    passages = list(passages_of("d", text))
    assert all(text[passage.start : passage.end] == passage.text and passage.text.strip() for passage in passages)
    assert all(a.end <= b.start for a, b in pairwise(passages))
    assert "".join("".join(passage.text.split()) for passage in passages) == "".join(text.split())


def test_nothing_is_found_where_no_word_is_shared() -> None:
    assert BM25Index(as_passages(["a bridge over the river"])).search("clock?") == []


def test_chinese_is_found_by_its_characters() -> None:
    texts = ["码头在城北，冬天常常结冰。", "钟楼建于十八世纪，由行会出资。", "集市每周四开张。"]
    (passage,) = BM25Index(as_passages(texts)).search("钟楼是谁出资建的？")
    assert passage.text == texts[1]


def test_a_corpus_is_rows_or_lines_and_an_empty_one_is_reported() -> None:
    Path("a.jsonl").write_bytes(dump_line({"id": "x", "text": "One river.\n\nTwo bridges."}))
    assert [passage.document for passage in load_index(Path("a.jsonl")).passages] == ["x", "x"]
    Path("a.txt").write_text("One river.\nTwo bridges.\n")
    assert len(load_index(Path("a.txt")).passages) == 2
    Path("none.jsonl").write_bytes(dump_line({"text": " "}))
    with pytest.raises(InputError, match=r"none\.jsonl: no text in it"):
        load_index(Path("none.jsonl"))


def test_real_paragraphs_are_found_by_their_own_words(real_data: Path) -> None:
    paragraphs = [row for row in rows(real_data / "corpus/paragraphs_dev.jsonl") if len(row["text"]) > 200]
    index = load_index(real_data / "corpus/paragraphs_dev.jsonl")
    for row in paragraphs[:: len(paragraphs) // 20]:
        words = row["text"].split() if row["lang"] != "zh" else list(row["text"])
        (passage,) = index.search(" ".join(words[3:30]))
        assert passage.document == row["id"]
