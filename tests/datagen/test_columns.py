"""Every column of a row is read, passed on or named; no set of columns passes as a shape that does not read it."""

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.errors import InputError
from datagen.records.columns import OUR_NAMES, ROLES, mapped_row, parse_map
from datagen.records.layout import pack_meta
from datagen.records.ranked import RANKED, SAMPLES
from datagen.records.reader import DOCUMENTS, PREFERENCES, PROMPTS, Kind, Reader
from datagen.records.record import BadLine, Row

KINDS: list[Kind[Any]] = [PROMPTS, DOCUMENTS, PREFERENCES, RANKED, SAMPLES]
OWN_COLUMNS = {"text", "soft_label", "tools", "label", "weight", "tool_calls"}
COLUMNS = sorted(
    {name for role in ROLES.values() for name in role.names} | {"topic", "source", "notes", "meta", "score"}
)
MARKS = st.integers(0, 999_999).map(lambda number: f"mark-{number:06}")


def conversation(first: str, second: str) -> list[Row]:
    return [{"role": "user", "content": first}, {"role": "assistant", "content": second}]


VALUES = (
    MARKS
    | st.lists(MARKS, min_size=1, max_size=3)
    | st.builds(conversation, MARKS, MARKS)
    | st.builds(lambda text: [{"role": "user", "content": text}], MARKS)
    | st.builds(lambda text: {"role": "assistant", "content": text, "reasoning": f"why {text}"}, MARKS)
    | st.builds(lambda text: {"inner": text}, MARKS)
    | st.sampled_from([None, True, False, 1, 2.5, [1, 2]])
)
ROWS = st.dictionaries(st.sampled_from(COLUMNS), VALUES, max_size=6)


def marks(value: Any) -> set[str]:
    """The texts in a value that stand for what a row says."""
    if isinstance(value, str):
        return {piece for piece in value.split() if piece.startswith("mark-")}
    if isinstance(value, dict):
        return {mark for inner in value.values() for mark in marks(inner)}
    return {mark for inner in value for mark in marks(inner)} if isinstance(value, list | tuple) else set()


def read_all(kind: Kind[Any], row: Row, **options: Any) -> tuple[Reader[Any], list[Any]]:
    reader = Reader("x.jsonl", io.BytesIO(json.dumps(row).encode() + b"\n"), kind, **options)
    return reader, list(reader.read())


@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
@given(row=ROWS)
def test_no_text_of_a_row_disappears(kind: Kind[Any], row: Row) -> None:
    try:
        reader, items = read_all(kind, row)
    except InputError:
        return  # said in one line
    if any(isinstance(item, BadLine) for item in items):
        return
    held = {mark for item in items for name in item.__slots__ for mark in marks(getattr(item, name))}
    lost = marks(row) - held
    notes = " ".join(reader.account.lines())
    assert all(any(name in notes for name in row if mark in marks(row[name])) for mark in lost), (items, notes)


@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
@given(row=ROWS)
def test_what_is_passed_on_is_never_taken_for_ours(kind: Kind[Any], row: Row) -> None:
    try:
        _, items = read_all(kind, row)
    except InputError:
        return
    assert not any(OUR_NAMES & item.extra.keys() for item in items if not isinstance(item, BadLine))


@given(row=ROWS)
def test_our_own_rows_are_read_by_our_own_names_alone(row: Row) -> None:
    extra = {name: value for name, value in row.items() if name not in OUR_NAMES | OWN_COLUMNS}
    ours = {"id": "0" * 16, "prompt": "mark-p", "response": "mark-r", "meta": pack_meta({"method": "evolve"})}
    _, (record,) = read_all(PROMPTS, {**ours, **extra})
    assert (record.prompt, record.response, record.id) == ("mark-p", "mark-r", "0" * 16)
    assert record.extra == extra


@given(row=ROWS)
def test_two_answers_are_never_set_aside_in_silence(row: Row) -> None:
    row = {**row, "prompt": "mark-p", "chosen": "mark-c", "rejected": "mark-r"}
    try:
        reader, (item,) = read_all(PROMPTS, row)
    except InputError:
        return
    notes = " ".join(reader.account.lines())
    assert isinstance(item, BadLine) or (item.response is not None and '"chosen"' in notes and '"rejected"' in notes)


