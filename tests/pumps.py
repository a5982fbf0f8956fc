"""Texts made from a pattern itself that its matcher may take long for: `killers_of`.

A pattern is slow where a repeat is reached by a short beginning and goes on long, or where its beginning stands in a
text over and over. Both are read from its parse tree.
"""

import re
from collections.abc import Callable, Iterator
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any

from tests.growth import FRAMES, Killer

LONG = 50
"""Repeats of a repeat that may be pumped."""
CANDIDATES = " \n_*a1-\tA我#`>.,:;!?'\"([{<)]}/\\=+|&%~￥：，。\u3000"
"""Characters that stand for a class: those of them that it holds."""
MOST_OF_CLASS = 8
NEGATE = sre.NEGATE
CATEGORIES: dict[Any, Callable[[str], bool]] = {
    sre.CATEGORY_SPACE: str.isspace,
    sre.CATEGORY_NOT_SPACE: lambda c: not c.isspace(),
    sre.CATEGORY_DIGIT: str.isdecimal,
    sre.CATEGORY_NOT_DIGIT: lambda c: not c.isdecimal(),
    sre.CATEGORY_WORD: lambda c: c.isalnum() or c == "_",
    sre.CATEGORY_NOT_WORD: lambda c: not (c.isalnum() or c == "_"),
}
REPEATS = (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT)


def killers_of(pattern: re.Pattern[str]) -> Iterator[Killer]:
    """Yield a killer for each character of each long repeat of a pattern, and for each of its beginnings."""
    beginnings = dict.fromkeys(starts(_parser.parse(pattern.pattern, pattern.flags)))
    for prefix, unit in beginnings:
        for _, suffix in FRAMES:
            yield Killer(prefix, unit, suffix)
        if prefix:
            yield Killer("", prefix, "!")
            yield Killer("", prefix + unit, "!")
            yield Killer("", f"{prefix}{unit} ", "!")


def starts(nodes: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the text before each long repeat of a tree, with a text that it repeats."""
    for kind, value in nodes:
        if kind in REPEATS:
            _, most, inner = value
            if most is sre.MAXREPEAT or most >= LONG:
                yield from ((prefix, unit) for unit in units(inner))
            yield from starts(inner, prefix)
        for part in parts(kind, value):
            yield from starts(part, prefix)
        prefix += example(kind, value)


def parts(kind: Any, value: Any) -> list[Any]:
    """Return the trees inside a node that is no repeat."""
    if kind is sre.BRANCH:
        return list(value[1])
    if kind is sre.SUBPATTERN:
        return [value[3]]
    if kind is sre.ATOMIC_GROUP:
        return [value]
    return [value[1]] if kind in (sre.ASSERT, sre.ASSERT_NOT) else []


def units(nodes: Any) -> list[str]:
    """Return short texts that a tree matches: one for each character of a class, and for each branch."""
    if len(nodes) == 1:
        kind, value = nodes[0]
        if kind in (sre.IN, sre.ANY, sre.NOT_LITERAL):
            return characters(kind, value)
        if inner := parts(kind, value):
            return [unit for part in inner for unit in units(part)]
    text = "".join(example(*node) for node in nodes)
    return [text] if text else []


def example(kind: Any, value: Any) -> str:
    """Return a short text that a node matches; "" for one that takes no characters."""
    if kind is sre.LITERAL:
        return chr(value)
    if kind in (sre.IN, sre.ANY, sre.NOT_LITERAL):
        return characters(kind, value)[0]
    if kind in REPEATS:
        return "".join(example(*node) for node in value[2]) * int(value[0])
    if kind in (sre.BRANCH, sre.SUBPATTERN, sre.ATOMIC_GROUP):
        return "".join(example(*node) for node in parts(kind, value)[0])
    return ""


def characters(kind: Any, value: Any) -> list[str]:
    """Return characters of a class."""
    if kind is sre.ANY:
        return ["a", " "]
    if kind is sre.NOT_LITERAL:
        return [c for c in CANDIDATES if c != chr(value)][:MOST_OF_CLASS]
    negated = value[0][0] is NEGATE
    items = value[1:] if negated else value
    named = [chr(at if kind is sre.LITERAL else at[0]) for kind, at in items if kind in (sre.LITERAL, sre.RANGE)]
    members = [c for c in CANDIDATES if holds(items, c) != negated] + ([] if negated else named)
    return list(dict.fromkeys(members))[:MOST_OF_CLASS] or ["\x7f"]


def holds(items: Any, character: str) -> bool:
    """Tell whether a class, without its negation, holds a character."""
    return any(
        (kind is sre.LITERAL and ord(character) == value)
        or (kind is sre.RANGE and value[0] <= ord(character) <= value[1])
        or (kind is sre.CATEGORY and CATEGORIES[value](character))
        for kind, value in items
    )
