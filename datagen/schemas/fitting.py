"""Whether a JSON value is of a type, one of some values, and of a size; and what it can become without a loss."""

import json
import re
from collections.abc import Mapping, Sized
from math import isfinite
from typing import Any

from datagen.errors import ParseError

WHOLE_NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,17})(?:\.0{1,9})?")
NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,17})(?:\.\d{1,17})?(?:[eE][+-]?\d{1,3})?")
MOST_SHOWN = 60
"""Characters of a value in a message."""


def kind_of(value: Any) -> str:
    """Return the type of a JSON value."""
    kinds = {dict: "object", list: "array", str: "string", int: "integer", float: "number", bool: "boolean"}
    return kinds.get(type(value), "null")


def fit_type(value: Any, wanted: tuple[str, ...] | list[str], place: str) -> Any:
    """Return a value as one of some types; of none, as it is. Raises ParseError where something would be lost."""
    kind = kind_of(value)
    if not wanted or kind in wanted or (kind == "integer" and "number" in wanted):
        return value
    if kind == "number" and "integer" in wanted and value == int(value):
        return int(value)
    text = value.strip() if isinstance(value, str) else ""
    if "integer" in wanted and WHOLE_NUMBER.fullmatch(text):
        return int(text.partition(".")[0])
    if "number" in wanted and NUMBER.fullmatch(text) and isfinite(float(text)):
        return int(text) if text.lstrip("-").isdigit() else float(text)
    if "boolean" in wanted and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if "string" in wanted and kind in ("integer", "number", "boolean"):
        return json.dumps(value)
    if "array" in wanted and kind == "object":
        return [value]
    raise ParseError(f"{place or 'the value'}: {shown(value)} is no {' or '.join(wanted)}")


def fit_choice(value: Any, choices: list[Any], place: str) -> Any:
    """Return the one of some values that a value is, or that it can be made to be."""
    for choice in choices:
        if same(choice, value):
            return value
    for choice in choices:
        try:
            if same(fit_type(value, (kind_of(choice),), place), choice):
                return choice
        except ParseError:
            continue
    raise ParseError(f"{place or 'the value'}: {shown(value)} is none of {shown(choices)}")


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal: 1 and 1.0 are, 1 and true are not."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(item, other[name]) for name, item in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def check_size(value: Any, schema: Mapping[str, Any], place: str) -> None:
    """Raise ParseError for a value that is too long, too short, too large or too small."""
    problem = ""
    for kind, least, most, noun in SIZES:
        if isinstance(value, kind) and not schema.get(least, 0) <= len(value) <= schema.get(most, len(value)):
            problem = f"{len(value)} {noun}"
    if isinstance(value, list) and schema.get("uniqueItems"):
        texts = {json.dumps(item, sort_keys=True) for item in value}
        problem = problem or ("two equal items" if len(texts) < len(value) else "")
    if isinstance(value, int | float) and not isinstance(value, bool):
        low, high = schema.get("minimum", value), schema.get("maximum", value)
        above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
        step = schema.get("multipleOf")
        fits = low <= value <= high and (above is None or value > above) and (below is None or value < below)
        fits = fits and (step is None or is_multiple(value, step))
        problem = "" if fits else shown(value)
    if problem:
        raise ParseError(f"{place or 'the value'}: {problem} is out of bounds")


def is_multiple(value: float, step: float) -> bool:
    """Whether a number is a multiple of another, but for rounding."""
    try:
        return abs(value / step - round(value / step)) < 1e-9
    except OverflowError:
        return False


SIZES: tuple[tuple[type[Sized], str, str, str], ...] = (
    (str, "minLength", "maxLength", "characters"),
    (list, "minItems", "maxItems", "items"),
    (dict, "minProperties", "maxProperties", "keys"),
)
"""What has a length: its type, its two keywords, and what is counted."""


def shown(value: Any) -> str:
    """Return a value in a message."""
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 1]}…"
