"""The shapes of preferences: two answers to one prompt, and which of them is better.

    preference    {"prompt", "chosen", "rejected"}: the prompt a string or messages, an answer a string or one message
                  of the assistant (a list that repeats the prompt before it is accepted too)
    alpaca        {"instruction", "input", "chosen", "rejected"}
    question      {"question", "response_chosen", "response_rejected"}, or "chosen" and "rejected"; "system" and
                  "history" as [[user, assistant], ...] come first
    sharegpt      {"conversations", "chosen", "rejected"}: turns that end in the user's, with "system" before them
    messages      {"messages", "chosen", "rejected"}, likewise; OpenAI's {"input": {"messages"}, "preferred_output",
                  "non_preferred_output"} is read so
    implicit      {"chosen", "rejected"}: two lists of messages; their common beginning is the prompt
    hh            {"chosen", "rejected"}: two transcripts, "\\n\\nHuman: ...\\n\\nAssistant: ..."
    ranked        {"instruction", "input", "output": [best, ..., worst]}, with "system" and "history": one preference,
                  the best reply over the worst; those between are not used
    the others    every shape of two answers with a verdict (comparisons.py)

Each may have "margin", a number. Two answers that differ only in surrounding blanks are no preference, and two
conversations may differ only in their last turn.
"""

from collections.abc import Callable
from functools import partial

from datagen.records.columns import Fields, key_list
from datagen.records.comparisons import TWO_ANSWERS, Comparison
from datagen.records.messages import ASSISTANT, as_prompt
from datagen.records.record import Message, Messages, Text, as_messages
from datagen.records.shapes import (
    BEFORE,
    Content,
    Shape,
    answer_message,
    conversation_field,
    request,
    tools_field,
    with_system,
)
from datagen.records.transcripts import split_transcript

NEEDS = "A preference needs prompt, chosen, rejected: make them with 'datagen pairs'"
ANSWERS = ("chosen", "rejected")


def preference(fields: Fields, prompt: Text, chosen: Message, rejected: Message) -> list[Content]:
    """Check that the answers differ, and add the row's "margin", tools and reasoning."""
    same = chosen["content"].strip() == rejected["content"].strip()
    if same and chosen.get("tool_calls") == rejected.get("tool_calls"):
        raise ValueError("chosen and rejected are equal")
    margin, more = number_field(fields, "margin"), tools_field(fields)
    for name, message in zip(ANSWERS, (chosen, rejected), strict=True):
        if message.get("tool_calls"):
            raise ValueError(f'"{name}" calls a tool; preferences between calls are not read')
        reasoning = message.get("reasoning_content") or fields.text(f"{name}_reasoning")
        more |= {f"{name}_reasoning": reasoning} if reasoning else {}
    return [Content((prompt, chosen["content"], rejected["content"], margin), more)]


def number_field(fields: Fields, role: str) -> float | None:
    """Read a column that is a number, if it is there."""
    value, name = fields.value(role), fields.name(role)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f'"{name}" is not a number')
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f'"{name}" is too large a number') from None


def require(fields: Fields, *roles: str) -> None:
    """Raise ValueError if the row lacks a column."""
    missing = [f'"{fields.name(role)}"' for role in roles if role not in fields]
    if missing:
        raise ValueError(f"no {' and no '.join(missing)} (found: {key_list(fields.row)}). {NEEDS}")


def read_explicit(fields: Fields, role: str) -> list[Content]:
    """Read a row in which the prompt stands beside the two answers."""
    require(fields, role, *ANSWERS)
    if role == "prompt" and all(is_whole(fields, name) for name in ANSWERS):
        return read_implicit(fields, conversation_field)
    if role in ("messages", "conversations"):
        prompt = as_prompt(with_system(fields, conversation_field(fields, role)), ends_in_tool=True)
    else:
        prompt = request(fields, strict=True)
    before = as_messages(prompt)
    chosen, rejected = (answer_message(fields, name, before) for name in ANSWERS)
    return preference(fields, prompt, chosen, rejected)


def is_whole(fields: Fields, role: str) -> bool:
    """Tell whether an answer is a whole conversation of several turns, in which the prompt's text stands."""
    turns, prompt = fields.row[fields.name(role)], fields.row[fields.name("prompt")]
    return isinstance(turns, list) and len(turns) > 2 and any(
        isinstance(turn, dict) and prompt in (turn.get("content"), turn.get("value")) for turn in turns
    )  # fmt: skip


