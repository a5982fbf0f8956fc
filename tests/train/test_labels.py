"""Classification with labels as text: accuracy and macro F1 while a model learns, and the checkpoint chosen by them."""

from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.errors import InputError
from datagen_train import reward, sft
from datagen_train.data.split import is_held_out
from datagen_train.run.metrics import classification
from datagen_train.tools import evaluate
from datagen_train.tools.options import EvalOptions
from tests.train.runs import metrics, train
from tests.train.tasks import write_rows

THINGS = "film book song meal hotel phone game trip".split()
WORDS = {"positive": "great lovely superb brilliant".split(), "negative": "awful dull dreadful boring".split()}
LABELS = ("no", "yes", "maybe")
ANSWERS = st.sampled_from([*LABELS, "well, yes", ""])
HELD_OUT = 0.3


def reviews() -> list[dict[str, str]]:
    """Return reviews of which one in four is negative, so that accuracy and macro F1 differ."""
    rows = [
        {"prompt": f"The {thing} was {word}{end}", "response": label}
        for label, words in WORDS.items()
        for thing, word, end in product(THINGS, words, (".", "!", ", really."))
        if label == "positive" or end == "."
    ]
    Random("reviews").shuffle(rows)
    return rows


def f1_by_table(pairs: list[tuple[str, str]], labels: list[str]) -> float:
    """Return the mean F1 over labels, from the table of confusions: its rows are the truths."""
    names = sorted({name for pair in pairs for name in pair})
    table = {true: {answer: pairs.count((answer, true)) for answer in names} for true in names}
    scores = []
    for label in labels:
        correct = table[label][label]
        precision = correct / max(1, sum(table[true][label] for true in names))
        recall = correct / max(1, sum(table[label].values()))
        scores.append(2 * precision * recall / (precision + recall) if correct else 0.0)
    return sum(scores) / len(scores)


@given(st.lists(st.tuples(ANSWERS, st.sampled_from(LABELS)), min_size=1, max_size=30))
def test_macro_f1_is_that_of_the_table_of_confusions(pairs: list[tuple[str, str]]) -> None:
    answers, truths = map(list, zip(*pairs, strict=True))
    labels = sorted(set(truths))
    measured = classification(answers, truths, labels)
    assert measured["macro_f1"] == pytest.approx(f1_by_table(pairs, labels))
    assert measured["accuracy"] == pytest.approx(sum(one == other for one, other in pairs) / len(pairs))


@given(st.lists(st.tuples(ANSWERS, st.sampled_from(LABELS)), min_size=1, max_size=30))
def test_macro_f1_is_that_of_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    library = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    answers, truths = map(list, zip(*pairs, strict=True))
    labels = sorted(set(truths))
    expected = library.f1_score(truths, answers, labels=labels, average="macro", zero_division=0)
    assert classification(answers, truths, labels)["macro_f1"] == pytest.approx(expected)


def test_a_model_learns_two_labels_and_the_best_checkpoint_is_the_one_with_the_highest_f1() -> None:
    rows = reviews()
    write_rows("reviews.jsonl", rows)
    result: dict[str, Any] = train(
        sft, "reviews.jsonl", output="out", steps=40, eval_every=5, batch_size=16, held_out=HELD_OUT, generate=100,
        best="macro_f1",
    )  # fmt: skip
    measured = {int(line["step"]): line["eval_macro_f1"] for line in metrics("out") if "eval_macro_f1" in line}
    assert measured[0] == 0.0, "an untrained model names no label"
    assert result["best_step"] == max(list(measured)[1:], key=measured.__getitem__), measured
    assert result["end"]["eval_macro_f1"] == max(measured.values()) >= 0.95
    assert result["outcome"].startswith("eval_macro_f1 on held-out rows: 0 before")

    answers = evaluate.run("out", "reviews.jsonl", EvalOptions(held_out=HELD_OUT, output="answers.jsonl"))
    assert answers["rows"] == sum(is_held_out(row["prompt"], HELD_OUT) for row in rows) > 20
    assert (answers["accuracy"], answers["macro_f1"]) == tuple(
        result["end"][f"eval_{n}"] for n in ("accuracy", "macro_f1")
    )


def test_what_is_no_classification_cannot_be_selected_by_its_f1(few: str) -> None:
    with pytest.raises(InputError, match="--best accuracy: the responses of the answered rows are no labels"):
        train(sft, few, output="out", steps=2, generate=2, held_out=0.2, best="accuracy")
    assert not Path("out/run/report.json").exists()


def test_a_reward_model_answers_nothing_that_could_be_a_label() -> None:
    write_rows("pairs.jsonl", [{"prompt": "a", "chosen": "b", "rejected": "c"}])
    with pytest.raises(InputError, match="a reward model answers nothing"):
        train(reward, "pairs.jsonl", output="out", best="accuracy")
