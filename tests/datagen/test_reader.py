"""Real-world files: the format is detected by content, every row is read, every bad line is reported with its place."""

import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.errors import InputError
from datagen.records.files import dump_line, open_input
from datagen.records.layout import pack_meta
from datagen.records.prompt_shapes import PROMPT_SHAPES
from datagen.records.reader import PROMPTS, Reader
from datagen.records.record import BadLine, Record, Row, Text
from tests.conftest import REAL_DATA

Read = list[Record | BadLine]
SYSTEM, USER = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}
ASSISTANT = {"role": "assistant", "content": "Because."}
ONE, TWO = b'{"prompt": "one"}\n', b'{"prompt": "two"}\n'
LONE_SURROGATE, CUT_OFF = (
    "half a character (a lone surrogate)",
    "perhaps cut off: the file ends here without a line end",
)


def read_file(path: Path, shape: str | None = None) -> Read:
    with open_input(str(path)) as file:
        return list(Reader(path.name, file, PROMPTS, shape).read())


def read(content: bytes, shape: str | None = None, name: str = "in.jsonl") -> Read:
    """Write a real file and read it."""
    Path(name).write_bytes(content)
    return read_file(Path(name), shape)


def records(items: Read) -> list[Record]:
    return [item for item in items if isinstance(item, Record)]


def prompts(items: Read) -> list[Text]:
    return [record.prompt for record in records(items)]


def bad_lines(items: Read) -> list[BadLine]:
    return [item for item in items if isinstance(item, BadLine)]


def as_lines(rows: Sequence[Row]) -> bytes:
    return b"".join(map(dump_line, rows))


SHAPES: dict[str, tuple[str, bytes, Text, str | None]] = {
    "prompt": ("prompt", as_lines([{"prompt": "Why?"}]), "Why?", None),
    "prompt and response": ("prompt", as_lines([{"prompt": "Why?", "response": "So."}]), "Why?", "So."),
    "null response": ("prompt", as_lines([{"prompt": "Why?", "response": None}]), "Why?", None),
    "prompt as messages": ("prompt", as_lines([{"prompt": [SYSTEM, USER]}]), [SYSTEM, USER], None),
    "prompt as one message": ("prompt", as_lines([{"prompt": [USER], "response": "So."}]), "Why?", "So."),
    "alpaca with input": (
        "alpaca",
        as_lines([{"instruction": "Add", "input": "1 2", "output": "3"}]),
        "Add\n\n1 2",
        "3",
    ),
    "alpaca, empty input": ("alpaca", as_lines([{"instruction": "Add", "input": "", "output": "3"}]), "Add", "3"),
    "alpaca, no input": ("alpaca", as_lines([{"instruction": "Add", "output": ""}]), "Add", None),
    "self-instruct": (
        "self-instruct",
        as_lines([{"instruction": "Add", "instances": [{"input": "1 2", "output": "3"}]}]),
        "Add\n\n1 2",
        "3",
    ),
    "messages, answered": ("messages", as_lines([{"messages": [SYSTEM, USER, ASSISTANT]}]), [SYSTEM, USER], "Because."),
    "messages, one turn": ("messages", as_lines([{"messages": [USER, ASSISTANT]}]), "Why?", "Because."),
    "messages, unanswered": ("messages", as_lines([{"messages": [SYSTEM, USER]}]), [SYSTEM, USER], None),
    "messages, several turns": (
        "messages",
        as_lines([{"messages": [USER, ASSISTANT, USER]}]),
        [USER, ASSISTANT, USER],
        None,
    ),
    "text": ("text", b"Why?\n", "Why?", None),
    "text, no line end": ("text", b"Why?", "Why?", None),
    "array": ("prompt", b'[{"prompt": "Why?"}]', "Why?", None),
    "array over many lines": ("alpaca", b'\n[\n  {\n    "instruction": "Why?"\n  }\n]\n', "Why?", None),
}  # fmt: skip


