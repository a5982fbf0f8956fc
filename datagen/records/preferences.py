"""The shapes of preferences: two answers to one prompt, and which of them is better.

    preference    {"prompt", "chosen", "rejected"}: the prompt a string or messages, an answer a string or one message
                  of the assistant (a list that repeats the prompt before it is accepted too)
    implicit      {"chosen", "rejected"}: two lists of messages; their common beginning is the prompt
    hh            {"chosen", "rejected"}: two transcripts, "\\n\\nHuman: ...\\n\\nAssistant: ..."
    question      {"question", "response_chosen", "response_rejected"}, or "chosen" and "rejected"; "system" and
                  "history" as [[user, assistant], ...] come first
    sharegpt      {"conversations", "chosen", "rejected"}: turns that end in the user's, with "system" before them
    ranked        {"instruction", "input", "output": [best, ..., worst]}, with "system" and "history": one preference,
                  the best reply over the worst; those between are not used

Each may have "margin", a number. Two answers that differ only in surrounding blanks are no preference, and two
conversations may differ only in their last turn.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

from datagen.records.record import Messages, Row, Text, as_messages
from datagen.records.shapes import (
    ANSWER_KEYS,
    PREFIXED_ANSWER_KEYS,
    Shape,
    answer_field,
    as_prompt,
    check_turns,
    join_input,
    key_list,
    prompt_field,
    read_turns,
    request_with_history,
    text_field,
    with_system,
)

NEEDS = "A preference needs prompt, chosen, rejected: make them with 'datagen pairs'"
SPEAKER = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant): ?")
"""The start of a turn in a transcript; "Human:" inside a line is part of the text."""


class PreferenceContent(NamedTuple):
    """What every shape of a preference is reduced to."""

    prompt: Text
    chosen: str
    rejected: str
    margin: float | None


def preference_content(row: Row, prompt: Text, chosen: str, rejected: str) -> list[PreferenceContent]:
    """Check that the answers differ, and add the row's "margin"."""
    if chosen.strip() == rejected.strip():
        raise ValueError("chosen and rejected are equal")
    margin = row.get("margin")
    if margin is not None and (isinstance(margin, bool) or not isinstance(margin, int | float)):
        raise ValueError('"margin" is not a number')
    try:
        return [PreferenceContent(prompt, chosen, rejected, None if margin is None else float(margin))]
    except OverflowError:
        raise ValueError('"margin" is too large a number') from None


def require_fields(row: Row, *names: str) -> None:
    """Raise ValueError if a field is missing."""
    missing = [f'"{name}"' for name in names if name not in row]
    if missing:
        raise ValueError(f"no {' and no '.join(missing)} (found: {key_list(row)}). {NEEDS}")


def read_explicit(row: Row, prompt_key: str) -> list[PreferenceContent]:
    """Read a row in which the prompt stands beside the two answers."""
    is_prefixed = prompt_key == "question" and any(key in row for key in PREFIXED_ANSWER_KEYS)
    answer_keys = PREFIXED_ANSWER_KEYS if is_prefixed else ANSWER_KEYS
    require_fields(row, prompt_key, *answer_keys)
    if prompt_key == "prompt":
        prompt = prompt_field(row)
    elif prompt_key == "question":
        prompt = request_with_history(row, text_field(row, "question"))
    else:
        prompt = as_prompt(with_system(row, read_turns(row["conversations"], "conversations")))
    chosen, rejected = (answer_field(row, key, as_messages(prompt)) for key in answer_keys)
    return preference_content(row, prompt, chosen, rejected)


def read_implicit(row: Row, read_conversation: Callable[[Row, str], Messages]) -> list[PreferenceContent]:
    """Read a row of two whole conversations; the prompt is what stands before their last turns."""
    require_fields(row, *ANSWER_KEYS)
    chosen, rejected = (read_conversation(row, key) for key in ANSWER_KEYS)
    for name, messages in zip(ANSWER_KEYS, (chosen, rejected), strict=True):
        if not messages or messages[-1]["role"] != "assistant":
            raise ValueError(f'"{name}" does not end in the assistant\'s turn')
    if chosen[:-1] != rejected[:-1]:
        pairs = enumerate(zip(chosen, rejected, strict=False), 1)
        number = next((n for n, (one, other) in pairs if one != other), min(len(chosen), len(rejected)) + 1)
        raise ValueError(f"chosen and rejected part at turn {number}: they may differ in the last turn alone")
    return preference_content(row, as_prompt(chosen[:-1]), chosen[-1]["content"], rejected[-1]["content"])


def read_transcript(row: Row, name: str) -> Messages:
    """Split a transcript into its turns, word for word."""
    before, *pieces = SPEAKER.split(text_field(row, name))
    if before or not pieces:
        require_fields(row, "prompt")
        raise ValueError(f'"{name}" does not begin with "Human:"')
    roles = ("user" if speaker == "Human" else "assistant" for speaker in pieces[::2])
    messages = [{"role": role, "content": text} for role, text in zip(roles, pieces[1::2], strict=True)]
    return check_turns(messages, name)


def read_ranked(row: Row) -> list[PreferenceContent]:
    """Read the layout of Alpaca with a list of replies, best first."""
    require_fields(row, "instruction", "output")
    replies = row["output"]
    if not isinstance(replies, list) or not all(isinstance(reply, str) for reply in replies):
        raise ValueError('"output" is not a list of replies, best first')
    if len(replies) < 2:
        raise ValueError(f'"output" holds {len(replies)} of the two replies that a preference needs')
    best, worst = (answer_field({"output": reply}, "output") for reply in (replies[0], replies[-1]))
    request = join_input(text_field(row, "instruction"), text_field(row, "input", required=False))
    return preference_content(row, request_with_history(row, request), best, worst)


OURS = frozenset(("id", "meta", "margin", "prompt", *ANSWER_KEYS))
PREFERENCE_SHAPES = {
    "preference": Shape(lambda row: read_explicit(row, "prompt"), OURS),
    "implicit": Shape(lambda row: read_implicit(row, lambda row, name: read_turns(row[name], name)), OURS),
    "hh": Shape(lambda row: read_implicit(row, read_transcript), OURS),
    "question": Shape(
        lambda row: read_explicit(row, "question"),
        OURS | {"question", "system", "history", *PREFIXED_ANSWER_KEYS},
    ),
    "sharegpt": Shape(
        lambda row: read_explicit(row, "conversations"),
        OURS | {"conversations", "system"},
    ),
    "ranked": Shape(read_ranked, OURS | {"instruction", "input", "output", "system", "history"}),
}


def preference_shape(row: Row) -> str | None:
    """Detect the shape of a preference by its keys. One of the two answers is enough: the reader then names the other
    as missing."""
    is_prefixed = any(key in row for key in PREFIXED_ANSWER_KEYS)
    if not is_prefixed and not any(key in row for key in ANSWER_KEYS):
        return "ranked" if "instruction" in row and isinstance(row.get("output"), list) else None
    shapes = {"prompt": "preference", "conversations": "sharegpt", "question": "question"}
    explicit = next((shape for key, shape in shapes.items() if key in row), None)
    if explicit or is_prefixed:
        return explicit or "question"
    return "implicit" if isinstance(row.get("chosen", row.get("rejected")), list) else "hh"
