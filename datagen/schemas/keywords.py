"""From JSON to a schema: every keyword is known, or the schema is refused."""

import re
from collections.abc import Mapping
from typing import Any

from datagen.errors import InputError
from datagen.schemas.fitting import shown
from datagen.schemas.schema import (
    DEEPEST,
    WITH_NAMED_SCHEMAS,
    WITH_SCHEMA,
    WITH_SCHEMAS,
    Matcher,
    Schema,
    inner_schemas,
    resolve,
    subschemas,
)

TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")
NOTES = frozenset(
    ("title", "description", "default", "examples", "format", "$schema", "$id", "$comment", "readOnly", "writeOnly",
     "deprecated")
)  # fmt: skip
COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
OTHERS = ("type", "enum", "const", "required", "pattern", "uniqueItems", "$ref")
KEYWORDS = frozenset((*WITH_SCHEMA, *WITH_SCHEMAS, *WITH_NAMED_SCHEMAS, *COUNTS, *BOUNDS, *OTHERS))


def parse_schema(name: str, value: Any, place: str) -> Schema:
    """Check a JSON Schema.

    Args:
        name: Of the schema; characters that servers refuse in it become _.
        value: The schema, as JSON.
        place: Where it comes from, for messages.

    Raises:
        InputError: It is none, or has a keyword that is not checked here.
    """
    try:
        if not isinstance(value, dict):
            raise InputError(f"{place}: a JSON Schema is an object")
        check_keywords(value, place)
        nodes = list(subschemas(value))
        for node in nodes:
            check_reference(value, node, place)
    except RecursionError:
        raise InputError(f"{place}: a schema of more than {DEEPEST} levels") from None
    patterns = {node["pattern"]: compile_pattern(node["pattern"], place) for node in nodes if "pattern" in node}
    schema = Schema(re.sub(r"[^A-Za-z0-9_-]", "_", name)[:64] or "answer", value, patterns)
    samples: tuple[Any, ...] = (None, "", 0, [], {})
    if any(map(schema.leads_nowhere, samples)):
        raise InputError(f"{place}: $ref leads in a circle")
    return schema


def object_schema(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of an object with exactly these keys."""
    closed = {"required": list(properties), "additionalProperties": False}
    return {"type": "object", "properties": dict(properties), **closed}


def list_schema(name: str, items: Any) -> dict[str, Any]:
    """Return the schema of a list under a name: servers promise objects alone."""
    return object_schema({name: {"type": "array", "items": items}})


def check_keywords(schema: Any, place: str, depth: int = DEEPEST) -> None:
    """Raise InputError for a keyword that is unknown or has no value of its kind."""
    if isinstance(schema, bool):
        return
    if not depth:
        raise RecursionError
    if not isinstance(schema, dict):
        raise InputError(f"{place}: {shown(schema)} is no schema")
    unknown = sorted(schema.keys() - KEYWORDS - NOTES)
    if unknown:
        raise InputError(
            f"{place}: the keyword {shown(unknown[0])} is not checked here. Known are {', '.join(sorted(KEYWORDS))}"
        )
    for keyword, value in schema.items():
        if not has_kind(keyword, value):
            raise InputError(f"{place}: {keyword} cannot be {shown(value)}")
    for inner in inner_schemas(schema):
        check_keywords(inner, place, depth - 1)


def has_kind(keyword: str, value: Any) -> bool:
    """Whether a value is of the kind that a keyword takes."""
    if keyword in NOTES or keyword in WITH_SCHEMA or keyword == "const":
        return True
    if keyword in COUNTS:
        return type(value) is int and value >= 0
    if keyword in BOUNDS:
        return type(value) in (int, float) and (keyword != "multipleOf" or value > 0)
    if keyword in WITH_NAMED_SCHEMAS:
        return isinstance(value, dict)
    if keyword in ("enum", "required", *WITH_SCHEMAS):
        names = keyword != "required" or all(isinstance(name, str) for name in value)
        return isinstance(value, list) and bool(value or keyword == "required") and names
    if keyword == "type":
        return value in TYPES if isinstance(value, str) else isinstance(value, list) and all(v in TYPES for v in value)
    return isinstance(value, bool if keyword == "uniqueItems" else str)


def check_reference(root: Mapping[str, Any], schema: Mapping[str, Any], place: str) -> None:
    """Raise InputError if the reference of a schema leads nowhere, or in a circle."""
    steps = 0
    while isinstance(schema, dict) and "$ref" in schema:
        try:
            schema, steps = resolve(root, schema["$ref"]), steps + 1
        except KeyError:
            raise InputError(f"{place}: {shown(schema['$ref'])} leads to no schema in the file") from None
        if steps > DEEPEST:
            raise InputError(f"{place}: $ref leads in a circle")
    check_keywords(schema, place)


def compile_pattern(pattern: str, place: str) -> Matcher:
    """Compile a pattern with an engine whose time is linear in the text: the texts come from a model."""
    from pydantic_core import SchemaError, SchemaValidator, ValidationError, core_schema

    class Linear:
        def __init__(self) -> None:
            self._validator = SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))

        def matches(self, text: str) -> bool:
            try:
                self._validator.validate_python(text)
            except ValidationError:
                return False
            return True

    try:
        return Linear()
    except SchemaError as error:
        problem = " ".join(str(error).split())[:200]
        raise InputError(f"{place}: the pattern {shown(pattern)} cannot be used: {problem}") from None