@pytest.mark.parametrize("forced", [False, True], ids=["detected", "forced"])
@pytest.mark.parametrize(("shape", "content", "prompt", "response"), SHAPES.values(), ids=SHAPES)
def test_every_shape_is_read_detected_or_forced(
    shape: str, content: bytes, prompt: Text, response: str | None, forced: bool
) -> None:
    Path("in.any").write_bytes(content)
    with open_input("in.any") as file:
        reader = Reader("in.any", file, PROMPTS, shape if forced else None)
        (record,) = reader.read()
    assert reader.shape == shape
    assert isinstance(record, Record)
    assert (record.prompt, record.response, record.extra) == (prompt, response, {})


def test_every_instance_of_a_self_instruct_task_is_a_record() -> None:
    instances = [{"input": "", "output": "a"}, {"input": "x", "output": ""}, {"input": "x", "output": "b"}]
    items = records(read(as_lines([{"id": "seed_task_0", "instruction": "Do", "instances": instances, "name": "n"}])))
    assert [(r.prompt, r.response) for r in items] == [("Do", "a"), ("Do\n\nx", None), ("Do\n\nx", "b")]
    assert {(r.source_id, r.line, json.dumps(r.extra)) for r in items} == {("seed_task_0", 1, '{"name": "n"}')}
    assert len({r.id for r in items}) == 3


def test_each_row_has_its_own_shape_and_one_without_any_is_a_bad_line() -> None:
    items = read(ONE + as_lines([{"instruction": "x", "output": "y"}, {"output": "y"}]) + TWO)
    assert prompts(items) == ["one", "x", "two"]
    assert [str(bad) for bad in bad_lines(items)] == ['in.jsonl:3: no "prompt" (found: output)']


def test_a_row_of_another_kind_is_a_bad_line_that_names_the_kind() -> None:
    (_, bad) = read(ONE + as_lines([{"prompt": "x", "chosen": "y", "rejected": "z"}]))
    assert str(bad) == "in.jsonl:2: holds preferences, not prompts (found: prompt, chosen, rejected)"


def test_a_forced_format_goes_before_what_the_rows_look_like() -> None:
    row = as_lines([{"prompt": "a", "instruction": "b"}])
    assert prompts(read(row)) == ["a"]
    assert prompts(read(row, "alpaca")) == ["b"]
    assert prompts(read(row, "text")) == ['{"prompt": "a", "instruction": "b"}']


def test_the_name_of_a_file_does_not_matter() -> None:
    assert prompts(read(b"One?\nTwo?\n", name="x.jsonl")) == ["One?", "Two?"]
    assert prompts(read(ONE + TWO, name="x.txt")) == ["one", "two"]


ODD_BUT_FINE: dict[str, tuple[bytes, list[str]]] = {
    "BOM": (b"\xef\xbb\xbf" + ONE + TWO, ["one", "two"]),
    "BOM before text": ("\ufeffone\ntwo\n".encode(), ["one", "two"]),
    "BOM before an array": (b'\xef\xbb\xbf[{"prompt": "one"}]', ["one"]),
    "CRLF": ((ONE + TWO).replace(b"\n", b"\r\n"), ["one", "two"]),
    "CRLF text": (b"one\r\ntwo\r\n", ["one", "two"]),
    "blank lines": (b"\n \t\n" + ONE + b"\n\r\n" + TWO + b"\n\n", ["one", "two"]),
    "blank lines in text": (b"\n\none\n \ntwo\n", ["one", "two"]),
    "no last line end": (ONE + TWO.rstrip(), ["one", "two"]),
    "U+2028 raw in JSON": ('{"prompt": "a\u2028b\u2029c\x85d"}\n'.encode() + TWO, ["a\u2028b\u2029c\x85d", "two"]),
    "U+2028 escaped in JSON": (b'{"prompt": "a\\u2028b"}\n', ["a\u2028b"]),
    "U+2028 in text": ("a\u2028b\ntwo\n".encode(), ["a\u2028b", "two"]),
    "a carriage return in text": (b"a\rb\ntwo\n", ["a\rb", "two"]),
    "a whole surrogate pair": (b'{"prompt": "\\ud83d\\ude00"}\n', ["\U0001f600"]),
    "text that starts like an array": (b"[1] Who?\n[x] What?\n", ["[1] Who?", "[x] What?"]),
    "spaces around text stay": (b"  one \ntwo\n", ["  one ", "two"]),
}


