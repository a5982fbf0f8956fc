"""Conversations as one text: "\\n\\nHuman: ...\\n\\nAssistant: ...", as in HH-RLHF."""

import re

from datagen.records.messages import ASSISTANT, USER, check_turns
from datagen.records.record import Messages

SPEAKER = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant): ?")
"""The start of a turn in a transcript; "Human:" inside a line is part of the text."""
OPEN_END = re.compile(r"\n\nAssistant:\s*\Z")


def open_transcript(text: str) -> str | None:
    """Return a prompt that is a transcript without its open end, where the assistant goes on; None for another one."""
    is_open = re.match(r"\s*Human: ?", text) and OPEN_END.search(text)
    return OPEN_END.sub("", text) if is_open else None


def split_transcript(text: str, name: str) -> Messages:
    """Split a transcript into its turns, word for word.

    Args:
        text: The transcript.
        name: The column that holds it, for messages.

    Raises:
        ValueError: The text does not begin with "Human:", or breaks the order of turns.
    """
    before, *pieces = SPEAKER.split(text)
    if before or not pieces:
        raise ValueError(f'"{name}" does not begin with "Human:"')
    roles = (USER if speaker == "Human" else ASSISTANT for speaker in pieces[::2])
    messages = [{"role": role, "content": turn} for role, turn in zip(roles, pieces[1::2], strict=True)]
    return check_turns(messages, name)
