"""Ids that never change, random draws that depend on the row alone, and a compact set that works like a set."""

import random
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.errors import CallFailed
from datagen.records.record import (
    BadLine,
    Candidate,
    Record,
    Text,
    as_messages,
    canonical,
    digest,
    fail,
    keep,
    reject,
    request_text,
    row_id,
    with_request,
)
from datagen.records.seen import Numbered, Seen
from datagen.records.usage import Usage

USER, ASSISTANT, LAST = (
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "Why?"},
)
USAGES = st.builds(Usage, st.integers(0), st.integers(0), st.integers(0))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"b": 1, "a": [1, 2.5, None, True]}, b'{"a":[1,2.5,null,true],"b":1}'),
        ("é\u2028", rb'"\u00e9\u2028"'),
        ("\ud800", rb'"\ud800"'),
        ("\U0001f600", rb'"\ud83d\ude00"'),
        ((1, "a"), b'[1,"a"]'),
    ],
    ids=ascii,
)
def test_a_value_has_one_encoding(value: object, expected: bytes) -> None:
    assert canonical(value) == expected


def test_the_order_of_keys_does_not_count_and_the_order_of_items_does() -> None:
    assert canonical({"a": 1, "b": 2}) == canonical({"b": 2, "a": 1})
    assert canonical(["a", "b"]) != canonical(["b", "a"])


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], {"a": float("-inf")}], ids=str)
def test_what_json_cannot_hold_has_no_name(value: object) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        canonical(value)


def test_an_id_is_the_same_in_every_version() -> None:
    """Recorded runs can continue only as long as these ids do not change."""
    assert row_id("input", [], 0, ["Why is the sky blue?", None]) == "3f7ec06964c05f20"
    assert row_id("evolve", ["00ff00ff00ff00ff"], [0, 1], ["é\ud800", "x"]) == "79fbe0a806d879fd"
    assert digest({"a": 1}) == "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"


def test_every_part_of_what_made_a_row_is_in_its_id() -> None:
    ids = [
        row_id(method, parents, place, content)
        for method, parents, place, content in product(
            ("a", "b"), ([], ["a"], ["a", "b"]), (0, 1, [0, 1]), ("", "a", ["a"])
        )
    ]  # fmt: skip
    assert len(set(ids)) == len(ids) == 54


@pytest.mark.parametrize(
    ("prompt", "messages", "request_", "replaced"),
    [
        ("Hi", [USER], "Hi", "New"),
        ([USER], [USER], "Hi", [{**USER, "content": "New"}]),
        ([USER, ASSISTANT, LAST], [USER, ASSISTANT, LAST], "Why?", [USER, ASSISTANT, {**LAST, "content": "New"}]),
    ],
    ids=["text", "one message", "conversation"],
)
def test_a_prompt_is_text_or_a_conversation(
    prompt: Text, messages: list[dict[str, str]], request_: str, replaced: Text
) -> None:
    assert as_messages(prompt) == messages
    assert request_text(prompt) == request_
    assert with_request(prompt, "New") == replaced
    assert request_text(prompt) == request_


def draws(record: Record, purpose: str = "operator") -> list[float]:
    chance = record.random(purpose)
    return [chance.random() for _ in range(3)]


def test_chance_does_not_depend_on_anything_but_seed_id_pass_and_purpose() -> None:
    record = Record("a", "Hi")
    before = draws(record)
    random.seed(1)
    other = Record("a", [USER, ASSISTANT, LAST], "Hello", "x", {"topic": "t"}, line=7)
    assert draws(record) == draws(other) == draws(record.for_pass(0, 0)) == before


@pytest.mark.parametrize(
    ("record", "purpose"),
    [
        (Record("b", "Hi"), "operator"),
        (Record("a", "Hi", pass_no=1), "operator"),
        (Record("a", "Hi", seed=1), "operator"),
        (Record("a", "Hi"), "operator, round 2"),
    ],
    ids=["id", "pass", "seed", "purpose"],
)
def test_chance_changes_with_each_of_these(record: Record, purpose: str) -> None:
    assert draws(record, purpose) != draws(Record("a", "Hi"))


