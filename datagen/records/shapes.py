"""How one row is laid out: the shapes of prompts and documents, and the fields that all shapes are made of.

    prompt          {"prompt"} or {"prompt", "response"}; the prompt a string or a list of messages (our own rows)
    completion      {"prompt", "completion"}: each a string or a list of messages, the completion one of the assistant's
    alpaca          {"instruction", "input", "output"}, with "system" and "history" as [[user, assistant], ...]
    self-instruct   {"instruction", "instances": [{"input", "output"}]}: one record per instance
    messages        {"messages": [{"role", "content"}]}; a last assistant turn is the response
    sharegpt        {"conversations": [{"from", "value"}]}, with "system"; a last assistant turn is the response
    dialogue        {"conversation": [{"utterance"}]}: two people take turns; the second one's last turn is the response
    question        {"question", "answer"}, with "system" and "history"
    document        {"text"}
    text            one prompt, or one document, per line

The shapes of preferences stand in preferences.py, those of ranked answers and samples in ranked.py.

`prompt` and `messages` take turns of any role in any order. Elsewhere a conversation is read strictly: a system message
first, if any, then user and assistant in turn, the user first, none of them empty. Any other role, order or empty turn
is an error, never dropped or renamed. Only an empty system message is left out.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from datagen.records.record import Message, Messages, Row, Text

ROLES = {
    "user": "user", "human": "user", "system": "system", "assistant": "assistant",
    "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant",
}  # fmt: skip
"""Names of speakers in other formats, and the roles they are."""
SPEAKERS = ("user", "assistant")
TURN_KEYS = (("from", "value"), ("role", "content"))
"""The keys under which a turn holds its speaker and its text."""
ANSWER_KEYS = ("chosen", "rejected")
PREFIXED_ANSWER_KEYS = ("response_chosen", "response_rejected")


class Shape(NamedTuple):
    """How to read the rows of one shape.

    Args:
        read: Takes a row and returns one tuple per record that the row holds: the arguments of the record's class
            after its id. Raises ValueError, with the reason for a user, if the row cannot be used.
        fields: The fields that the shape uses; any other field of a row is kept as `extra`.
    """

    read: Callable[[Row], Sequence[tuple[Any, ...]]]
    fields: frozenset[str]


class PromptContent(NamedTuple):
    """What every shape of a prompt is reduced to."""

    prompt: Text
    response: str | None


# Fields


def key_list(row: Row) -> str:
    """List the keys of a row, for messages."""
    return ", ".join(map(str, row)) or "nothing"


def text_field(row: Row, name: str, *, required: bool = True) -> str:
    """Return a field that is text; "" for one that is not required and missing or null.

    Raises:
        ValueError: The field is not text; or it is required, and missing or blank.
    """
    value = row.get(name)
    if value is None and not required:
        return ""
    if name not in row:
        raise ValueError(f'no "{name}" (found: {key_list(row)})')
    if not isinstance(value, str):
        raise ValueError(f'"{name}" is not text')
    if required and not value.strip():
        raise ValueError(f'"{name}" is empty')
    return value


def prompt_field(row: Row) -> Text:
    """Return the "prompt" of a row: text, or a conversation that is read strictly."""
    value = row.get("prompt")
    return as_prompt(read_turns(value, "prompt")) if isinstance(value, list) else text_field(row, "prompt")


def answer_field(row: Row, name: str, before: Messages | None = None) -> str:
    """Return an answer of the assistant: a field that holds text, one message, or a list of one message.

    A list may also repeat the whole conversation `before` the answer.
    """
    value = row.get(name)
    if not isinstance(value, dict | list):
        return text_field(row, name)
    turns = value if isinstance(value, list) else [value]
    messages = [_read_turn(turn, number, name) for number, turn in enumerate(turns, 1)]
    if not messages or messages[-1]["role"] != "assistant" or messages[:-1] not in ([], before):
        raise ValueError(f'"{name}" is not one message of the assistant')
    if not messages[-1]["content"].strip():
        raise ValueError(f'"{name}" is empty')
    return messages[-1]["content"]


def message_list(row: Row, name: str) -> Messages:
    """Return a field that is a list of {role, content}, roles in any order; other keys of a message are dropped."""
    if name not in row:
        raise ValueError(f'no "{name}" (found: {key_list(row)})')
    value = row[name]
    if not isinstance(value, list) or not value:
        raise ValueError("messages are not a list of {role, content}")
    messages = []
    for message in value:
        if not isinstance(message, dict) or not all(isinstance(message.get(k), str) for k in ("role", "content")):
            raise ValueError("a message has no text as role and content")
        messages.append({"role": message["role"], "content": message["content"]})
    return messages


# Conversations


def read_turns(value: object, name: str) -> Messages:
    """Read a conversation strictly.

    Args:
        value: A list of {from, value} or {role, content}.
        name: The field that holds it, for messages.

    Raises:
        ValueError: It is not such a list, or breaks the rules at the top of this module.
    """
    if not isinstance(value, list) or not value:
        raise ValueError(f'"{name}" is not a list of turns')
    return check_turns([_read_turn(turn, number, name) for number, turn in enumerate(value, 1)], name)


def _read_turn(value: object, number: int, name: str) -> Message:
    for speaker_key, text_key in TURN_KEYS:
        if isinstance(value, dict) and isinstance(value.get(speaker_key), str) and isinstance(value.get(text_key), str):
            speaker = value[speaker_key]
            if speaker not in ROLES:
                raise ValueError(
                    f'turn {number} of "{name}" has the role "{speaker}", expected user, assistant or system'
                )
            return {"role": ROLES[speaker], "content": value[text_key]}
    raise ValueError(f'turn {number} of "{name}" has no text as from and value, or role and content')


def check_turns(messages: Messages, name: str) -> Messages:
    """Check that user and assistant take turns, after at most one system message; leave that out if it is empty."""
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


def with_system(row: Row, messages: Messages) -> Messages:
    """Put the row's field "system", if any, before a conversation."""
    system = text_field(row, "system", required=False)
    if not system.strip():
        return messages
    if messages and messages[0]["role"] == "system":
        raise ValueError('two system messages: "system" and the first turn')
    return [{"role": "system", "content": system}, *messages]


