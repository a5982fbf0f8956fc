"""The columns of a row: what each may be called, which of them a shape has read, and what became of the others.

A shape asks for roles, such as `response`; ROLES lists the names under which a file may hold them, ours first. Names
are compared without case, and any run of other signs than letters and digits counts as "_".

Every column of a row is read, or passed on as `extra`. One that is passed on although its name has a meaning is counted
in an Account, so that a command names it once with what to do.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any, NamedTuple, TypeVar

from datagen.errors import InputError, unknown_value
from datagen.records.record import Row
from datagen.text import count_of

T = TypeVar("T")
Names = tuple[str, ...]


class Role(NamedTuple):
    """What a column may be to a row.

    Args:
        names: The names that such a column may have, ours first; the first one that holds something is read.
        types: The types of its values; a column of another type has another meaning.
        map_to: Our name in `--map`, for a column of this role that a shape does not read; empty for none.
    """

    names: Names
    types: tuple[type, ...] = (object,)
    map_to: str = ""


ANSWERS = (
    "response", "output", "generation", "completion", "target", "targets", "solution", "chosen_response",
    "answer", "response_text", "model_output", "assistant", "final_answer", "highest_rated_answer",
)  # fmt: skip
TEXT = (str, type(None))
ROLES = {
    # The request
    "prompt": Role(("prompt", "user_prompt", "prompt_text"), map_to="input"),
    "instruction": Role(("instruction", "instructions"), map_to="input"),
    "question": Role(("question", "problem", "query", "user_input", "question_stem"), map_to="input"),
    "input": Role(("input", "inputs"), map_to="input"),
    "context": Role(("context", "passage", "support", "background", "article", "body"), TEXT, map_to="context"),
    "system": Role(("system", "system_prompt", "system_message", "sys_prompt"), map_to="system"),
    "history": Role(("history",), map_to="history"),
    "messages": Role(("messages",), map_to="messages"),
    "conversations": Role(("conversations",), map_to="messages"),
    "conversation": Role(("conversation", "dialogue", "dialog", "turns", "data", "chat"), (list,), map_to="messages"),
    "tools": Role(("tools", "functions"), (list, str, dict), map_to="tools"),
    # One response
    "response": Role(ANSWERS, map_to="response"),
    "completion": Role(("completion",), map_to="response"),
    "own_response": Role(("response",)),
    "reasoning": Role(
        ("reasoning", "reasoning_content", "thinking", "thought", "complex_cot", "chain_of_thought", "cot"),
        TEXT,
        map_to="reasoning",
    ),
    "spans": Role(("answers",), (dict, str)),
    "label": Role(("label", "kto_tag"), (bool,), map_to="label"),
    "weight": Role(("weight",), (int, float), map_to="weight"),
    "tool_calls": Role(("tool_calls",), (list,), map_to="tool_calls"),
    "choices": Role(("choices", "options"), (list, dict)),
    "answer_key": Role(("answerkey", "answer_key", "answer_index", "answer_idx", "answer", "label"), (str, int)),
    "tree": Role(("prompt",), (dict,)),
    "context_turns": Role(("context",), (list,)),
    "post": Role(("history",), (str,)),
    "post_text": Role(("post",), (str,)),
    "question_record": Role(("question",), (dict,)),
    "definition": Role(("instruction", "definition")),
    # Two answers
    "chosen": Role(
        ("chosen", "chosen_response", "response_chosen", "preferred_output", "preferred", "response_j"), map_to="chosen"
    ),
    "rejected": Role(
        ("rejected", "rejected_response", "response_rejected", "non_preferred_output", "dispreferred", "response_k"),
        map_to="rejected",
    ),
    "chosen_turns": Role(("chosen",), (list,)),
    "rejected_turns": Role(("rejected",), (list,)),
    "margin": Role(("margin",), map_to="margin"),
    "chosen_reasoning": Role(("chosen_reasoning",), (str,), map_to="chosen_reasoning"),
    "rejected_reasoning": Role(("rejected_reasoning",), (str,), map_to="rejected_reasoning"),
    # Several answers
    "responses": Role(("responses", "generations", "completions", "answers", "outputs"), (list,), map_to="responses"),
    "outputs": Role(("output",), (list,)),
    "scores": Role(("scores", "ratings", "rewards"), (list,), map_to="scores"),
    "ranks": Role(("ranks", "rankings"), (list,), map_to="ranks"),
    "reasonings": Role(("reasoning",), (list,)),
    # A text and its label
    "sample": Role(("text", "sentence", "content", "review", "comment", "headline")),
    "class": Role(("label", "labels", "category", "class", "sentiment", "intent"), (str, int)),
    "class_name": Role(("label_text", "label_name"), TEXT),
    # A document
    "text": Role(("text",), map_to="text"),
}  # fmt: skip
MAPPED = ("answer", *dict.fromkeys(role.map_to for role in ROLES.values() if role.map_to), "prompt")
"""Our names in `--map`."""
OUR_NAMES = frozenset((
    "id", "meta", "prompt", "response", "responses", "chosen", "rejected", "ranks", "scores", "margin", "reasoning",
    "chosen_reasoning", "rejected_reasoning",
))  # fmt: skip
"""Names that a row of ours uses: a column of that name that is not read is passed on as `source_NAME`."""
REFERENCES = ("answer", "ground_truth", "reference_answer", "reference", "final_answer", "expected_answer")
"""Names of a reference answer; passed on, for verifiers and judges (verify/)."""
NUMBERS = (
    "score",
    "rating",
    "rank",
    "reward",
    "sample_weight",
    "importance",
    *ROLES["scores"].names,
    "ranks",
    "weight",
)
"""Names of numbers that say how good a row or an answer is."""


@lru_cache(4096)
def normal_name(name: str) -> str:
    """Return a column's name as ROLES has it."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower())


