"""JSON in replies as models write it: what is read, what is not, and that no text takes long."""

import json
from functools import partial
from time import process_time
from typing import Any

import pytest

from datagen.errors import ParseError
from datagen.json_replies import LONGEST, read_items, read_value
from datagen.schemas import parse_schema

PERSON = parse_schema(
    "person",
    {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}, "tags": {"type": "array"}},
        "required": ["name", "age"],
    },
    "person",
)
NUMBERS = parse_schema("numbers", {"type": "array", "items": {"type": "integer"}}, "numbers")
WORD = parse_schema("word", {"enum": ["yes", "no"]}, "word")
TEXT = {"type": "string"}
TASK = parse_schema("task", {"type": "object", "properties": {"instruction": TEXT}, "required": ["instruction"]}, "t")
ANN = {"name": "Ann", "age": 4}
UNREADABLE = object()

PERSONS: dict[str, Any] = {
    # as it was asked for
    '{"name": "Ann", "age": 4}': ANN,
    ' \n{"name": "Ann", "age": 4}\n': ANN,
    '{\n  "name": "Ann",\n  "age": 4\n}': ANN,
    '{"age": 4, "name": "Ann", "id": 7}': {"age": 4, "name": "Ann", "id": 7},
    '{"name": "\\u00c4nn", "age": 4}': {"name": "Änn", "age": 4},
    # around it
    '```json\n{"name": "Ann", "age": 4}\n```': ANN,
    '```\n{"name": "Ann", "age": 4}\n```': ANN,
    'Here it is:\n```json\n{"name": "Ann", "age": 4}\n```\nHope that helps!': ANN,
    'Sure! {"name": "Ann", "age": 4}': ANN,
    '{"name": "Ann", "age": 4} I hope this helps :)': ANN,
    'The person {in the text} is {"name": "Ann", "age": 4} [sic]': ANN,
    'I [think {"name": "Ann", "age": 4}': ANN,
    'It\'s "Ann": {"name": "Ann", "age": 4}': ANN,
    '{"name": "Ann", "age": 4}}': ANN,
    'json\n{"name": "Ann", "age": 4}': ANN,
    '~~~\n{"name": "Ann", "age": 4}\n~~~': ANN,
    # not quite JSON
    "{'name': 'Ann', 'age': 4}": ANN,
    '{"name": "Ann", "age": 4,}': ANN,
    '{name: "Ann", age: 4}': ANN,
    '{"name": "Ann", // her name\n "age": 4}': ANN,
    '{"name": "Ann", /* years */ "age": 4}': ANN,
    '{"name": "Ann" "age": 4}': ANN,
    '{"name": "Ann"\n"age": 4}': ANN,
    "{“name”: “Ann”, “age”: 4}": ANN,
    '{"name": "Ann", "age": 4, ...}': ANN,
    '{"name": "Ann", "age": 4, "tags": [1, 2,]}': {**ANN, "tags": [1, 2]},
    '{"name": "Ann", "age": 4, "tags": None}': UNREADABLE,
    '{"name": "Ann\nLee", "age": 4}': {"name": "Ann\nLee", "age": 4},
    '{"name": "Ann "Bee" Lee", "age": 4}': {"name": 'Ann "Bee" Lee', "age": 4},
    '{"age": 4, "name": "Ann"': ANN,
    '```json\n{"age": 4, "name": "Ann"\n```': ANN,
    # of another type, where nothing is lost
    '{"name": "Ann", "age": "4"}': ANN,
    '{"name": "Ann", "age": " 4 "}': ANN,
    '{"name": "Ann", "age": 4.0}': ANN,
    '{"name": "Ann", "age": "4.0"}': ANN,
    '{"name": 7, "age": 4}': {"name": "7", "age": 4},
    '{"name": true, "age": 4}': {"name": "true", "age": 4},
    '{"name": "Ann", "age": 4, "tags": {"a": 1}}': {**ANN, "tags": [{"a": 1}]},
    # several: the last valid one
    '{"name": "Ann", "age": 3}\nNo, wait:\n{"name": "Ann", "age": 4}': ANN,
    '{"name": "Ann", "age": 4}\n{"name": "Ann"}': ANN,
    '{"name": "...", "age": "..."}\n{"name": "Ann", "age": 4}': ANN,
    '{"name": "Bob", "age": 3} {"name": "Ann", "age": 4} {"note": "done"}': ANN,
    # not valid
    '{"name": "Ann"}': UNREADABLE,
    '{"name": "Ann", "age": "four"}': UNREADABLE,
    '{"name": "Ann", "age": 4.5}': UNREADABLE,
    '{"name": "Ann", "age": "4.5"}': UNREADABLE,
    '{"name": "Ann", "age": "0x4"}': UNREADABLE,
    '{"name": "Ann", "age": "4 years"}': UNREADABLE,
    '{"name": "Ann", "age": true}': UNREADABLE,
    '{"name": "Ann", "age": null}': UNREADABLE,
    '{"name": null, "age": 4}': UNREADABLE,
    '{"name": ["Ann"], "age": 4}': UNREADABLE,
    '{"name": "Ann", "age": NaN}': UNREADABLE,
    '{"name": "Ann", "age": 1e999}': UNREADABLE,
    '[{"name": "Ann", "age": 4}]': UNREADABLE,
    '{"Name": "Ann", "Age": 4}': UNREADABLE,
    # torn: its end is a guess
    '{"name": "Ann", "age": 4': UNREADABLE,
    '{"age": 4, "name": "An': UNREADABLE,
    '{"name": "Ann", "age"': UNREADABLE,
    '{"name": "5\'10"", "age": 4}': UNREADABLE,
    '{"name": "Ann", ': UNREADABLE,
    '{"name": "\\ud83d", "age": 4}': UNREADABLE,
    # none
    "The name is Ann, and the age is 4.": UNREADABLE,
    "name: Ann\nage: 4": UNREADABLE,
    "I'm sorry, but I can't help with that.": UNREADABLE,
    "{}": UNREADABLE,
    "null": UNREADABLE,
    '"Ann"': UNREADABLE,
    "{ } [ ] {": UNREADABLE,
    "": UNREADABLE,
}
LISTS: dict[str, Any] = {
    "[1, 2]": [1, 2],
    "[1, 2,]": [1, 2],
    '["1", 2.0]': [1, 2],
    "[1] and [2]": [2],
    "See [1].\n[3, 4]": [3, 4],
    "[]": [],
    "[1, 2": UNREADABLE,
    "1, 2": UNREADABLE,
    "[one, two]": UNREADABLE,
    "[sic]": UNREADABLE,
    "1. 5\n2. 6": UNREADABLE,
}
WORDS: dict[str, Any] = {
    '"yes"': "yes",
    '```json\n"no"\n```': "no",
    "yes": UNREADABLE,
    '"maybe"': UNREADABLE,
    '"yes" or "no"': UNREADABLE,
}
REPLIES = [(schema, *reply) for schema, replies in ((PERSON, PERSONS), (NUMBERS, LISTS), (WORD, WORDS))
           for reply in replies.items()]  # fmt: skip