@pytest.mark.parametrize(("content", "expected"), ODD_BUT_FINE.values(), ids=ODD_BUT_FINE)
def test_an_odd_file_is_read_whole(content: bytes, expected: list[str]) -> None:
    items = read(content)
    assert bad_lines(items) == []
    assert prompts(items) == expected


BAD_LINES: dict[str, tuple[bytes, str]] = {
    "cut off inside": (b'{"prompt": "tw\n', "not JSON ("),
    "two objects on a line": (b'{"prompt": "a"}{"prompt": "b"}\n', "not JSON (Extra data"),
    "single quotes": (b"{'prompt': 'a'}\n", "not JSON ("),
    "invalid UTF-8": (b'{"prompt": "caf\xe9"}\n', "not UTF-8"),
    "cut UTF-8": (b'{"prompt": "\xe4\xbd"}\n', "not UTF-8"),
    "a surrogate in UTF-8": (b'{"prompt": "\xed\xa0\x80"}\n', "not UTF-8"),
    "NaN": (b'{"prompt": "a", "score": NaN}\n', "NaN is not JSON"),
    "Infinity": (b'{"prompt": "a", "score": Infinity}\n', "Infinity is not JSON"),
    "minus Infinity": (b'{"prompt": "a", "score": -Infinity}\n', "-Infinity is not JSON"),
    "a number out of range": (b'{"prompt": "a", "score": 1e999}\n', "1e999 is too large a number"),
    "a lone high surrogate": (b'{"prompt": "a\\ud800b"}\n', LONE_SURROGATE),
    "a lone low surrogate": (b'{"prompt": "a\\uDC00b"}\n', LONE_SURROGATE),
    "a lone surrogate in another field": (b'{"prompt": "a", "note": ["\\ud800"]}\n', LONE_SURROGATE),
    "a lone surrogate in a key": (b'{"prompt": "a", "\\ud800": 1}\n', LONE_SURROGATE),
    "an array": (b'[{"prompt": "a"}]\n', "not a JSON object"),
    "a string": (b'"a"\n', "not a JSON object"),
    "a number": (b"12\n", "not a JSON object"),
    "null": (b"null\n", "not a JSON object"),
    "no prompt": (b'{"promt": "a", "n": 1}\n', 'no "prompt" (found: promt, n)'),
    "nothing": (b"{}\n", 'no "prompt" (found: nothing)'),
    "prompt is null": (b'{"prompt": null}\n', '"prompt" is not text'),
    "prompt is a number": (b'{"prompt": 7}\n', '"prompt" is not text'),
    "prompt is an object": (b'{"prompt": {"content": "a"}}\n', '"prompt" is not text'),
    "prompt is empty": (b'{"prompt": ""}\n', '"prompt" is empty'),
    "prompt is blank": ('{"prompt": " \\n\u2028"}\n'.encode(), '"prompt" is empty'),
    "response is a number": (b'{"prompt": "a", "response": 3}\n', '"response" is not text'),
    "no messages": (b'{"prompt": []}\n', '"prompt" is not a list of turns'),
    "messages are numbers": (b'{"prompt": [1]}\n', 'turn 1 of "prompt" has no text as from and value, or role and'),
    "a message without content": (b'{"prompt": [{"role": "user"}]}\n', 'turn 1 of "prompt" has no text as from and'),
    "an image": (
        b'{"prompt": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}\n',
        'turn 1 of "prompt" has a part of type "image_url"; only parts of type "text" can be used',
    ),
    "messages end in an answer": (as_lines([{"prompt": [USER, ASSISTANT]}]), "does not end in a user's message"),
    "a last message that is blank": (as_lines([{"prompt": [{**USER, "content": " "}]}]), "does not end in a user's"),
    "very deep nesting": (b'{"prompt": "a", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", "recursion"),
    "torn and deep": (b"[" * 100_000 + b"\n", "recursion"),
}  # fmt: skip


@pytest.mark.parametrize(("bad", "telling"), BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_line_is_named_and_the_rows_around_it_are_read(bad: bytes, telling: str) -> None:
    first, named, last = read(ONE + bad + TWO)
    assert prompts([first, last]) == ["one", "two"]
    assert isinstance(named, BadLine)
    assert str(named).startswith("in.jsonl:2: ")
    assert telling in named.reason
    assert CUT_OFF not in named.reason
    assert "\n" not in str(named)


def test_a_torn_last_line_is_said_to_be_cut_off() -> None:
    *good, torn = read(ONE + TWO + b'{"prompt": "thr')
    assert prompts(good) == ["one", "two"]
    assert isinstance(torn, BadLine)
    assert str(torn).startswith("in.jsonl:3: not JSON (")
    assert torn.reason.endswith(CUT_OFF)
    assert torn.raw == '{"prompt": "thr'


@pytest.mark.parametrize(
    ("shape", "row", "telling"),
    [
        ("alpaca", {"output": "a"}, 'no "instruction" (found: output)'),
        ("alpaca", {"instruction": "a", "input": 3}, '"input" is not text'),
        ("alpaca", {"instruction": "a", "output": ["x"]}, '"output" is not text'),
        ("self-instruct", {"instruction": "a", "instances": []}, '"instances" is not a list of {input, output}'),
        ("self-instruct", {"instruction": "a", "instances": ["x"]}, '"instances" is not a list of {input, output}'),
        ("self-instruct", {"instances": [{"input": "x"}]}, '"instruction" is not text'),
        ("self-instruct", {"instruction": " ", "instances": [{"input": "x"}]}, '"instruction" is empty'),
        ("messages", {"messages": "a"}, '"messages" is not a list of turns'),
        ("messages", {"messages": [ASSISTANT]}, "does not end in a user's message"),
        ("messages", {"messages": [USER, ASSISTANT, ASSISTANT]}, "does not end in a user's message"),
        ("messages", {"prompt": "a"}, 'no "messages" (found: prompt)'),
    ],
)
def test_a_bad_row_of_another_shape_says_what_is_wrong(shape: str, row: Row, telling: str) -> None:
    (bad,) = read(as_lines([row]), shape)
    assert isinstance(bad, BadLine)
    assert telling in str(bad)


def test_one_bad_instance_makes_the_whole_task_a_bad_line() -> None:
    instances = [{"input": "a", "output": "b"}, {"input": 1, "output": "b"}]
    (bad,) = read(as_lines([{"instruction": "Do", "instances": instances}]))
    assert str(bad) == 'in.jsonl:1: "input" is not text'


def test_bad_bytes_in_a_text_file_are_one_bad_line() -> None:
    first, bad, last = read(b"one\ncaf\xe9\ntwo\n", name="in.txt")
    assert prompts([first, last]) == ["one", "two"]
    assert str(bad) == "in.txt:2: not UTF-8"
    assert isinstance(bad, BadLine) and bad.raw == "caf\\xe9\n"


def test_a_text_line_that_says_nothing_is_a_bad_line() -> None:
    assert str(read("one\n\u2028\n".encode())[1]) == 'in.jsonl:2: "prompt" is empty'


def test_a_bad_item_of_an_array_is_named_by_its_number() -> None:
    items = read(b'[{"prompt": "one"},\n 7, {"prompt": "\\ud800"},\n {"prompt": "two"}, {"prompt": ""}]')
    assert prompts(items) == ["one", "two"]
    assert [str(bad) for bad in bad_lines(items)] == [
        "in.jsonl:2: not a JSON object",
        f"in.jsonl:3: {LONE_SURROGATE}",
        'in.jsonl:5: "prompt" is empty',
    ]


def test_a_file_of_damaged_json_is_all_bad_lines_and_never_text() -> None:
    items = read(b'{"prompt": "a"\n{prompt: b}\n\n{"prompt": "c",}\n')
    assert [type(item) for item in items] == [BadLine] * 3
    assert [str(bad).partition(" (")[0] for bad in bad_lines(items)] == [
        f"in.jsonl:{number}: not JSON" for number in (1, 2, 4)
    ]


@pytest.mark.parametrize(
    ("content", "telling"),
    [
        (b"", "in.jsonl: no rows (the file is empty)"),
        (b"\n \r\n\t\n", "in.jsonl: no rows (the file is empty)"),
        (b"\xef\xbb\xbf", "in.jsonl: no rows (the file is empty)"),
        (b"[]", "in.jsonl: no rows (the file is empty)"),
        (b'[{"prompt": "a"}', "in.jsonl: starts like a JSON array but is not one"),
        (b'[{"prompt": "a"}]\n[{"prompt": "b"}]\n', "in.jsonl: starts like a JSON array but is not one"),
        (b'[{"prompt": "a"}, {"prompt": NaN}]', "NaN is not JSON"),
        (b'[{"prompt": "\xff"}]', "in.jsonl: starts like a JSON array but is not one"),
        (b'[{"a":' * 100_000, "in.jsonl: starts like a JSON array but is not one"),
        (b'{"title": "a", "body": "b"}\n', "(found: title, body)"),
    ],
    ids=[
        "empty", "blank", "BOM alone", "empty array", "broken array", "two arrays", "NaN in an array",
        "bad bytes in an array", "deep array", "unknown keys",
    ],
)  # fmt: skip
def test_a_file_without_usable_rows_is_one_clear_error(content: bytes, telling: str) -> None:
    with pytest.raises(InputError) as raised:
        read(content)
    assert telling in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_unknown_format_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(InputError, match="--format csv: expected one of") as raised:
        read(ONE, "csv")
    assert all(name in str(raised.value) for name in PROMPT_SHAPES)


def test_a_file_is_read_the_same_every_time_and_in_any_spelling() -> None:
    rows: list[Row] = [{"prompt": "one", "note": "é"}, {"prompt": "two", "id": 5}, {"prompt": "one"}]
    content = as_lines(rows)
    Path("in.jsonl").write_bytes(content)
    with open_input("in.jsonl") as file:
        reader = Reader("in.jsonl", file, PROMPTS)
        first, second = list(reader.read()), list(reader.read())
    assert first == second
    assert read(json.dumps(rows, indent=1).encode(), name="array.json") == first
    assert read(content.replace(b"\n", b"\r\n\r\n"), name="other.jsonl") == first


def test_equal_rows_have_different_ids() -> None:
    items = records(read(ONE * 3 + TWO + ONE))
    assert len({record.id for record in items}) == 5


def test_a_row_more_at_the_end_changes_no_earlier_id() -> None:
    content = ONE + TWO + ONE
    before = [record.id for record in records(read(content))]
    for addition in (ONE, TWO, b"{oops\n", b'{"prompt": "three"}\n'):
        assert [record.id for record in records(read(content + addition))][:3] == before


def test_an_id_depends_on_what_a_row_says_alone() -> None:
    conversation = [SYSTEM, {**USER, "content": "a"}]
    rows: list[Row] = [{"prompt": "a"}, {"prompt": "b"}, {"prompt": "a", "response": "x"}, {"prompt": conversation}]
    ids = {records(read(as_lines([row])))[0].id for row in rows}
    assert len(ids) == 4
    assert records(read(b'\n{"note": 1, "id": "x", "prompt": "a"}\n'))[0].id in ids


def test_our_own_rows_keep_their_id() -> None:
    ours: Row = {"id": "00ff00ff00ff00ff", "prompt": "a", "response": "b", "meta": pack_meta({"method": "evolve"})}
    first, again = records(read(as_lines([ours, ours])))
    assert (first.id, first.source_id, first.extra) == (ours["id"], None, {})
    assert again.id != first.id
    assert again.source_id is None


@pytest.mark.parametrize(
    ("fields", "source_id"),
    [
        ({"id": "00ff00ff00ff00ff"}, "00ff00ff00ff00ff"),
        ({"id": "seed_task_1", "meta": {}}, "seed_task_1"),
        ({"id": "00FF00FF00FF00FF", "meta": {}}, "00FF00FF00FF00FF"),
        ({"id": "00ff00ff00ff00ff0", "meta": {}}, "00ff00ff00ff00ff0"),
        ({"id": "00ff00ff00ff00ff", "meta": "x"}, "00ff00ff00ff00ff"),
        ({"id": 7}, "7"),
        ({"id": 0}, "0"),
        ({"id": None}, None),
        ({}, None),
    ],
)
def test_a_foreign_id_is_kept_beside_ours(fields: Row, source_id: str | None) -> None:
    (record,) = records(read(as_lines([{"prompt": "a", **fields}])))
    (plain,) = records(read(as_lines([{"prompt": "a"}])))
    assert (record.id, record.source_id) == (plain.id, source_id)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "a", "response": "b"},
        {"instruction": "a", "input": "b", "output": "c"},
        {"instruction": "a", "instances": [{"input": "b", "output": "c"}]},
        {"messages": [USER, ASSISTANT]},
    ],
    ids=lambda row: next(iter(row)),
)
def test_unknown_fields_land_in_extra(row: Row) -> None:
    unknown: dict[str, Any] = {"topic": "t", "nested": {"a": "b"}}
    ours: dict[str, Any] = {"scores": [1, 2.5, None], "meta": {"by": "them"}}
    (record,) = records(read(as_lines([{**row, **unknown, **ours, "id": "x"}])))
    assert record.extra == unknown | {f"source_{name}": value for name, value in ours.items()}