def role_of(role: str) -> Role:
    """Return a role by its name; a name that is not in ROLES is that of a column."""
    return ROLES.get(role) or Role((role,))


class Candidates(NamedTuple):
    """The columns of a row that may have a role."""

    role: str
    names: Names
    types: tuple[type, ...]
    """Those of the role's values."""


@lru_cache(4096)
def candidates(roles: Names, names: Names, exact: bool) -> Sequence[Candidates]:
    """Return the columns that may have each role, for the roles that a row with columns of these names may fill.

    Args:
        roles: The roles.
        names: The names of the row's columns; of two with one normal name the first counts.
        exact: Whether only our own names count.
    """
    normal: dict[str, str] = {}
    for name in names:
        normal.setdefault(normal_name(name), name)
    possible = {role: role_of(role).names[: 1 if exact else None] for role in roles}
    columns = {role: tuple(normal[name] for name in named if name in normal) for role, named in possible.items()}
    return [Candidates(role, there, role_of(role).types) for role, there in columns.items() if there]


def columns_of(roles: Names, row: Row, exact: bool = False) -> dict[str, str]:
    """Return the column of a row for each role that it fills: the first that holds something, else the first."""
    columns: dict[str, str] = {}
    for role, names, types in candidates(roles, tuple(row), exact):
        there = [name for name in names if isinstance(row[name], types)]
        if len(there) > 1:
            columns[role] = next((name for name in there if row[name] not in (None, "", [])), there[0])
        elif there:
            columns[role] = there[0]
    return columns


