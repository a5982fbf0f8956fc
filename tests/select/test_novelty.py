"""Novelty is ROUGE-L against every earlier text, decided exactly, in every script, for every view of the pool."""

import json
import re
import sys
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datagen.select import novelty
from datagen.select.novelty import THRESHOLD, Match, Pool
from datagen.text import tokens
from tests.conftest import REAL_DATA

TEXT = st.lists(st.sampled_from("write a short poem on the sea in ten words 写 诗".split()), max_size=9).map(" ".join)
TEXTS = st.lists(TEXT, max_size=12)


def pool_of(texts: list[str], threshold: float = THRESHOLD) -> Pool:
    pool = Pool(threshold)
    for text in texts:
        pool.add(text)
    return pool


def rouge(one: list[str], other: list[str]) -> Fraction:
    """ROUGE-L F by its definition: the harmonic mean of what the common subsequence covers of each text."""
    above = [0] * (len(other) + 1)
    for token in one:
        row = [0]
        for place, its in enumerate(other):
            row.append(above[place] + 1 if token == its else max(above[place + 1], row[place]))
        above = row
    if not above[-1]:
        return Fraction(0)
    precision, recall = Fraction(above[-1], len(one)), Fraction(above[-1], len(other))
    return 2 * precision * recall / (precision + recall)


def nearest(text: str, texts: list[str], floor: float) -> Match | None:
    """Compare with every text."""
    scores = [float(rouge(tokens(text), tokens(other))) for other in texts]
    best = max(scores, default=0.0)
    return Match(best, scores.index(best)) if best > floor else None


def similarity(one: str, other: str) -> float:
    match = pool_of([one]).nearest(other, above=0.0)
    return match.score if match else 0.0


@settings(max_examples=200)
@given(TEXTS, TEXT, st.sampled_from([0.0, 0.3, 0.5, 0.7, 0.8, 0.99]))
def test_the_nearest_text_is_that_of_a_look_at_all(texts: list[str], text: str, threshold: float) -> None:
    pool = pool_of(texts, threshold)
    assert pool.nearest(text) == nearest(text, texts, threshold)
    assert pool.nearest(text, above=0.0) == nearest(text, texts, 0.0)
    assert pool.is_novel(text) == (nearest(text, texts, threshold) is None)


@given(TEXTS, TEXT, st.data())
def test_the_pool_as_it_stood_and_the_tail_since_see_what_one_look_sees(
    texts: list[str], text: str, data: st.DataObject
) -> None:
    pool = pool_of(texts)
    opened = data.draw(st.integers(0, len(texts)))
    seen = [pool.nearest(text, stop=opened), pool.nearest(text, start=opened)]
    best = max((match for match in seen if match), key=lambda match: (match.score, -match.place), default=None)
    assert best == pool.nearest(text)
    assert seen[0] == pool_of(texts[:opened]).nearest(text)
    since = pool_of(texts[opened:]).nearest(text)
    assert seen[1] == (since and Match(since.score, since.place + opened))
    assert pool.is_novel(text) == (pool.is_novel(text, stop=opened) and pool.is_novel(text, start=opened))


def test_blocks_chunks_and_growth_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"write {number % 7} lines on {number % 5} of the {number} seas" for number in range(300)]
    queries = ["write 3 lines on 3 of the 150 seas", "write 8 lines on 9 of the 999 seas", "write lines on seas"]
    expected = [pool_of(texts).nearest(text, above=floor) for text in queries for floor in (0.0, 0.5, 0.8)]
    assert expected == [nearest(text, texts, floor) for text in queries for floor in (0.0, 0.5, 0.8)]
    monkeypatch.setattr(novelty, "BLOCK", 4)
    monkeypatch.setattr(novelty, "FIRST", 1)
    assert expected == [pool_of(texts).nearest(text, above=floor) for text in queries for floor in (0.0, 0.5, 0.8)]