@given(st.lists(st.text().filter(str.strip), min_size=1))
def test_any_prompts_written_as_json_lines_come_back(texts: list[str]) -> None:
    file = BytesIO(as_lines([{"prompt": text} for text in texts]))
    items = list(Reader("any", file, PROMPTS).read())
    assert prompts(items) == texts
    assert len({record.id for record in records(items)}) == len(texts)


LINE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n")).filter(str.strip)


@given(st.lists(LINE, min_size=1))
def test_any_lines_of_text_come_back(texts: list[str]) -> None:
    file = BytesIO("\ufeff{}\n".format("\n".join(texts)).encode())
    assert prompts(list(Reader("any", file, PROMPTS, "text").read())) == texts


@given(st.lists(st.binary(max_size=40)))
def test_any_bytes_are_records_or_bad_lines(lines: list[bytes]) -> None:
    content = b"{}\n" + b"\n".join(lines)
    _, *items = Reader("any", BytesIO(content), PROMPTS, "prompt").read()
    assert len(items) == sum(1 for line in content.split(b"\n")[1:] if line.strip())
    assert all(isinstance(item, Record | BadLine) for item in items)


REAL_FILES = (
    "self_instruct/seed_tasks.jsonl", "sft/oasst_zh_sft_dev.json", "sft/sharegpt_dummy.json",
    "sft/glaive_toolcall_100.json", "formats/medicalgpt_sft_sharegpt.jsonl", "formats/medicalgpt_grpo.jsonl",
    "ifeval/input_data_341.jsonl",
)  # fmt: skip