class Fields:
    """One row as a shape sees it: its columns by their roles, and those of them that were read.

    Args:
        row: The row.
        roles: The roles that the shape asks for; messages name the first where a row has none of them.
        exact: Whether only our own names count, for a row that a command of ours wrote.
    """

    def __init__(self, row: Row, roles: Iterable[str], exact: bool = False) -> None:
        self.row, self.read, self.roles = row, set[str](), tuple(roles)
        self.notes = list[str]()
        """What of a column that was read is not used."""
        self.passed_on: Row = {}
        """What is passed on besides the columns that were not read."""
        self._columns = columns_of(self.roles, row, exact)

    def __contains__(self, role: str) -> bool:
        return role in self._columns

    def name(self, role: str) -> str:
        """Return the column of a role, or our name for it if the row has none; for messages."""
        return self._columns.get(role, role_of(role).names[0])

    def value(self, role: str) -> Any:
        """Read the column of a role; None if the row has none."""
        if role not in self._columns:
            return None
        self.read.add(self._columns[role])
        return self.row[self._columns[role]]

    def text(self, role: str, *, required: bool = False) -> str:
        """Read a column that is text; "" for one that is not required and missing or null.

        Raises:
            ValueError: The column is not text; or it is required, and missing or blank.
        """
        value = self.value(role)
        if value is None and not required:
            return ""
        if role not in self._columns:
            raise ValueError(f'no "{self.name(role)}" (found: {key_list(self.row)})')
        if not isinstance(value, str):
            raise ValueError(f'"{self.name(role)}" is not text')
        if required and not value.strip():
            raise ValueError(f'"{self.name(role)}" is empty')
        return value

    def optional(self, role: str, parse: Callable[[Any], T]) -> T | None:
        """Read a column if `parse` takes it; else it counts as not read."""
        try:
            value = parse(self.row[self._columns[role]]) if role in self._columns else None
        except ValueError:
            return None
        self.value(role)
        return value

    def rest(self, texts: Iterable[str] = (), conversations: Iterable[object] = (), is_ours: bool = False) -> Row:
        """Return the columns that were not read, for `extra`.

        Args:
            texts: What was read. A column with a role that only repeats one of them is left out.
            conversations: The lists of messages that were read, likewise.
            is_ours: Whether `meta` is our own; that of others is passed on.
        """
        same, whole = {text.strip() for text in texts}, list(conversations)
        left_out = {"id", "meta"} if is_ours or not self.row.get("meta") else {"id"}
        rest = {
            free_name(name, self.row): value
            for name, value in self.row.items()
            if name not in self.read | left_out
            and not (is_repeatable(name) and (value.strip() in same if isinstance(value, str) else value in whole))
        }
        return rest | self.passed_on


def is_repeatable(name: str) -> bool:
    """Tell whether a column may hold again what another one holds: it has a role, and is no reference answer."""
    return role_names().get(normal_name(name), "answer") != "answer"


def free_name(name: str, row: Row) -> str:
    """Return the name under which a column is passed on: its own, or another one where ours would be meant by it."""
    free = f"source_{name}" if name in OUR_NAMES else name
    while free != name and free in row:
        free = f"source_{free}"
    return free


@cache
def role_names() -> Mapping[str, str]:
    """Return our name in `--map` by the normal names of all columns that have a meaning."""
    named = {name: role.map_to for role in ROLES.values() for name in role.names if role.map_to}
    return {**dict.fromkeys(NUMBERS, ""), **named, **dict.fromkeys(REFERENCES, "answer")}


def key_list(row: Row) -> str:
    """List the keys of a row, for messages."""
    return ", ".join(map(str, row)) or "nothing"