def test_a_record_is_asked_with_the_pass_and_seed_of_a_run() -> None:
    record = Record("a", "Hi", "Hello", "x", {"topic": "t"}, line=3)
    assert record.for_pass(2, 5) == Record("a", "Hi", "Hello", "x", {"topic": "t"}, pass_no=2, seed=5)
    assert record.for_pass(2, 5).line == 3


def test_a_bad_line_says_where_it_stands() -> None:
    assert str(BadLine("a/in.jsonl", 12, "not UTF-8", "raw")) == "a/in.jsonl:12: not UTF-8"


def test_a_rejected_candidate_says_why() -> None:
    row = {
        "status": "rejected",
        "reason": "leaked",
        "stage": "rewrite",
        "record": {"id": "a"},
        "reply": None,
        "meta": {"op": "x"},
    }
    candidate = reject("leaked", stage="rewrite", record={"id": "a"}, reply=None, meta={"op": "x"})
    assert candidate == Candidate("rejected", row, "leaked")


def test_a_failed_candidate_names_the_error_and_the_reply() -> None:
    error = CallFailed("unparsed answer", stage="rewrite", detail="no number", reply="x")
    row = {
        "status": "failed",
        "reason": "unparsed answer",
        "stage": "rewrite",
        "record": {"id": "a", "error": "no number"},
        "reply": "x",
        "meta": {"op": "x"},
    }
    assert fail(error, record={"id": "a"}, meta={"op": "x"}) == Candidate("failed", row, "unparsed answer")


def test_a_kept_candidate_is_its_row() -> None:
    assert keep({"id": "a"}) == Candidate("kept", {"id": "a"}, "", Usage())


@given(st.lists(st.text(max_size=2) | st.integers(0, 50) | st.lists(st.integers(0, 3), max_size=2)))
def test_seen_says_new_when_a_set_would(values: list[Any]) -> None:
    seen, known = Seen(), set[bytes]()
    for value in values:
        assert seen.add(value) == (canonical(value) not in known)
        known.add(canonical(value))
    assert not any(seen.add(value) for value in values)


def test_seen_can_start_with_values() -> None:
    seen = Seen(["a", ["b"], "a"])
    assert [seen.add("a"), seen.add(["b"]), seen.add("b")] == [False, False, True]


def test_seen_holds_a_hundred_thousand_and_forgets_none() -> None:
    seen = Seen()
    assert all(seen.add(number) for number in range(100_000))
    assert not any(seen.add(number) for number in range(100_000))
    assert seen.add(100_000)


def test_seen_stays_small() -> None:
    seen = Seen(range(20_000))
    assert len(seen._slots) * seen._slots.itemsize <= 32 * 20_000 + 8 * 1024


@given(USAGES, USAGES)
def test_usage_adds_up_and_takes_away(one: Usage, other: Usage) -> None:
    both = one + other
    assert both.calls == one.calls + other.calls
    assert both.prompt_tokens == one.prompt_tokens + other.prompt_tokens
    assert both.completion_tokens == one.completion_tokens + other.completion_tokens
    assert both - other == one
    assert sum([one, other], Usage()) == both
    assert one + Usage() == one


@given(st.lists(st.integers(0, 3000), max_size=6000))
def test_a_numbered_set_knows_the_first_number_of_each_value(values: list[int]) -> None:
    numbered, known = Numbered(), dict[int, int]()
    for number, value in enumerate(values, 1):
        assert numbered.first(value, number) == known.get(value)
        known.setdefault(value, number)


def test_a_numbered_set_grows() -> None:
    numbered = Numbered()
    assert all(numbered.first(value, value + 1) is None for value in range(5000))
    assert all(numbered.first(value, 0) == value + 1 for value in range(5000))
