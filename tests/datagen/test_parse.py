"""Parsing of replies, without guesses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.errors import ParseError
from datagen.parse import parse_verdict

ALLOWED = ("equal", "not equal")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Verdict: equal", "equal"),
        ("Verdict: not equal", "not equal"),
        ("They ask the same.\nVerdict: equal\n", "equal"),
        ("verdict: Not Equal", "not equal"),
        ("VERDICT:EQUAL", "equal"),
        ("  Verdict :  not   equal  ", "not equal"),
        ("**Verdict:** equal", "equal"),
        ("**Verdict**: not equal", "not equal"),
        ("**Verdict: not equal**", "not equal"),
        ("### Verdict: _equal_", "equal"),
        ("> Verdict: `not equal`", "not equal"),
        ('Verdict: "equal".', "equal"),
        ("Verdict: 'not equal'!", "not equal"),
        ("Verdict：not equal。", "not equal"),
        ("**Verdict**：**equal**", "equal"),
        ("Verdict: equal\r\n", "equal"),
        ("Verdict: equal\nOn second thought:\nVerdict: not equal", "not equal"),
        ("Verdict:\nequal", "equal"),
        ("Verdict: equal, since both ask the same", "equal"),
        ("My verdict: equal", "equal"),
        ('{"verdict": "not equal", "confidence": 0.9}', "not equal"),
        ("Verdict: not equal\nNo, wait.\nVerdict: equal\nThat is it.", "equal"),
        ("The second one says:\nVerdict: equal\nbut it asks for more.\nVerdict: not equal", "not equal"),
        ("Verdict: not equal\nVerdict: unsure", "not equal"),
        ("The end says 'Verdict: equal', as a quote.\nVerdict: not equal", "not equal"),
    ],
)
def test_the_last_line_with_a_verdict_counts(text: str, expected: str) -> None:
    assert parse_verdict(text, ALLOWED) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "equal",
        "They are equal.",
        "Verdict:",
        "Verdict: ",
        "Verdict: equal or not equal",
        "Verdict: equal | not equal",
        "Verdict: very equal",
        "Verdict: unequal",
        "Verdict: equal? Hardly.",
        "Verdict: not equal\n\nThat is:\nVerdict: equal | not equal",
        "Verdict: equal\nVerdict: not equal",
        "Verdict: equal, if one ignores the number",
        "The line 'Verdict: equal' is a quote.",
        "Verdicts: equal",
        "Verdict equal",
    ],
)
def test_what_is_no_verdict_is_not_guessed(text: str) -> None:
    with pytest.raises(ParseError, match=r"no line 'Verdict: equal \| not equal'"):
        parse_verdict(text, ALLOWED)


def test_only_the_allowed_verdicts_count() -> None:
    assert parse_verdict("Verdict: A\nVerdict: tie", ("a", "b")) == "a"
    with pytest.raises(ParseError, match=r"Verdict: a \| b"):
        parse_verdict("Verdict: equal", ("a", "b"))


@given(st.text(), st.sampled_from(ALLOWED))
def test_a_verdict_at_the_end_is_found_after_any_text(text: str, expected: str) -> None:
    assert parse_verdict(f"{text}\nSo:\nVerdict: {expected}", ALLOWED) == expected