@dataclass
class Account:
    """What became of the columns of a file: how many rows hold one that has a meaning and is not used."""

    shapes: Counter[str] = field(default_factory=Counter)
    """Rows by shape."""
    unused: Counter[str] = field(default_factory=Counter)
    """Rows by the column that they hold and that is passed on."""
    notes: Counter[str] = field(default_factory=Counter)
    """Rows by what of a column that was read is not used."""

    def add(self, shape: str, row: Row, fields: Fields, extra: Row) -> None:
        """Count one row that was read."""
        self.shapes[shape] += 1
        self.notes.update(fields.notes)
        for name, value in extra.items():
            if value in (None, "", [], {}):
                continue
            column = name if name in row else name.removeprefix("source_")
            ours = role_names().get(normal_name(column))
            if ours is not None and ours != "answer":
                self.unused[column] += 1

    def lines(self) -> list[str]:
        """Say what is not used, one line for each column."""
        lines = []
        for column, count in sorted(self.unused.items()):
            ours = role_names()[normal_name(column)]
            way = "nothing reads it beside the other columns"
            if ours and ours != column:
                way = f"to use it: --map {ours}={column}"
            lines.append(f'{_have(count)} "{column}", which is passed on and not used ({way})')
        if len(self.shapes) > 1:
            counts = ", ".join(f"{shape} {count:,}" for shape, count in self.shapes.most_common())
            lines.append(f"Rows of several shapes: {counts}")
        return lines + [f"{_have(count)} {note}" for note, count in sorted(self.notes.items())]


def _have(count: int) -> str:
    return f"{count_of(count, 'row')} {'has' if count == 1 else 'have'}"


REQUEST_ROLES = ("prompt", "instruction", "question", "messages", "conversations")
REQUESTS = frozenset(("post", "article", *(name for role in REQUEST_ROLES for name in ROLES[role].names)))
"""Names of columns that hold a request."""
WRAPPERS = ("fields", "data", "input", "info")
"""Columns that hold the row itself, as an object: of Argilla, Label Studio, OpenAI's preferences, TL;DR."""


def flat_row(row: Row) -> Row:
    """Return a row without the wrapper around its columns, if it has one; a column beside it never hides one inside."""
    wrapper = next((name for name in WRAPPERS if isinstance(row.get(name), dict) and holds_request(row[name])), None)
    if wrapper is None or holds_request({name: row[name] for name in row if name != wrapper}):
        return row
    inner = row[wrapper]
    beside = {name: value for name, value in row.items() if name != wrapper}
    clear = {f"source_{name}" if name in inner or name in OUR_NAMES - {"id"} else name: beside[name] for name in beside}
    return {**inner, **clear}


def holds_request(row: Row) -> bool:
    """Tell whether a row has a column for a request or a conversation."""
    return any(normal_name(name) in REQUESTS for name in row)


def parse_map(text: str | None) -> dict[str, str]:
    """Parse `--map`: "prompt=question,response=answer.text" gives the columns of the file by our names.

    Raises:
        InputError: It has another form, or a name that is not ours.
    """
    mapping = {}
    for part in filter(None, (part.strip() for part in (text or "").split(","))):
        ours, equals, theirs = (piece.strip() for piece in part.partition("="))
        if not equals or not ours or not theirs:
            raise InputError(f"--map {text}: expected OURS=THEIRS, such as prompt=question,response=answer")
        if ours not in MAPPED:
            raise unknown_value("--map", ours, sorted(MAPPED))
        mapping[ours] = theirs
    return mapping


def mapped_row(row: Row, mapping: Mapping[str, str]) -> Row:
    """Rename the columns of a row: `mapping` gives theirs by ours. A path such as "a.b" or "a.0.b" leads inside.

    A column whose name becomes ours for another is passed on as `source_NAME`. A path that a row lacks changes nothing.
    """
    values = {ours: value for ours, path in mapping.items() if (value := value_at(row, path)) is not MISSING}
    renamed = {mapping[ours] for ours in values}
    rest = {name: value for name, value in row.items() if name not in renamed}
    return {**values, **{f"source_{name}" if name in values else name: value for name, value in rest.items()}}


MISSING = object()


def value_at(row: Any, path: str) -> Any:
    """Return the value at a path of keys and list places in a row; MISSING if there is none."""
    if isinstance(row, dict) and path in row:
        return row[path]
    first, dot, rest = path.partition(".")
    inner = MISSING
    if isinstance(row, dict) and first in row:
        inner = row[first]
    elif isinstance(row, list) and first.isdecimal() and int(first) < len(row):
        inner = row[int(first)]
    return value_at(inner, rest) if dot and inner is not MISSING else inner