def read_implicit(fields: Fields, read: Callable[[Fields, str], Messages]) -> list[Content]:
    """Read a row of two whole conversations; the prompt is what stands before their last turns."""
    require(fields, *ANSWERS)
    chosen, rejected = (read(fields, role) for role in ANSWERS)
    for name, messages in zip(ANSWERS, (chosen, rejected), strict=True):
        if not messages or messages[-1]["role"] != ASSISTANT:
            raise ValueError(f'"{name}" does not end in the assistant\'s turn')
    if chosen[:-1] != rejected[:-1]:
        turns = enumerate(zip(chosen, rejected, strict=False), 1)
        number = next((n for n, (one, other) in turns if one != other), min(len(chosen), len(rejected)) + 1)
        raise ValueError(f"chosen and rejected part at turn {number}: they may differ in the last turn alone")
    prompt = as_prompt(with_system(fields, chosen[:-1]), ends_in_tool=True)
    return preference(fields, prompt, chosen[-1], rejected[-1])


def read_transcript(fields: Fields, role: str) -> Messages:
    """Split the transcript in a column into its turns."""
    text = fields.text(role, required=True)
    if not text.lstrip().startswith(("Human:", "Assistant:")):
        require(fields, "prompt")
    return split_transcript(text, fields.name(role))


def read_ranked(fields: Fields) -> list[Content]:
    """Read the layout of Alpaca with a list of replies, best first."""
    replies = fields.value("outputs")
    if not isinstance(replies, list) or not all(isinstance(reply, str) for reply in replies):
        raise ValueError('"output" is not a list of replies, best first')
    if len(replies) < 2:
        raise ValueError(f'"output" holds {len(replies)} of the two replies that a preference needs')
    if not replies[0].strip() or not replies[-1].strip():
        raise ValueError('"output" is empty')
    fields.notes += ['more than two replies in "output", of which the best and the worst are used'] * (len(replies) > 2)
    best, worst = ({"role": ASSISTANT, "content": reply} for reply in (replies[0], replies[-1]))
    return preference(fields, request(fields), best, worst)


def read_two(compare: Callable[[Fields], list[Comparison]], fields: Fields) -> list[Content]:
    """Read two answers with a verdict as a preference; a tie is none."""
    contents: list[Content] = []
    for comparison in compare(fields):
        if comparison.ranks[0] == comparison.ranks[1]:
            raise ValueError("the two answers are tied, and a tie is no preference")
        best, worst = comparison.best_first()
        contents += preference(fields, comparison.prompt, *({"role": ASSISTANT, "content": a} for a in (best, worst)))
    return contents


WITH: tuple[str, ...] = ("margin", "tools", "chosen_reasoning", "rejected_reasoning", "system")
SAID_AGAIN = ("prompt", "messages", "response")
OURS = {
    "preference": Shape(
        lambda fields: read_explicit(fields, "prompt"), ("prompt",),
        ("margin", "tools", "chosen_reasoning", "rejected_reasoning"), needs_any=ANSWERS,
    )
}  # fmt: skip
PREFERENCE_SHAPES = {
    "preference": Shape(
        lambda fields: read_explicit(fields, "prompt"), ("prompt",), ("input", "context", "history", *WITH), ANSWERS,
        repeats=("messages", "conversations", "conversation", "response"),
    ),
    "alpaca": Shape(
        lambda fields: read_explicit(fields, "instruction"), ("instruction",), ("input", "context", "history", *WITH),
        ANSWERS,
    ),
    "question": Shape(
        lambda fields: read_explicit(fields, "question"), ("question",), ("input", "context", "history", *WITH), ANSWERS
    ),
    "sharegpt": Shape(
        lambda fields: read_explicit(fields, "conversations"), ("conversations",), WITH, ANSWERS, repeats=("prompt",)
    ),
    "messages": Shape(
        lambda fields: read_explicit(fields, "messages"), ("messages",), WITH, ANSWERS, unless=("prompt",)
    ),
    "implicit": Shape(
        lambda fields: read_implicit(fields, conversation_field), (), (*ANSWERS, *WITH),
        ("chosen_turns", "rejected_turns"), unless=("prompt", "question", "instruction", "conversations", "messages"),
        repeats=SAID_AGAIN,
    ),
    "hh": Shape(lambda fields: read_implicit(fields, read_transcript), (), WITH, ANSWERS),
    "ranked": Shape(read_ranked, ("instruction", "outputs"), ("input", "context", "margin", "tools", *BEFORE)),
    **{
        name: Shape(partial(read_two, shape.read), shape.needs, shape.may, shape.needs_any)
        for name, shape in TWO_ANSWERS.items()
    },
}  # fmt: skip
