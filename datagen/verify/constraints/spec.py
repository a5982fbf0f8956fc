"""Verifiable constraints: the 25 families of IFEval (arXiv 2311.07911), to read, to state, to draw and to check.

A constraint is an id and its kwargs, named as in IFEval, so that IFEval's rows can be read unchanged. Its sentence goes
into a prompt. Its check serves as a filter, as a reward, and to find rejected answers (Tülu 3, arXiv 2411.15124).
Departures from Tülu 3: families that contradict each other are never drawn together, and a check that cannot decide
returns None.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple

from datagen.errors import InputError
from datagen.reasoning import split_thinking
from datagen.records.record import Record
from datagen.verify.constraints.checks import Kwargs
from datagen.verify.constraints.families import FAMILIES as FAMILIES
from datagen.verify.constraints.families import Family
from datagen.verify.languages import NAMES

RELATIONS = ("at least", "less than")
DRAW_TRIES = 100
MAX_QUOTED = 60
"""Characters of a wrong value that a message repeats."""


@dataclass(frozen=True, slots=True)
class Constraint:
    """One demand that a program can check. Make it with `constraint`, which validates the kwargs."""

    id: str
    kwargs: Kwargs = field(default_factory=dict)


class Kind(NamedTuple):
    """The kind of a value in kwargs."""

    fits: Callable[[Any], bool]
    description: str


COUNT = Kind(
    # rows that went through a table hold whole numbers as 3.0
    lambda value: isinstance(value, int | float) and not isinstance(value, bool) and value >= 1 and value % 1 == 0,
    "a whole number from 1",
)
RELATION = Kind(lambda value: isinstance(value, str) and value in RELATIONS, '"at least" or "less than"')
TEXT = Kind(lambda value: isinstance(value, str) and any(map(str.isalnum, value)), "text with a letter or digit")
WORDS = Kind(
    lambda value: isinstance(value, list) and value != [] and all(isinstance(w, str) and w.strip() for w in value),
    "a list of words",
)
LETTER = Kind(lambda value: isinstance(value, str) and len(value) == 1 and not value.isspace(), "one character")
LANGUAGE = Kind(
    lambda value: isinstance(value, str) and value.isascii() and value.isalpha() and len(value) in (2, 3),
    'a language code such as "en"',
)
KINDS: dict[str, Kind] = {
    "keywords": WORDS, "forbidden_words": WORDS,
    "relation": RELATION, "let_relation": RELATION, "capital_relation": RELATION,
    "frequency": COUNT, "let_frequency": COUNT, "capital_frequency": COUNT, "num_sentences": COUNT,
    "num_paragraphs": COUNT, "nth_paragraph": COUNT, "num_words": COUNT, "num_placeholders": COUNT,
    "num_bullets": COUNT, "num_highlights": COUNT, "num_sections": COUNT,
    "keyword": TEXT, "first_word": TEXT, "postscript_marker": TEXT, "section_spliter": TEXT, "end_phrase": TEXT,
    "prompt_to_repeat": TEXT,
    "letter": LETTER, "language": LANGUAGE,
}  # fmt: skip
"""Name of a value to its kind. `section_spliter` is IFEval's own spelling."""


def constraint(id: object, kwargs: object) -> Constraint:
    """Read one constraint, or raise InputError. A value of None is ignored: some copies of IFEval hold every key."""
    if not isinstance(id, str) or id not in FAMILIES:
        raise InputError(
            f"constraint {_quoted(id)} is not known; the 25 known ones are IFEval's, such as {next(iter(FAMILIES))}"
        )
    if not isinstance(kwargs, Mapping):
        raise InputError(f'constraint "{id}": its kwargs must be an object, found {_quoted(kwargs)}')
    values = {name: value for name, value in kwargs.items() if value is not None}
    names = FAMILIES[id].kwargs
    if unknown := sorted(map(_quoted, values.keys() - set(names))):
        raise InputError(f'constraint "{id}": unknown {unknown[0]}; it takes {", ".join(names) or "nothing"}')
    for name in names:
        kind, value = KINDS[name], values.get(name)
        if not kind.fits(value):
            actual = _quoted(value) if name in values else "nothing"
            raise InputError(f'constraint "{id}": {name} must be {kind.description}, found {actual}')
    read = {name: int(values[name]) if KINDS[name] is COUNT else values[name] for name in names}
    if read.get("nth_paragraph", 1) > read.get("num_paragraphs", 1) and "nth_paragraph" in read:
        raise InputError(f'constraint "{id}": nth_paragraph is beyond num_paragraphs')
    return Constraint(id, read)


