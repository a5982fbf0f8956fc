"""The layout of rows on disk: two outputs of one kind are one data set for those who read JSON lines."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.records.files import dump_line
from datagen.records.layout import META_KEYS, is_meta, pack_meta, pack_row, unpack_row
from datagen.records.reader import PROMPTS, Reader
from datagen.records.record import BadLine, Record, Row

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
NAMES = st.text(st.characters(categories=("L", "N")), min_size=1)
METAS = st.fixed_dictionaries(
    {"method": NAMES, "parents": st.lists(NAMES)},
    optional={"op": NAMES, "model": NAMES, "seed_id": NAMES, "round": st.integers(), "usage": VALUES, "odd": VALUES},
)
KINDS = st.one_of(
    st.fixed_dictionaries({"response": st.text()}, optional={"reasoning": st.text(min_size=1)}),
    st.lists(st.tuples(st.text(), st.none() | st.text(min_size=1)), min_size=1).map(
        lambda answers: (
            {"responses": [text for text, _ in answers]}
            | ({"reasoning": [thought for _, thought in answers]} if any(thought for _, thought in answers) else {})
        )
    ),
    st.fixed_dictionaries(
        {"chosen": st.text(), "rejected": st.text()},
        optional={"margin": st.floats(0.1, 9), "soft_label": st.floats(0, 0.9), "chosen_reasoning": st.just("Hm.")},
    ),
    st.fixed_dictionaries({"text": st.text()}),
)


@given(KINDS, METAS)
def test_what_is_unpacked_is_what_was_packed(kind: Row, meta: Row) -> None:
    row = {"id": "0" * 16, **kind, "meta": meta}
    packed = pack_row(row)
    assert json.loads(dump_line(packed)) == packed
    unpacked = unpack_row(json.loads(dump_line(packed)))
    meta_again = unpacked.pop("meta")
    assert unpacked | {"meta": meta} == row
    assert {name: value for name, value in meta_again.items() if value is not None or name in meta} == meta
    assert pack_row(row | {"meta": meta_again}) == packed


@given(KINDS, METAS, METAS)
def test_no_value_of_a_row_decides_the_type_of_a_column(kind: Row, meta: Row, other: Row) -> None:
    """Between rows of one kind neither the columns nor their types differ, whatever their methods say."""

    def types(row: Row) -> Row:
        return {name: types(value) if isinstance(value, dict) else type(value) for name, value in row.items()}

    assert types(pack_row({**kind, "meta": meta})) == types(pack_row({**kind, "meta": other}))
    bare: Row = {name: kind[name] for name in ("response", "responses", "chosen", "rejected", "text") if name in kind}
    assert types(pack_row({**bare, "meta": meta})) == types(pack_row({**kind, "meta": meta}))
    assert all(isinstance(value, str) for value in pack_meta(meta).values())


@pytest.mark.parametrize("details", ["", "{", "[]", "null", "[" * 100_000])
def test_an_edited_meta_is_a_bad_line_with_its_reason(details: str) -> None:
    row = {"id": "0" * 16, "prompt": "P", "meta": pack_meta({"method": "evolve"}) | {"details": details}}
    Path("rows.jsonl").write_bytes(dump_line(row) + dump_line(row | {"meta": dict.fromkeys(META_KEYS, 1)}))
    with Path("rows.jsonl").open("rb") as file:
        first, second = Reader("rows.jsonl", file, PROMPTS).read()
    assert isinstance(first, BadLine) and "details" in first.reason and "JSON object" in first.reason
    assert isinstance(second, BadLine) and "something else than text" in second.reason


@pytest.mark.parametrize("meta", [{}, {"method": "evolve"}, {"method": "a", "details": "{}"}, "text", None])
def test_the_meta_of_another_tool_is_none_of_ours(meta: Any) -> None:
    assert not is_meta(meta)
    Path("rows.jsonl").write_bytes(dump_line({"id": "0" * 16, "prompt": "P", "meta": meta}))
    with Path("rows.jsonl").open("rb") as file:
        (record,) = Reader("rows.jsonl", file, PROMPTS).read()
    assert isinstance(record, Record) and record.meta == {} and record.source_id == "0" * 16
