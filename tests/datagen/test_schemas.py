"""JSON Schema: what is valid, what is made to fit, and the schemas that are refused."""

from typing import Any

import pytest

from datagen.errors import InputError, ParseError
from datagen.schemas import list_schema, object_schema, parse_schema

TREE = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "children": {"type": "array", "items": {"$ref": "#"}}},
    "required": ["name"],
    "additionalProperties": False,
}
BAD = object()


@pytest.mark.parametrize(
    ("schema", "value", "read"),
    [
        ({}, [1, None], [1, None]),
        ({"type": "integer"}, "12", 12),
        ({"type": "integer"}, 12.0, 12),
        ({"type": "integer"}, True, BAD),
        ({"type": "integer"}, "1e3", BAD),
        ({"type": "number"}, "1.50", 1.5),
        ({"type": "number"}, "12", 12),
        ({"type": "number"}, "1,5", BAD),
        ({"type": "string"}, 1.5, "1.5"),
        ({"type": "string"}, None, BAD),
        ({"type": ["string", "null"]}, None, None),
        ({"type": "boolean"}, "False", False),
        ({"type": "boolean"}, 0, BAD),
        ({"type": "null"}, "", BAD),
        ({"type": "array", "items": {"type": "integer"}}, {"a": 1}, BAD),
        ({"type": "array", "items": {"type": "object"}}, {"a": 1}, [{"a": 1}]),
        ({"type": "array", "maxItems": 1}, [1, 2], BAD),
        ({"type": "array", "uniqueItems": True}, [1, 1], BAD),
        ({"type": "string", "minLength": 2, "maxLength": 3}, "ab", "ab"),
        ({"type": "string", "minLength": 2}, "a", BAD),
        ({"type": "string", "pattern": "^a+$"}, "aa", "aa"),
        ({"type": "string", "pattern": "^a+$"}, "ab", BAD),
        ({"type": "string", "pattern": "(a+)+$"}, "a" * 50_000 + "b", BAD),
        ({"minimum": 1, "maximum": 5}, 5, 5),
        ({"exclusiveMaximum": 5}, 5, BAD),
        ({"multipleOf": 0.1}, 0.3, 0.3),
        ({"multipleOf": 0.1}, 10**400, BAD),
        ({"enum": ["a", 1]}, "1", 1),
        ({"enum": [1]}, True, BAD),
        ({"enum": ["a"]}, "A", BAD),
        ({"const": 4}, "4", 4),
        ({"type": "object", "maxProperties": 1}, {"a": 1, "b": 2}, BAD),
        ({"properties": {"a": {"type": "integer"}}, "additionalProperties": {"type": "string"}}, {"b": 1}, {"b": "1"}),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, "4", "4"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "4", 4),
        ({"oneOf": [{"minimum": 1}, {"maximum": 5}]}, 3, BAD),
        ({"oneOf": [{"minimum": 4}, {"maximum": 3}]}, 3, 3),
        ({"allOf": [{"minimum": 1}, {"maximum": 5}]}, 6, BAD),
        (TREE, {"name": "a", "children": [{"name": 1}]}, {"name": "a", "children": [{"name": "1"}]}),
        (TREE, {"name": "a", "children": [{}]}, BAD),
        (TREE, {"name": "a", "age": 1}, BAD),
        ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "integer"}}}, "4", 4),
        ({"properties": {"a": False}}, {"a": 1}, BAD),
    ],
)
def test_a_value_is_valid_or_made_to_fit_without_a_loss(schema: dict[str, Any], value: Any, read: Any) -> None:
    parsed = parse_schema("s", schema, "s")
    if read is BAD:
        with pytest.raises(ParseError):
            parsed.read(value)
    else:
        result = parsed.read(value)
        assert result == read and type(result) is type(read)


def test_a_problem_has_its_place() -> None:
    schema = parse_schema("s", TREE, "s")
    with pytest.raises(ParseError, match=r"^children\[1\]\.name: null is no string$"):
        schema.read({"name": "a", "children": [{"name": "b"}, {"name": None}]})


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ([], "a JSON Schema is an object"),
        ({"if": {}}, 'the keyword "if" is not checked here'),
        ({"properties": {"a": {"patternProperties": {}}}}, 'the keyword "patternProperties" is not checked here'),
        ({"type": "text"}, 'type cannot be "text"'),
        ({"minLength": -1}, "minLength cannot be -1"),
        ({"required": "a"}, 'required cannot be "a"'),
        ({"items": 3}, "3 is no schema"),
        ({"enum": []}, r"enum cannot be \[\]"),
        ({"multipleOf": 0}, "multipleOf cannot be 0"),
        ({"$ref": "#/$defs/a"}, "leads to no schema in the file"),
        ({"$ref": "https://example.org/schema"}, "leads to no schema in the file"),
        ({"$ref": "#"}, "leads in a circle"),
        ({"allOf": [{"$ref": "#"}]}, "leads in a circle"),
        ({"pattern": "(?=a)"}, "cannot be used"),
        ({"pattern": "("}, "cannot be used"),
    ],
)
def test_a_schema_that_would_not_be_checked_whole_is_refused(schema: Any, says: str) -> None:
    with pytest.raises(InputError, match=f"^f: .*{says}"):
        parse_schema("s", schema, "f")


def test_a_schema_of_many_levels_is_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(500):
        schema = {"items": schema}
    with pytest.raises(InputError, match="levels"):
        parse_schema("s", schema, "f")


def test_what_servers_are_sent() -> None:
    closed = parse_schema("my tasks!", list_schema("tasks", object_schema({"a": {"type": "string"}})), "f")
    form = closed.response_format
    assert form["type"] == "json_schema"
    assert (form["json_schema"]["name"], form["json_schema"]["strict"]) == ("my_tasks_", True)
    assert closed.is_object
    is_open = parse_schema("s", {**TREE, "additionalProperties": True}, "f")
    assert not is_open.response_format["json_schema"]["strict"], "servers refuse an open object as strict"
    assert not parse_schema("s", {"type": "array"}, "f").is_object
