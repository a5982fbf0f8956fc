"""How the procedural teacher answers with JSON of a form: a value that is valid against the schema in the request.

Texts are the answer in words, numbers the result of what is to be computed; without such a task they are drawn. What
a schema asks for beyond types, bounds and choices, such as a pattern, may be missed, as a model would miss it.
"""

import json
from typing import Any

from datagen.llm.sim import Fields, Handler, SimRandom
from datagen.llm.sim.answer import answer, compute
from datagen.schemas import Schema

DEEPEST = 6
"""Levels of a value; below them optional keys and items are left out."""


def structured(fields: Fields, rng: SimRandom) -> str:
    """Write a value by the schema; without skill, in a form that is not the one asked for."""
    if rng.errs():
        return answer(fields, rng)
    root = json.loads(fields["schema"])
    return json.dumps(instance(root, Schema("sim", root), fields, rng, DEEPEST), ensure_ascii=False)


def instance(schema: Any, root: Schema, fields: Fields, rng: SimRandom, depth: int) -> Any:
    """Return a value that fits a schema.

    Args:
        schema: The schema, as JSON.
        root: The whole schema, which references lead into.
        fields: The values of the request.
        rng: The random numbers of the call.
        depth: Levels that are left.
    """
    schema = root.followed(schema)
    if "const" in schema or "enum" in schema:
        return schema["const"] if "const" in schema else rng.choice(schema["enum"])
    for keyword in ("anyOf", "oneOf", "allOf"):
        if keyword in schema:
            return instance(schema[keyword][0], root, fields, rng, depth)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = kind if isinstance(kind, str) else kind[0]
    if kind == "object":
        properties, required = schema.get("properties", {}), schema.get("required", ())
        names = [name for name in properties if depth > 0 or name in required]
        return {name: instance(properties[name], root, fields, rng, depth - 1) for name in names}
    steps, result = compute(fields["prompt"])
    if kind == "array":
        items, least = schema.get("items", True), schema.get("minItems", 0)
        count = min(100, max(least, min(2 if depth > 0 else 0, schema.get("maxItems", 2))))
        if steps and items == {"type": "string"}:
            return steps
        return [instance(items, root, fields, rng, depth - 1) for _ in range(count)]
    if kind in ("integer", "number"):
        low, high = schema.get("minimum", 0), schema.get("maximum", max(9, schema.get("minimum", 0) + 9))
        fits = result is not None and schema.get("minimum", result) <= result <= schema.get("maximum", result)
        return result if fits else rng.randint(int(low), max(int(low), int(high)))
    if kind == "boolean":
        return rng.random() < 0.5
    return None if kind == "null" else text_for(schema, answer(fields, rng))


def text_for(schema: Any, text: str) -> str:
    """Return a text of the length that a schema allows."""
    text = text[: int(schema.get("maxLength", len(text)))]
    return text + "." * min(1_000, max(0, int(schema.get("minLength", 0)) - len(text)))


HANDLERS: dict[str, Handler] = {"direct/schema": structured}