def real_file(name: str) -> Path:
    path = REAL_DATA / name
    if not path.exists():
        pytest.skip(f"the real data are not here: ../shared/data/{name}")
    return path


def test_the_seed_tasks_are_175_records_and_no_bad_line(real_seeds: Path) -> None:
    items = read_file(real_seeds)
    assert bad_lines(items) == []
    assert len(items) == len({record.id for record in records(items)}) == 175
    assert {str(record.source_id).rpartition("_")[0] for record in records(items)} == {"seed_task"}
    assert all(record.extra.keys() == {"name", "is_classification"} for record in records(items))
    assert sum(record.extra["is_classification"] for record in records(items)) == 26
    tasks = map(json.loads, real_seeds.read_text().splitlines())
    assert sum(not task["instances"][0]["input"] for task in tasks) == 50


@pytest.mark.parametrize("name", REAL_FILES)
def test_the_ids_of_a_real_file_hold_when_it_grows(name: str) -> None:
    path = real_file(name)
    complete = records(read_file(path))
    rows = (
        json.loads(path.read_bytes())
        if path.suffix == ".json"
        else list(map(json.loads, path.read_bytes().splitlines()))
    )
    half = records(read(as_lines(rows[: len(rows) // 2])))
    assert len(half) > 20
    assert half == complete[: len(half)]


@pytest.mark.parametrize("name", REAL_FILES)
def test_what_was_read_from_a_real_file_can_be_written_and_read_again(name: str) -> None:
    items = records(read_file(real_file(name)))
    rows = [{**r.row, "meta": pack_meta({})} for r in items]
    again = read(as_lines(rows))
    assert [(r.id, r.prompt, r.response, r.extra) for r in records(again)] == [
        (r.id, r.prompt, r.response, r.extra) for r in items
    ]
