"""Metrics of generated answers, compared with the usual package and with values computed by hand."""

import json
from pathlib import Path

import pytest

from datagen_train.run.metrics import classification, closed_labels, exact_match, normalise, rouge, rouge_l, rouge_n
from tests.conftest import REAL_DATA

PAIRS = REAL_DATA / "self_instruct" / "rougeL_reference_pairs.jsonl"


def test_white_space_never_decides_and_case_only_if_asked() -> None:
    assert normalise("  a \n\t b\u3000c ") == "a b c"
    assert exact_match([" 42\n", "Red", "x"], ["42", "red", "y"]) == pytest.approx(1 / 3)
    assert exact_match([" 42\n", "Red", "x"], ["42", "red", "y"], ignore_case=True) == pytest.approx(2 / 3)
    assert exact_match([], []) == 0.0


def test_rouge_l_is_that_of_the_reference_package(real_seeds: Path) -> None:
    texts = {row["id"]: row["instruction"] for row in map(json.loads, real_seeds.read_text().splitlines())}
    pairs = [json.loads(line) for line in PAIRS.read_text().splitlines()]
    assert len(pairs) > 500
    for pair in pairs:
        assert rouge_l(texts[pair["b"]], texts[pair["a"]]) == pytest.approx(pair["fmeasure"], abs=1e-6)


def test_rouge_counts_ngrams_no_more_often_than_both_have_them() -> None:
    predicted, expected = "the the the cat", "The cat sat on the mat."
    assert rouge_n(predicted, expected, 1) == pytest.approx(2 * 3 / (4 + 6))
    assert rouge_n(predicted, expected, 2) == pytest.approx(2 * 1 / (3 + 5))
    assert rouge_l(predicted, expected) == pytest.approx(2 * 2 / (4 + 6))
    assert rouge_n("one", "one", 2) == rouge_l("", "x") == rouge_l("", "") == 0.0


def test_chinese_is_counted_by_characters() -> None:
    assert rouge_l("今天天气好", "今天天气很好") == pytest.approx(2 * 5 / (5 + 6))
    assert rouge(["GPT4模型"], ["gpt4 模型"]) == {"rouge_1": 1.0, "rouge_2": 1.0, "rouge_l": 1.0}


def test_labels_are_few_answers_that_come_again() -> None:
    assert closed_labels(["yes", "No", "no", " yes"]) == ["no", "yes"]
    assert closed_labels(["a", "b", "c"]) is None, "each of them stands alone"
    assert closed_labels(["same"] * 9) is None, "one label tells nothing"
    assert closed_labels([str(n % 21) for n in range(100)]) is None, "too many"


def test_an_answer_that_is_no_label_is_wrong() -> None:
    expected = ["yes", "yes", "no", "no"]
    measured = classification(["Yes", "well, yes", "no", "yes"], expected, ["no", "yes"])
    assert measured["accuracy"] == 0.5
    f1_yes, f1_no = 2 * 1 / (2 + 2), 2 * 1 / (1 + 2)
    assert measured["macro_f1"] == pytest.approx((f1_yes + f1_no) / 2)
