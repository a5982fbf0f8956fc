"""What the shapes of rows are made of: fields, answers, conversations.

Whatever is wrong with a row is a ValueError that says what and where. A conversation is read strictly: a system
message first, if any, then user and assistant in turn, the user first, none of them empty. Any other role, order or
empty turn is named, never dropped or renamed. An empty system message alone says nothing and is left out.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from datagen.records.record import Message, Messages, Row, Text

ROLES = {
    "user": "user", "human": "user", "system": "system", "assistant": "assistant",
    "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant",
}  # fmt: skip
KEYS = (("from", "value"), ("role", "content"))
"""How a turn names its speaker and its words."""


class Shape(NamedTuple):
    """One format: how to read what a row says, and the fields that it uses up."""

    parts: Callable[[Row], Sequence[tuple[Any, ...]]]
    fields: frozenset[str]


def found(row: Row) -> str:
    """List the keys of a row, for messages."""
    return ", ".join(map(str, row)) or "nothing"


def text(row: Row, name: str, *, needed: bool = True) -> str:
    """Return a field that is text; "" where it may be missing and is."""
    value = row.get(name)
    if value is None and not needed:
        return ""
    if name not in row:
        raise ValueError(f'no "{name}" (found: {found(row)})')
    if not isinstance(value, str):
        raise ValueError(f'"{name}" is not text')
    if needed and not value.strip():
        raise ValueError(f'"{name}" is empty')
    return value


def join_input(instruction: str, given: str) -> str:
    """Join an instruction and its input as the formats here do: a blank line between them."""
    return f"{instruction}\n\n{given}" if given else instruction


def turns(value: object, name: str) -> Messages:
    """Read the turns that stand under a name, strictly."""
    if not isinstance(value, list) or not value:
        raise ValueError(f'"{name}" is not a list of turns')
    return ordered([_turn(turn, number, name) for number, turn in enumerate(value, 1)], name)


def ordered(messages: Messages, name: str) -> Messages:
    """Check who speaks when; leave out an empty system message."""
    expected = "user"
    for number, message in enumerate(messages, 1):
        role = message["role"]
        if number == 1 and role == "system":
            continue
        if role != expected:
            raise ValueError(f'turn {number} of "{name}" is from {role}, expected {expected}')
        if not message["content"].strip():
            raise ValueError(f'turn {number} of "{name}" ({role}) is empty')
        expected = "assistant" if role == "user" else "user"
    return [message for message in messages if message["content"].strip()]


def _turn(value: object, number: int, name: str) -> Message:
    """Read one turn of either spelling."""
    for who, said in KEYS:
        if isinstance(value, dict) and isinstance(value.get(who), str) and isinstance(value.get(said), str):
            return {"role": _role(value[who], number, name), "content": value[said]}
    raise ValueError(f'turn {number} of "{name}" has no text as from and value, or role and content')


def _role(who: str, number: int, name: str) -> str:
    if who not in ROLES:
        raise ValueError(f'turn {number} of "{name}" has the role "{who}", expected user, assistant or system')
    return ROLES[who]


def with_system(row: Row, messages: Messages) -> Messages:
    """Put the row's own "system", if any, before a conversation."""
    system = text(row, "system", needed=False)
    if not system.strip():
        return messages
    if messages and messages[0]["role"] == "system":
        raise ValueError('two system messages: "system" and the first turn')
    return [{"role": "system", "content": system}, *messages]


def asked(row: Row, request: str) -> Text:
    """Return a request with what came before it: "system", and "history" as [[user, assistant], ...]."""
    return as_prompt(with_system(row, [*_history(row), {"role": "user", "content": request}]))


def _history(row: Row) -> Messages:
    pairs = row.get("history") or []
    if not isinstance(pairs, list) or not all(_is_pair(pair) for pair in pairs):
        raise ValueError('"history" is not a list of [user, assistant]')
    made = [{"role": role, "content": said} for u, a in pairs for role, said in (("user", u), ("assistant", a))]
    return ordered(made, "history")


def _is_pair(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(said, str) for said in value)


def as_prompt(messages: Messages) -> Text:
    """Check that a conversation ends in a request; a lone user's message becomes a string."""
    if not messages or messages[-1]["role"] != "user" or not messages[-1]["content"].strip():
        raise ValueError("the conversation does not end in a user's message with text")
    return messages[-1]["content"] if len(messages) == 1 else messages


def prompt(row: Row) -> Text:
    """Return the "prompt" of a row: text, or a conversation, read strictly."""
    value = row.get("prompt")
    return as_prompt(turns(value, "prompt")) if isinstance(value, list) else text(row, "prompt")


def answer(row: Row, name: str, before: Messages | None = None) -> str:
    """Return what the assistant says under a name: text, a message, or a list of one message.

    A list may also repeat the whole conversation `before` the answer.
    """
    value = row.get(name)
    if not isinstance(value, dict | list):
        return text(row, name)
    said = [_turn(turn, number, name) for number, turn in enumerate(value if isinstance(value, list) else [value], 1)]
    if not said or said[-1]["role"] != "assistant" or said[:-1] not in ([], before):
        raise ValueError(f'"{name}" is not one message of the assistant')
    if not said[-1]["content"].strip():
        raise ValueError(f'"{name}" is empty')
    return said[-1]["content"]