@given(st.dictionaries(st.text(min_size=1, max_size=8).filter(lambda name: name not in COLUMNS), MARKS, max_size=5))
def test_columns_without_a_meaning_are_no_rows(row: Row) -> None:
    for kind in KINDS:
        try:
            _, items = read_all(kind, row)
        except InputError:
            continue
        for item in items:
            assert isinstance(item, BadLine) or any(
                name.lower().replace("-", "_").strip("_") in map(str.lower, COLUMNS) for name in row
            )


def test_a_column_with_a_meaning_that_is_not_used_is_named_once_with_its_count() -> None:
    rows = [{"messages": conversation("a", "b"), "context": f"c{n}", "rating": 5, "solution": "s"} for n in range(3)]
    data = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    reader = Reader("x.jsonl", io.BytesIO(data), PROMPTS)
    for _ in range(2):  # read twice, named once
        assert {item.extra["context"] for item in reader.read() if not isinstance(item, BadLine)} == {"c0", "c1", "c2"}
    assert reader.account.lines() == [
        '3 rows have "context", which is passed on and not used (nothing reads it beside the other columns)',
        '3 rows have "rating", which is passed on and not used (nothing reads it beside the other columns)',
        '3 rows have "solution", which is passed on and not used (to use it: --map response=solution)',
    ]


def test_a_key_that_stands_twice_and_several_shapes_are_named() -> None:
    data = b'{"prompt": "a", "prompt": "b"}\n{"instruction": "c"}\n{"prompt": "d", "x": {"y": 1, "y": 2}}\n'
    reader = Reader("x.jsonl", io.BytesIO(data), PROMPTS)
    assert [item.prompt for item in reader.read() if not isinstance(item, BadLine)] == ["b", "c", "d"]
    assert reader.account.lines() == [
        "Rows of several shapes: prompt 2, alpaca 1",
        '1 row has the key "prompt" twice in one object; the last one counts',
        '1 row has the key "y" twice in one object; the last one counts',
    ]


def test_samples_say_that_they_have_no_place_for_a_margin() -> None:
    reader, _ = read_all(SAMPLES, {"prompt": "a", "chosen": "b", "rejected": "c", "margin": 2, "soft_label": 0.9})
    assert reader.account.lines() == [
        '1 row has "margin", for which samples have no place',
        '1 row has "soft_label", for which samples have no place',
    ]


def test_unknown_keys_of_a_turn_are_named() -> None:
    turns = [{"role": "user", "content": "a", "mood": "good"}, {"role": "assistant", "content": "b", "mood": None}]
    reader, _ = read_all(PROMPTS, {"messages": turns})
    assert reader.account.lines() == ['1 row has "mood" in the turns of "messages", which is left out']


def test_a_map_names_the_columns() -> None:
    row = {"ask": "a", "out": {"text": "b"}, "prompt": "other"}
    _, (record,) = read_all(PROMPTS, row, mapping=parse_map("prompt=ask,response=out.text"))
    assert (record.prompt, record.response) == ("a", "b")
    assert record.extra == {"source_prompt": "other", "out": {"text": "b"}}
    _, (pair,) = read_all(
        PREFERENCES, {"q": "a", "good": "b", "bad": "c"}, mapping=parse_map("prompt=q,chosen=good,rejected=bad")
    )
    assert (pair.prompt, pair.chosen, pair.rejected) == ("a", "b", "c")
    _, (document,) = read_all(DOCUMENTS, {"body": "a"}, mapping={"text": "body"})
    assert document.text == "a"
    assert mapped_row({"choices": [{"message": "b"}]}, {"response": "choices.0.message"})["response"] == "b"


def test_a_map_goes_before_what_the_rows_look_like() -> None:
    row = {"messages": conversation("a", "b"), "summary": "c", "title": "t"}
    _, (record,) = read_all(PROMPTS, row, mapping=parse_map("prompt=title,response=summary"))
    assert (record.prompt, record.response) == ("t", "c")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("prompt=x", "--map prompt=x: no such column (found: ask)"),
        ("promt=ask", "--map promt: expected one of"),
        ("prompt", "--map prompt: expected OURS=THEIRS, such as prompt=question"),
        ("prompt=", "--map prompt=: expected OURS=THEIRS"),
    ],
)
def test_a_wrong_map_is_one_line_with_what_there_is(text: str, says: str) -> None:
    with pytest.raises(InputError) as raised:
        read_all(PROMPTS, {"ask": "a"}, mapping=parse_map(text))
    assert says in str(raised.value)
