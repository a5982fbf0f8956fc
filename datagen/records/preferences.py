"""The shapes of preference data: two answers to one prompt.

    preference    {"prompt", "chosen", "rejected"}: the prompt a string or messages, an answer a string or one message
                  of the assistant (a list that repeats the prompt before it is one too)
    implicit      {"chosen", "rejected"}: two lists of messages; what they share is the prompt
    hh            {"chosen", "rejected"}: two transcripts, "\\n\\nHuman: ...\\n\\nAssistant: ..."
    question      {"question", "response_chosen", "response_rejected"}, or "chosen" and "rejected"; "system" and
                  "history" as [[user, assistant], ...] come first
    sharegpt      {"conversations", "chosen", "rejected"}: turns that end in the user's, with "system" before them
    ranked        {"instruction", "input", "output": [best, ..., worst]}, with "system" and "history": one preference,
                  the best reply against the worst; those between are not used

"margin", a number, may stand in each. Two answers that are equal but for blanks around them are no preference, and
conversations may differ in their last turn alone.
"""

import re
from typing import NamedTuple

from datagen.records.fields import (
    Shape,
    answer,
    as_prompt,
    asked,
    found,
    join_input,
    ordered,
    prompt,
    text,
    turns,
    with_system,
)
from datagen.records.record import Messages, Row, Text, as_messages

NEEDS = "A preference needs prompt, chosen, rejected: make them with 'datagen pairs'"
PLAIN = ("chosen", "rejected")
PREFIXED = ("response_chosen", "response_rejected")
SPEAKER = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant): ?")
"""Begins a turn of a transcript; "Human:" inside a line is somebody's words."""


class Choice(NamedTuple):
    """What every shape is reduced to."""

    prompt: Text
    chosen: str
    rejected: str
    margin: float | None


def _need(row: Row, *names: str) -> None:
    missing = [f'"{name}"' for name in names if name not in row]
    if missing:
        raise ValueError(f"no {' and no '.join(missing)} (found: {found(row)}). {NEEDS}")


def _choice(row: Row, before: Text, chosen: str, rejected: str) -> list[Choice]:
    if chosen.strip() == rejected.strip():
        raise ValueError("chosen and rejected are equal")
    return [Choice(before, chosen, rejected, _margin(row))]


def _margin(row: Row) -> float | None:
    margin = row.get("margin")
    if margin is None:
        return None
    if isinstance(margin, bool) or not isinstance(margin, int | float):
        raise ValueError('"margin" is not a number')
    try:
        return float(margin)
    except OverflowError:
        raise ValueError('"margin" is too large a number') from None


def _answers(row: Row, before: Text, names: tuple[str, str]) -> list[Choice]:
    chosen, rejected = (answer(row, name, as_messages(before)) for name in names)
    return _choice(row, before, chosen, rejected)


def _explicit(row: Row) -> list[Choice]:
    _need(row, "prompt", *PLAIN)
    return _answers(row, prompt(row), PLAIN)


def _question(row: Row) -> list[Choice]:
    names = PREFIXED if any(name in row for name in PREFIXED) else PLAIN
    _need(row, "question", *names)
    return _answers(row, asked(row, text(row, "question")), names)


def _sharegpt(row: Row) -> list[Choice]:
    _need(row, "conversations", *PLAIN)
    return _answers(row, as_prompt(with_system(row, turns(row["conversations"], "conversations"))), PLAIN)


def _ranked(row: Row) -> list[Choice]:
    _need(row, "instruction", "output")
    replies = row["output"]
    if not isinstance(replies, list) or not all(isinstance(reply, str) for reply in replies):
        raise ValueError('"output" is not a list of replies, best first')
    if len(replies) < 2:
        raise ValueError(f'"output" holds {len(replies)} of the two replies that a preference needs')
    best, worst = (answer({"output": reply}, "output") for reply in (replies[0], replies[-1]))
    request = join_input(text(row, "instruction"), text(row, "input", needed=False))
    return _choice(row, asked(row, request), best, worst)


def _implicit(row: Row) -> list[Choice]:
    _need(row, *PLAIN)
    return _last_turns(row, *(turns(row[name], name) for name in PLAIN))


def _hh(row: Row) -> list[Choice]:
    _need(row, *PLAIN)
    return _last_turns(row, *(_transcript(row, name) for name in PLAIN))


def _transcript(row: Row, name: str) -> Messages:
    """Split a transcript into its turns, word for word."""
    before, *rest = SPEAKER.split(text(row, name))
    if before or not rest:
        _need(row, "prompt")
        raise ValueError(f'"{name}" does not begin with "Human:"')
    speakers = ("user" if speaker == "Human" else "assistant" for speaker in rest[::2])
    return ordered([{"role": who, "content": said} for who, said in zip(speakers, rest[1::2], strict=True)], name)


def _last_turns(row: Row, chosen: Messages, rejected: Messages) -> list[Choice]:
    for name, messages in zip(PLAIN, (chosen, rejected), strict=True):
        if not messages or messages[-1]["role"] != "assistant":
            raise ValueError(f'"{name}" does not end in the assistant\'s turn')
    if chosen[:-1] != rejected[:-1]:
        pairs = enumerate(zip(chosen, rejected, strict=False), 1)
        number = next((n for n, (one, other) in pairs if one != other), min(len(chosen), len(rejected)) + 1)
        raise ValueError(f"chosen and rejected part at turn {number}: they may differ in the last turn alone")
    return _choice(row, as_prompt(chosen[:-1]), chosen[-1]["content"], rejected[-1]["content"])


OURS = frozenset(("id", "meta", "margin", "prompt", *PLAIN))
BEFORE = frozenset(("system", "history"))
PREFERENCE_SHAPES = {
    "preference": Shape(_explicit, OURS),
    "implicit": Shape(_implicit, OURS),
    "hh": Shape(_hh, OURS),
    "question": Shape(_question, OURS | BEFORE | {"question", *PREFIXED}),
    "sharegpt": Shape(_sharegpt, OURS | {"system", "conversations"}),
    "ranked": Shape(_ranked, OURS | BEFORE | {"instruction", "input", "output"}),
}


def preference_shape(row: Row) -> str | None:
    """Name the format of a row by its keys; one answer is enough, the other is then missed by name."""
    if not any(name in row for name in (*PLAIN, *PREFIXED)):
        return "ranked" if "instruction" in row and isinstance(row.get("output"), list) else None
    keys = {"prompt": "preference", "conversations": "sharegpt", "question": "question"}
    named = next((shape for key, shape in keys.items() if key in row), None)
    if named or any(name in row for name in PREFIXED):
        return named or "question"
    return "implicit" if isinstance(row.get("chosen", row.get("rejected")), list) else "hh"


def is_preference(row: Row) -> bool:
    """Has a row both answers?"""
    return preference_shape(row) == "ranked" or any(set(names) <= row.keys() for names in (PLAIN, PREFIXED))
