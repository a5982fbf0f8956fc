"""The table of verifiers: the source of the reference, and undecided verdicts."""

from dataclasses import replace
from typing import Any

import pytest

from datagen.errors import InputError
from datagen.records.record import Record, Text
from datagen.verify import VERIFIERS, pick_verifier, reference_answer


def record(prompt: Text = "How many?", response: str | None = None, **extra: Any) -> Record:
    return Record("0", prompt, response=response, extra=extra)


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        (record(answer="18"), "18"),
        (record(answer="9 * 2 = 18\n#### 18"), "18"),
        (record(answer="oven stove"), "oven stove"),
        (record(answer=51.0), "51.0"),
        (record(ground_truth="18"), "18"),
        (record(Answer=18, ground_truth="17"), "18"),
        (record(answer=True), "True"),
        (record(answer="18", response="#### 17"), "18"),
        (record(response="9 * 2 = 18\n#### 18"), "18"),
        (record(response="51.0"), "51.0"),
        (record(response="(B)"), "(B)"),
        (record(response="No"), "No"),
        (replace(record(response="#### 18"), label=False), None),
        (replace(record(response="#### 18"), label=True), "18"),
        (record(response="It is eighteen."), None),
        (record(answer=["18"]), None),
        (record(answer=None), None),
        (record(), None),
    ],
)
def test_the_reference_is_the_field_or_what_the_response_states(row: Record, answer: str | None) -> None:
    assert reference_answer(row) == answer


GOLD = record(response="#### 18")
PUZZLE = record("Use 4, 5, 6 and 10 to make 24.")


@pytest.mark.parametrize(
    ("name", "row", "response", "verdict"),
    [
        ("answer", GOLD, "So the answer is $18.00.", True),
        ("answer", GOLD, "So the answer is 19.", False),
        ("answer", GOLD, "It is 18.", None),
        ("answer", GOLD, "<think>The answer is 18.</think>I do not know.", None),
        ("answer", GOLD, "<think>The answer is 17.</think>The answer is 18.", True),
        ("answer", record(), "#### 18", None),
        ("answer", record(answer=51.0), "A: 51", True),
        ("answer", record(answer=True), "So the answer is true.", True),
        ("equations", record(), "1 + 1 = 2", True),
        ("equations", record(), "1 + 1 = 3", False),
        ("equations", record(), "<think>1 + 1 = 3</think>1 + 1 = 2", True),
        ("equations", record(), "Two.", None),
        ("game24", PUZZLE, "Answer: (10 - 4) * 5 - 6 = 24", True),
        ("game24", PUZZLE, "Answer: (10 - 4) * 4 = 24", False),
        ("game24", PUZZLE, "No idea.", None),
        ("game24", record("Make 24."), "Answer: (10 - 4) * 5 - 6", None),
        ("game24", record("Make 24.", numbers=[4, 5, 6, 10]), "Answer: (10 - 4) * 5 - 6", True),
        ("game24", record("Make 24.", numbers="4 5 6 10"), "Answer: (10 - 4) * 5 - 6", True),
        ("game24", record([{"role": "user", "content": "4 5 6 10"}]), "Answer: (10 - 4) * 5 - 6", True),
    ],
)
def test_a_verifier_says_true_false_or_none(name: str, row: Record, response: str, verdict: bool | None) -> None:
    assert pick_verifier(name)(row, response) is verdict


def test_every_verifier_takes_any_response_and_never_raises() -> None:
    for name in VERIFIERS:
        for response in ("", "####", "\ud800", "\\boxed{" * 1000, "<think>", "#### __import__('os')", "<<1/0=1>>"):
            assert pick_verifier(name)(record("4 5 6 10", "#### 1"), response) in (True, False, None)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match=f"verifier truth: expected one of {', '.join(VERIFIERS)}"):
        pick_verifier("truth")