def test_a_long_text_is_compared_exactly_though_its_bits_are_all_set() -> None:
    long = " ".join(f"w{number}" for number in range(600))
    shuffled = " ".join(f"w{number * 7 % 600}" for number in range(600))
    shortened = " ".join(f"w{number}" for number in range(0, 600, 2))
    pool = pool_of([shuffled, shortened, long])
    assert pool.nearest(long) == Match(1.0, 2)
    assert pool.nearest(shuffled, stop=2) == Match(1.0, 0)
    assert pool.nearest(long, stop=2) is None
    assert pool.nearest(long, stop=2, above=0.0) == Match(2 * 300 / 900, 1)


def test_exactly_the_threshold_is_still_new() -> None:
    ten, seven = "a b c d e f g h i j", "a b c d e f g x y z"
    assert similarity(ten, seven) == THRESHOLD
    assert pool_of([ten]).is_novel(seven)
    assert not pool_of([ten]).is_novel("a b c d e f g h y z")


@pytest.mark.parametrize(
    ("one", "other", "score"),
    [
        ("write a poem about the sea", "write a short poem about the ocean", 10 / 13),
        ("Write a poem.", "write a POEM", 1.0),
        ("写一首关于大海的诗。", "写一首关于大海的诗。", 1.0),
        ("用3句话介绍北京。", "请列出3种水果", 2 / 15),
        ("写一首关于大海的诗。", "翻译下面的句子", 2 / 16),
        ("用Python写一个排序程序", "用Python写一个搜索程序", 14 / 18),
        ("🙂🙂", "🙂🙂", 1.0),
        ("", "", 0.0),
        ("poem", "poem", 1.0),
    ],
)
def test_scores_by_hand(one: str, other: str, score: float) -> None:
    assert similarity(one, other) == pytest.approx(score, abs=1e-12)


@pytest.mark.parametrize("text", ["Hi there", "写诗", "?!", "2 + 2", "ok"])
def test_a_short_text_is_found_again(text: str) -> None:
    assert not pool_of(["Write a poem about the sea.", text]).is_novel(text)


def test_more_words_than_there_are_characters_are_reported_apart() -> None:
    pool = Pool()
    pool._numbers = {**dict.fromkeys(map(str, range(sys.maxunicode - 4)), 0), "zero": 0, "high": 0xD800, "low": 0xDC00}
    pool.add("one two three four five six")
    pool.add("six five four three two one")
    assert pool.nearest("one two three four five seven") == Match(10 / 12, 0)
    assert pool.nearest("one two zero four five six") == Match(10 / 12, 0)
    assert pool.nearest("six five high low two one", above=0.0) == Match(8 / 12, 1)


def test_values_are_those_of_rouge_score_on_the_real_seed_tasks(real_seeds: Path) -> None:
    path = REAL_DATA / "self_instruct" / "rougeL_reference_pairs.jsonl"
    if not path.exists():
        pytest.skip("the reference values are not here: ../shared/data/self_instruct/rougeL_reference_pairs.jsonl")
    tasks = map(json.loads, real_seeds.read_text().splitlines())
    texts = {task["id"]: task["instruction"] for task in tasks}
    pairs = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(pairs) == 599
    for pair in pairs:
        one, other = texts[pair["a"]], texts[pair["b"]]
        ours = similarity(one, other)
        assert round(ours, 6) == pair["fmeasure"]
        assert ours == pytest.approx(
            float(rouge(*(re.findall("[a-z0-9]+", t.lower()) for t in (one, other)))), abs=1e-9
        )
        assert (ours > THRESHOLD) == (pair["fmeasure"] > THRESHOLD)


def test_the_most_promising_text_need_not_be_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(novelty, "FIRST", 1)
    pool = pool_of(["b a d c e f g h i j", "a b c d e f g h i x"])
    assert pool.nearest("a b c d e f g h i j", stop=1) == Match(0.8, 0)
    assert pool.nearest("a b c d e f g h i j") == Match(0.9, 1)