def as_prompt(messages: Messages) -> Text:
    """Return a conversation as a prompt; a single user message becomes a string.

    Raises:
        ValueError: The conversation does not end in a request.
    """
    if not messages or messages[-1]["role"] != "user" or not messages[-1]["content"].strip():
        raise ValueError("the conversation does not end in a user's message with text")
    return messages[-1]["content"] if len(messages) == 1 else messages


def join_input(instruction: str, input: str) -> str:
    """Join an instruction and its input, if any, with a blank line between them."""
    return f"{instruction}\n\n{input}" if input else instruction


def request_with_history(row: Row, request: str) -> Text:
    """Return the prompt of a row: its "system", its "history" as [[user, assistant], ...], and then the request."""
    pairs = row.get("history") or []
    if not isinstance(pairs, list) or not all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair) for pair in pairs
    ):
        raise ValueError('"history" is not a list of [user, assistant]')
    texts = [text for pair in pairs for text in pair]
    history = [{"role": SPEAKERS[at % 2], "content": text} for at, text in enumerate(texts)]
    return as_prompt(with_system(row, [*check_turns(history, "history"), {"role": "user", "content": request}]))


# Shapes


def read_prompt(row: Row) -> list[PromptContent]:
    is_conversation = isinstance(row.get("prompt"), list)
    prompt = as_prompt(message_list(row, "prompt")) if is_conversation else text_field(row, "prompt")
    return [PromptContent(prompt, text_field(row, "response", required=False) or None)]