@pytest.mark.parametrize(("schema", "text", "value"), REPLIES)
def test_what_models_write(schema: Any, text: str, value: Any) -> None:
    if value is UNREADABLE:
        with pytest.raises(ParseError):
            read_value(text, schema)
        return
    reading = read_value(text, schema)
    assert reading.value == value
    assert json.loads(reading.text) == value, "the text is JSON"
    assert not isinstance(value, dict) or type(reading.value.get("age")) is int


def test_a_valid_reply_stays_as_it_is_written() -> None:
    text = '{\n\t"age":4, "name" : "\\u00c4nn"}'
    assert read_value(f" {text}\n", PERSON).text == text
    assert read_value(f"So: {text}", PERSON).text == '{"age": 4, "name": "Änn"}'
    assert read_value('{"age":"4","name":"Ann"}', PERSON).text == '{"age": 4, "name": "Ann"}'


def task(*instructions: str | None) -> list[Any]:
    return [text if text is None else {"instruction": text} for text in instructions]


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ('{"tasks": [{"instruction": "a"}, {"instruction": "b"}]}', task("a", "b")),
        ('[{"instruction": "a"}, {"instruction": "b"}]', task("a", "b")),
        ('```json\n[\n  {\n    "instruction": "a"\n  }\n]\n```', task("a")),
        ('{"instruction": "a"}\n{"instruction": "b"}', task("a", "b")),
        ('Here are two:\n{"instruction": "a"},\n{"instruction": "b"}\nDone.', task("a", "b")),
        ('{"1": {"instruction": "a"}, "2": {"instruction": "b"}}', task("a", "b")),
        ('{"tasks": {"instruction": "a"}}', task("a")),
        ('{"items": [{"instruction": "a"}]}', task("a")),
        ('{"instruction": "a"}', task("a")),
        ('{"tasks": [{"instruction": 7}, {"instruction": ["x"]}, "c", {}]}', [*task("7"), None, None, None]),
        ("{'tasks': [{'instruction': 'a'}, {'instruction': 'b'},]}", task("a", "b")),
        ('{"instruction": "a"}\n{"instruction": "b \n{"instruction": "c"}', task("a", None, "c")),
        ('{"tasks": [{"instruction": "a"}, {"instruction": "b', task("a", None)),
        ('See [1]. {"instruction": "a"}', task("a")),
        ('{"instruction": "use {x} and [y]"}\n{"instruction": "b",}', task("use {x} and [y]", "b")),
    ],
)
def test_lists_of_objects_are_read_object_by_object(text: str, items: list[Any]) -> None:
    read = read_items(text, "tasks", TASK)
    assert [item and {"instruction": item["instruction"]} for item in read] == items


@pytest.mark.parametrize("text", ["", "1. a\n2. b", "[1, 2]", '{"tasks": []}', '{"tasks": ["a"]}', "[{}]"])
def test_a_list_without_an_object_that_fits_is_no_answer(text: str) -> None:
    with pytest.raises(ParseError):
        read_items(text, "tasks", TASK)


HOSTILE = r"""[ { [{ " [" {"a": {"a" [' [1 {} [] {a:1} {"a":" ( /* // \ ``` [1] "1 “: ]} # {"name": [[], "null {}"""
PIECES = tuple(HOSTILE.split())


@pytest.mark.parametrize(
    ("length", "pieces"), [(3_000, PIECES), (LONGEST, ("{a:1}", "{", '["', '"1')), (100_000, PIECES)]
)
def test_no_reply_takes_long(length: int, pieces: tuple[str, ...]) -> None:
    for piece in pieces:
        for begin in ("", '["'):
            text = (begin + piece * length)[:length]
            for read in (partial(read_value, schema=PERSON), partial(read_items, name="tasks", schema=TASK)):
                start = process_time()
                with pytest.raises(ParseError):
                    read(text)
                assert process_time() - start < 1, (piece, begin)
