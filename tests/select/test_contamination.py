"""Contamination: copied benchmark questions are detected, similar questions are not."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.records.record import Candidate, keep
from datagen.select.contamination import COVERAGE, Benchmark, BenchmarkIndex, BenchmarkTable, Hit
from datagen.text import tokens
from tests.conftest import REAL_DATA

WORDS = [f"word{number}" for number in range(100)]
QUESTION = " ".join(WORDS)
GSM8K = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. "
    "How many clips did Natalia sell altogether in April and May?"
)
CHINESE = "小明有十二个苹果，他把其中的三分之一分给了小红，又买了五个苹果，请问小明现在一共有多少个苹果？"


def index(*texts: str) -> BenchmarkIndex:
    return BenchmarkIndex([Benchmark("test", texts)])


def row_with(*hits: Hit) -> Candidate:
    return keep({"meta": {"hits": [hit._asdict() for hit in hits]}})


@pytest.mark.parametrize(("copied", "is_hit"), [(45, False), (50, False), (51, True), (55, True), (100, True)])
@pytest.mark.parametrize("start", [0, 30])
def test_more_than_half_of_the_tokens_must_be_copied(copied: int, is_hit: bool, start: int) -> None:
    if start + copied > 100:
        start = 0
    row = f"something before {' '.join(WORDS[start : start + copied])} and something after"
    assert index(QUESTION).hits(row) == ([Hit("test", 0, copied / 100)] if is_hit else [])


def test_pieces_add_up_and_those_under_eight_words_do_not_count() -> None:
    pieces = [WORDS[start : start + 10] for start in range(0, 100, 15)]
    row = " apart ".join(" ".join(piece) for piece in pieces)
    assert index(QUESTION).hits(row) == [Hit("test", 0, 0.7)]
    short = " apart ".join(" ".join(WORDS[start : start + 7]) for start in range(0, 100, 8))
    assert index(QUESTION).hits(short) == []


def test_coverage_counts_towards_one_question_alone() -> None:
    halves = [
        " ".join(WORDS[:40] + [f"first{n}" for n in range(60)]),
        " ".join([f"second{n}" for n in range(60)] + WORDS[60:]),
    ]
    assert index(*halves).hits(QUESTION) == []


def test_case_punctuation_and_lines_do_not_hide_a_copy() -> None:
    row = "Solve this:\n\n" + GSM8K.upper().replace(",", " -").replace(" ", "\n") + "\nThink step by step."
    assert index("another question of eight words or more here", GSM8K).hits(row) == [Hit("test", 1, 1.0)]


@pytest.mark.parametrize(
    "row",
    [
        "Natalia gave 48 clips to friends during April and half that number during May. What is the total?",
        "In April, Natalia's 48 friends bought clips from her; in May she sold half as many. What did she sell in all?",
        "How many clips did Natalia sell in June?",
        "Write a story about Natalia, who sells clips to her friends.",
    ],
)
def test_a_paraphrase_is_no_copy(row: str) -> None:
    assert index(GSM8K).hits(row) == []


@pytest.mark.parametrize(
    ("question", "row", "is_hit"),
    [
        ("What is 2 + 2?", "what is 2+2", True),
        ("What is 2 + 2?", "What is 2 * 2?", False),
        ("What is 2 + 2?", "What is 2 + 2? Explain it to a child.", False),
        ("Name a prime number.", "NAME A PRIME NUMBER", True),
        ("写一首诗。", "写一首诗", True),
        ("写一首诗。", "写一首诗，关于大海。", False),
    ],
)
def test_a_short_question_is_found_where_a_turn_equals_it(question: str, row: str, is_hit: bool) -> None:
    assert index(question).hits(row) == ([Hit("test", 0, 1.0)] if is_hit else [])


@pytest.mark.parametrize(
    ("row", "is_hit"),
    [
        (CHINESE, True),
        (f"请解答下面的应用题。{CHINESE.replace('，', ' ')}", True),
        ("小明有十二个苹果，他把其中的三分之一分给了妹妹。", False),
        ("小红有八个梨，她给了小明两个，请问小红现在一共有多少个梨？", False),
        ("请解释一下什么是深度学习，并举两个例子。", False),
    ],
)
def test_chinese_is_compared_by_characters(row: str, is_hit: bool) -> None:
    hits = index(CHINESE, "请解释一下什么是机器学习").hits(row)
    assert [hit.item for hit in hits] == ([0] if is_hit else [])


def test_only_what_the_user_says_counts_and_turns_do_not_join() -> None:
    messages = [
        {"role": "system", "content": GSM8K},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": GSM8K},
        {"role": "user", "content": "And now?"},
    ]
    assert index(GSM8K).hits(messages) == []
    assert index(GSM8K).hits([*messages, {"role": "user", "content": GSM8K}]) == [Hit("test", 0, 1.0)]
    turns = [{"role": "user", "content": " ".join(WORDS[start : start + 7])} for start in range(0, 100, 7)]
    assert index(QUESTION).hits(turns) == []


@given(st.lists(st.sampled_from([f"w{number}" for number in range(12)]), min_size=8, max_size=30), st.data())
def test_coverage_is_the_share_of_tokens_in_shared_runs_of_eight(question: list[str], data: st.DataObject) -> None:
    row = (
        data.draw(st.lists(st.sampled_from([*question, "other"]), max_size=30))
        + question[: data.draw(st.integers(0, 30))]
    )
    runs = {tuple(row[start : start + 8]) for start in range(len(row) - 7)}
    inside = [
        any(
            tuple(question[start : start + 8]) in runs
            for start in range(max(0, place - 7), min(place, len(question) - 8) + 1)
        )
        for place in range(len(question))
    ]
    share = sum(inside) / len(question)
    assert index(" ".join(question)).hits(" ".join(row)) == ([Hit("test", 0, share)] if share > COVERAGE else [])


def test_the_table_counts_rows_and_questions_and_knows_the_two_percent() -> None:
    benchmarks = [
        Benchmark("a", [f"{QUESTION} {number}" for number in range(50)]),
        Benchmark("b", [GSM8K]),
        Benchmark("c", []),
    ]
    table = BenchmarkTable(benchmarks, tagged=True)
    table.add(row_with(Hit("a", 3, 0.9)))
    table.add(row_with(Hit("a", 3, 0.6), Hit("b", 0, 1.0)))
    table.add(row_with())
    assert table.as_dict() == {
        "a": {"rows": 2, "questions": 50, "found": 1, "share": 0.02, "contaminated": False},
        "b": {"rows": 1, "questions": 1, "found": 1, "share": 1.0, "contaminated": True},
        "c": {"rows": 0, "questions": 0, "found": 0, "share": 0.0, "contaminated": False},
    }
    table.add(row_with(Hit("a", 4, 0.9)))
    assert table.as_dict()["a"]["contaminated"]


def test_the_gsm8k_training_questions_hold_none_of_the_test_questions_until_they_are_put_in() -> None:
    paths = [REAL_DATA / "gsm8k" / name for name in ("train_2000.jsonl", "test_300.jsonl")]
    if not all(path.exists() for path in paths):
        pytest.skip("the real questions are not here: ../shared/data/gsm8k")
    train, test = ([json.loads(line)["question"] for line in path.read_text().splitlines()] for path in paths)
    benchmark = Benchmark("gsm8k", test)
    test_index = BenchmarkIndex([benchmark])
    assert [hit for question in train for hit in test_index.hits(question)] == []
    copies = [test_index.hits(f"Question: {question.upper()}\nAnswer:") for question in test]
    assert [[hit.item for hit in hits] for hits in copies] == [[number] for number in range(300)]
    halves = [" ".join(tokens(question)[: len(tokens(question)) * 2 // 5]) for question in test]
    repeats_itself = [152]
    assert [hit.item for half in halves for hit in test_index.hits(half)] == repeats_itself