def read_alpaca(row: Row) -> list[PromptContent]:
    input, output = (text_field(row, name, required=False) for name in ("input", "output"))
    request = join_input(text_field(row, "instruction"), input)
    return [PromptContent(request_with_history(row, request), output or None)]


def read_self_instruct(row: Row) -> list[PromptContent]:
    instances = row.get("instances")
    if not isinstance(instances, list) or not instances or not all(isinstance(item, dict) for item in instances):
        raise ValueError('"instances" is not a list of {input, output}')
    rows = ({**instance, "instruction": row.get("instruction")} for instance in instances)
    return [content for instance in rows for content in read_alpaca(instance)]


def read_conversation(row: Row, name: str) -> list[PromptContent]:
    """Read a whole conversation, under the field that its shape has; a last turn of the assistant is the response."""
    if name == "messages":
        messages = message_list(row, name)
    elif name == "conversations":
        messages = with_system(row, read_turns(row.get(name), name))
    else:
        turns = row.get(name)
        if not isinstance(turns, list) or not turns or not all(isinstance(turn, dict) for turn in turns):
            raise ValueError(f'"{name}" is not a list of {{utterance}}')
        texts = [text_field(turn, "utterance") for turn in turns]
        messages = check_turns([{"role": SPEAKERS[at % 2], "content": text} for at, text in enumerate(texts)], name)
    is_answered = bool(messages) and messages[-1]["role"] == "assistant"
    response = messages.pop()["content"] if is_answered else None
    return [PromptContent(as_prompt(messages), response)]


OURS = frozenset(("id", "prompt", "response", "meta"))
PROMPT_SHAPES = {
    "prompt": Shape(read_prompt, OURS),
    "completion": Shape(
        lambda row: [PromptContent(prompt_field(row), answer_field(row, "completion"))],
        OURS | {"completion"},
    ),
    "alpaca": Shape(read_alpaca, OURS | {"instruction", "input", "output", "system", "history"}),
    "self-instruct": Shape(read_self_instruct, OURS | {"instruction", "instances"}),
    "messages": Shape(lambda row: read_conversation(row, "messages"), OURS | {"messages"}),
    "sharegpt": Shape(lambda row: read_conversation(row, "conversations"), OURS | {"conversations", "system"}),
    "dialogue": Shape(lambda row: read_conversation(row, "conversation"), OURS | {"conversation"}),
    "question": Shape(
        lambda row: [
            PromptContent(
                prompt=request_with_history(row, text_field(row, "question")),
                response=text_field(row, "answer", required=False) or None,
            )
        ],
        OURS | {"question", "answer", "system", "history"},
    ),
    "text": Shape(read_prompt, OURS),
}
DOCUMENT_SHAPES = {
    "document": Shape(lambda row: [(text_field(row, "text"),)], frozenset(("id", "text", "meta"))),
    "text": Shape(lambda row: [(text_field(row, "text"),)], frozenset(("text",))),
}
PROMPT_KEYS = {
    ("prompt",): "prompt",
    ("instances",): "self-instruct",
    ("messages",): "messages",
    ("instruction",): "alpaca",
    ("conversations",): "sharegpt",
    ("conversation",): "dialogue",
    ("question", "answer"): "question",
}
"""The keys by which the shape of a prompt is detected; the first entry that a row fits."""


def prompt_shape(row: Row) -> str | None:
    """Detect the shape of a prompt by its keys; None for a row with several answers, or without a prompt."""
    has_both = any(set(keys) <= row.keys() for keys in (ANSWER_KEYS, PREFIXED_ANSWER_KEYS))
    has_one = any(key in row for key in (*ANSWER_KEYS, *PREFIXED_ANSWER_KEYS))
    is_ranked = "instruction" in row and isinstance(row.get("output"), list) and not has_one
    if has_both or is_ranked or "responses" in row:
        return None
    if "prompt" in row and "completion" in row and "response" not in row:
        return "completion"
    return next((shape for keys, shape in PROMPT_KEYS.items() if all(key in row for key in keys)), None)
