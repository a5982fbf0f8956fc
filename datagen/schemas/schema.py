"""A JSON Schema, and the reading of a value by it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from datagen.errors import ParseError
from datagen.schemas.fitting import check_size, fit_choice, fit_type, same, shown

WITH_SCHEMA = ("items", "additionalProperties")
WITH_SCHEMAS = ("anyOf", "oneOf", "allOf")
WITH_NAMED_SCHEMAS = ("properties", "$defs", "definitions")
"""Keywords that hold one schema, a list of schemas, and schemas by name."""
DEEPEST = 64
"""Levels of a schema, and of references that lead to each other."""


class Matcher(Protocol):
    """A compiled `pattern`."""

    def matches(self, text: str) -> bool: ...


@dataclass(frozen=True)
class Schema:
    """A JSON Schema that has been checked: every keyword in it is known, and every reference leads to a schema."""

    name: str
    """For the server: letters, digits, _ and -."""
    value: Mapping[str, Any]
    patterns: Mapping[str, Matcher] = field(default_factory=dict)

    @cached_property
    def response_format(self) -> dict[str, Any]:
        """The parameter of a request that asks for an answer in this form."""
        form = {"name": self.name, "strict": all(map(is_closed, subschemas(self.value))), "schema": dict(self.value)}
        return {"type": "json_schema", "json_schema": form}

    @property
    def is_object(self) -> bool:
        """Whether every valid value is an object: all that a server can promise that is asked for JSON alone."""
        return self.followed(self.value).get("type") == "object"

    def read(self, value: Any) -> Any:
        """Return a value that is valid: the given one, changed where nothing is lost by it.

        Raises:
            ParseError: It is not valid. The message says where and why.
        """
        try:
            return self._read(value, self.value, "")
        except RecursionError:
            raise ParseError("a value of too many levels") from None

    def is_valid(self, value: Any) -> bool:
        """Whether a value is valid as it is."""
        try:
            return same(self.read(value), value)
        except ParseError:
            return False

    def leads_nowhere(self, value: Any) -> bool:
        """Whether the references of the schema send a value of no depth in a circle."""
        try:
            self._read(value, self.value, "")
        except RecursionError:
            return True
        except ParseError:
            pass
        return False

    def followed(self, schema: Any) -> Mapping[str, Any]:
        """Return a schema, or the one that its reference leads to. True and False are schemas too."""
        schema = {} if schema is True else {"enum": []} if schema is False else schema
        return self.followed(resolve(self.value, schema["$ref"])) if schema.keys() == {"$ref"} else schema

    def _read(self, value: Any, schema: Any, place: str) -> Any:
        schema = self.followed(schema)
        # 1. Schemas beside this one.
        if "$ref" in schema:
            value = self._read(value, {"$ref": schema["$ref"]}, place)
        for part in schema.get("allOf", ()):
            value = self._read(value, part, place)
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                value = self._read_choice(value, schema[keyword], place, once=keyword == "oneOf")

        # 2. Type and values.
        wanted = schema.get("type", ())
        value = fit_type(value, (wanted,) if isinstance(wanted, str) else wanted, place)
        for choices in (schema.get("enum"), [schema["const"]] if "const" in schema else None):
            value = value if choices is None else fit_choice(value, choices, place)

        # 3. What is in it.
        check_size(value, schema, place)
        if isinstance(value, str) and "pattern" in schema and not self.patterns[schema["pattern"]].matches(value):
            raise ParseError(f"{place or 'the value'}: {shown(value)} does not match {schema['pattern']}")
        if isinstance(value, dict):
            return self._read_object(value, schema, place)
        if isinstance(value, list):
            items = schema.get("items", True)
            return [self._read(item, items, f"{place}[{at}]") for at, item in enumerate(value)]
        return value

    def _read_object(self, value: dict[str, Any], schema: Mapping[str, Any], place: str) -> dict[str, Any]:
        missing = [name for name in schema.get("required", ()) if name not in value]
        if missing:
            raise ParseError(f"{place or 'the object'}: no {missing[0]!r}")
        properties, other = schema.get("properties", {}), schema.get("additionalProperties", True)
        inner = {}
        for name, item in value.items():
            part = properties.get(name, other)
            if part is False:
                raise ParseError(f"{place or 'the object'}: {shown(name)} does not belong here")
            inner[name] = self._read(item, part, f"{place}.{name}" if place else name)
        return inner

    def _read_choice(self, value: Any, schemas: list[Any], place: str, *, once: bool) -> Any:
        """Read a value by the schemas of `anyOf`: one that it fits as it is, else the first that it can be made to fit.
        With `once`, as for `oneOf`, it may fit one alone."""
        readings, problem = [], ParseError(f"{place or 'the value'}: fits no choice")
        for schema in schemas:
            try:
                readings.append(self._read(value, schema, place))
            except ParseError as error:
                problem = error
        exact = [reading for reading in readings if same(reading, value)]
        if once and len(exact or readings) > 1:
            raise ParseError(f"{place or 'the value'}: fits {len(exact or readings)} choices, where one is allowed")
        if not readings:
            raise problem
        return (exact or readings)[0]


def inner_schemas(schema: Any) -> Iterator[Any]:
    """Yield the schemas that stand directly in one."""
    for keyword in WITH_SCHEMA:
        if keyword in schema:
            yield schema[keyword]
    for keyword in WITH_SCHEMAS:
        yield from schema.get(keyword, ())
    for keyword in WITH_NAMED_SCHEMAS:
        yield from schema.get(keyword, {}).values()


def subschemas(schema: Any, depth: int = DEEPEST) -> Iterator[Mapping[str, Any]]:
    """Yield a schema and all schemas in it, without those that are true or false. RecursionError beyond DEEPEST."""
    if not depth:
        raise RecursionError
    if isinstance(schema, dict):
        yield schema
        for inner in inner_schemas(schema):
            yield from subschemas(inner, depth - 1)


def is_closed(schema: Mapping[str, Any]) -> bool:
    """Whether a schema is one that servers take as strict: an object has all of its keys, and no others."""
    if schema.get("type") != "object" and "properties" not in schema:
        return True
    return schema.get("additionalProperties") is False and set(schema.get("required", ())) == set(
        schema.get("properties", {})
    )


def resolve(root: Mapping[str, Any], reference: str) -> Any:
    """Return the schema that a reference such as `#/$defs/step` leads to. Raises KeyError where it leads nowhere."""
    value: Any = root
    mark, *names = reference.split("/")
    if mark != "#":
        raise KeyError(reference)
    for name in names:
        if not isinstance(value, dict):
            raise KeyError(reference)
        value = value[name.replace("~1", "/").replace("~0", "~")]
    return value