def _quoted(value: object) -> str:
    """Return a value of the input for a message: escaped and cut."""
    return ascii(value)[:MAX_QUOTED]


def read_constraints(record: Record) -> list[Constraint]:
    """Return the constraints of a row: its `constraints`, or IFEval's `instruction_id_list` and `kwargs`.

    Raises:
        InputError: They are not well formed; the message names the row.
    """
    row = record.extra
    try:
        if "constraints" in row:
            items = row["constraints"]
            items = load_constraints(items) if isinstance(items, str) else items
            if not isinstance(items, list) or not all(isinstance(item, Mapping) and "id" in item for item in items):
                raise InputError('"constraints" must be a list of {"id", "kwargs"}')
            return [constraint(item["id"], item.get("kwargs", {})) for item in items]
        if "instruction_id_list" not in row:
            return []
        ids, kwargs = row["instruction_id_list"], row.get("kwargs", [])
        if not isinstance(ids, list) or not isinstance(kwargs, list) or len(ids) != len(kwargs):
            raise InputError('"instruction_id_list" and "kwargs" must be lists of one length')
        return list(map(constraint, ids, kwargs))
    except InputError as error:
        raise InputError(f"row {record.line}: {error}") from None


def dump_constraints(constraints: Sequence[Constraint]) -> str:
    """Write constraints as JSON in one text: as objects, their kwargs would give a file one type for each family."""
    return json.dumps([{"id": constraint.id, "kwargs": constraint.kwargs} for constraint in constraints])


def load_constraints(text: str) -> object:
    """Read what `dump_constraints` wrote; InputError if it is no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise InputError(f'"constraints" is text, but no JSON: {_quoted(text)}') from None


def constraint_sentence(constraint: Constraint) -> str:
    """Return the sentence that asks for a constraint in a prompt."""
    values: dict[str, object] = {}
    for name, value in constraint.kwargs.items():
        if isinstance(value, int):
            values[name] = _Counted(value)
        elif name == "language":
            values[name] = NAMES.get(value, value)
        elif name in ("keyword", "first_word", "letter", "section_spliter"):
            values[name] = f'"{value}"'
        else:
            values[name] = ", ".join(f'"{word}"' for word in value) if isinstance(value, list) else value
    return FAMILIES[constraint.id].sentence.format(**values)


class _Counted(int):
    """A number that brings its noun: f"{_Counted(2):word}" is "2 words"."""

    def __format__(self, noun: str) -> str:
        plural = noun and self != 1
        return f"{int(self)} {noun}{'s' if plural else ''}".rstrip()


def is_met(constraint: Constraint, response: str) -> bool | None:
    """Return whether a response meets a constraint; None if this cannot be known. A blank response meets none."""
    return FAMILIES[constraint.id].check(response, constraint.kwargs) if response.strip() else False


def verify_constraints(record: Record, response: str) -> bool | None:
    """Return False if a constraint of the row is broken, None if one cannot be checked or there are none, else True."""
    answer = split_thinking(response)[1]
    verdicts = [is_met(one, answer) for one in read_constraints(record)]
    if False in verdicts:
        return False
    return None if None in verdicts or not verdicts else True


def without(constraints: Sequence[Constraint], one: Constraint) -> list[Constraint]:
    """Leave one constraint out, for the prompt of a rejected answer; at least one must be left (Tülu 3)."""
    kept = [other for other in constraints if other is not one]
    if not kept or len(kept) == len(constraints):
        raise ValueError("the constraint to leave out must be one of at least two")
    return kept


def draw_constraints(random: Random, count: int, prompt: str = "") -> list[Constraint]:
    """Draw constraints of different families that the table of conflicts does not keep apart.

    Args:
        random: The generator to draw with.
        count: The number of constraints.
        prompt: The request that they will be added to. The family that repeats the request is drawn only with one.

    Raises:
        ValueError: No `count` families can be combined.
    """
    families = [family for family in FAMILIES.values() if family.id != "combination:repeat_prompt" or prompt.strip()]
    for _ in range(DRAW_TRIES):  # families that go with few others, such as JSON, may be drawn too early
        drawn: list[Family] = []
        left = families
        while left and len(drawn) < count:
            drawn.append(random.choice(left))
            left = [family for family in left if family is not drawn[-1] and family.id not in drawn[-1].conflicts]
        if len(drawn) == count:
            return [Constraint(family.id, family.draw(random, prompt)) for family in drawn]
    raise ValueError(f"no {count} constraints go together")
