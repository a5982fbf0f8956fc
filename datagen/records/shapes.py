"""The shapes of prompts and their responses.

    prompt          {"prompt"} or {"prompt", "response"}; the prompt a string or a list of messages (our own rows)
    completion      {"prompt", "completion"}: each a string or a list of messages, the completion one of the assistant's
    alpaca          {"instruction", "input", "output"}, with "system" and "history" as [[user, assistant], ...]
    self-instruct   {"instruction", "instances": [{"input", "output"}]}: one record per instance
    messages        {"messages": [{"role", "content"}]}; a last assistant turn is the response
    sharegpt        {"conversations": [{"from", "value"}]}, with "system"; a last assistant turn is the response
    question        {"question", "answer"}, with "system" and "history"
    dialogue        {"conversation": [{"utterance"}]}: two people take turns; what the second says last is the response
    text            one prompt per line

`prompt` and `messages` take turns of any role in any order; elsewhere a conversation is read strictly (shapes.py).
"""

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
from datagen.records.record import Messages, Row, Text


class Pair(NamedTuple):
    """What every shape of a prompt is reduced to."""

    prompt: Text
    response: str | None


def _messages_of(row: Row, name: str) -> Messages:
    """Check the list of messages that stands under a name; keep role and content."""
    if name not in row:
        raise ValueError(f'no "{name}" (found: {found(row)})')
    value = row[name]
    if not isinstance(value, list) or not value:
        raise ValueError("messages are not a list of {role, content}")
    messages = []
    for message in value:
        if not isinstance(message, dict) or not all(isinstance(message.get(k), str) for k in ("role", "content")):
            raise ValueError("a message has no text as role and content")
        messages.append({"role": message["role"], "content": message["content"]})
    return messages


def _prompt(row: Row) -> list[Pair]:
    if isinstance(row.get("prompt"), list):
        return [Pair(as_prompt(_messages_of(row, "prompt")), text(row, "response", needed=False) or None)]
    return [Pair(text(row, "prompt"), text(row, "response", needed=False) or None)]


def _completion(row: Row) -> list[Pair]:
    return [Pair(prompt(row), answer(row, "completion"))]


def _alpaca(row: Row) -> list[Pair]:
    given, output = text(row, "input", needed=False), text(row, "output", needed=False)
    return [Pair(asked(row, join_input(text(row, "instruction"), given)), output or None)]


def _self_instruct(row: Row) -> list[Pair]:
    instances = row.get("instances")
    if not isinstance(instances, list) or not instances or not all(isinstance(i, dict) for i in instances):
        raise ValueError('"instances" is not a list of {input, output}')
    return [pair for instance in instances for pair in _alpaca({**instance, "instruction": row.get("instruction")})]


def _split(messages: Messages) -> list[Pair]:
    response = messages.pop()["content"] if messages and messages[-1]["role"] == "assistant" else None
    return [Pair(as_prompt(messages), response)]


def _messages(row: Row) -> list[Pair]:
    return _split(_messages_of(row, "messages"))


def _sharegpt(row: Row) -> list[Pair]:
    return _split(with_system(row, turns(row.get("conversations"), "conversations")))


def _dialogue(row: Row) -> list[Pair]:
    said = row.get("conversation")
    if not isinstance(said, list) or not said or not all(isinstance(each, dict) for each in said):
        raise ValueError('"conversation" is not a list of {utterance}')
    roles = ("user", "assistant")
    spoken = [{"role": roles[i % 2], "content": text(each, "utterance")} for i, each in enumerate(said)]
    return _split(ordered(spoken, "conversation"))


def _question(row: Row) -> list[Pair]:
    return [Pair(asked(row, text(row, "question")), text(row, "answer", needed=False) or None)]


OURS = frozenset(("id", "prompt", "response", "meta"))
RESPONSE_SHAPES = {
    "prompt": Shape(_prompt, OURS),
    "completion": Shape(_completion, OURS | {"completion"}),
    "alpaca": Shape(_alpaca, OURS | {"instruction", "input", "output", "system", "history"}),
    "self-instruct": Shape(_self_instruct, OURS | {"instruction", "instances"}),
    "messages": Shape(_messages, OURS | {"messages"}),
    "sharegpt": Shape(_sharegpt, OURS | {"conversations", "system"}),
    "dialogue": Shape(_dialogue, OURS | {"conversation"}),
    "question": Shape(_question, OURS | {"question", "answer", "system", "history"}),
    "text": Shape(_prompt, OURS),
}
KEYS = {
    ("prompt",): "prompt",
    ("instances",): "self-instruct",
    ("messages",): "messages",
    ("instruction",): "alpaca",
    ("conversations",): "sharegpt",
    ("conversation",): "dialogue",
    ("question", "answer"): "question",
}
"""The keys that tell a shape; the first that a row has."""


def response_shape(row: Row) -> str | None:
    """Name the format of a row by its keys."""
    if "prompt" in row and "completion" in row and "response" not in row:
        return "completion"
    return next((shape for keys, shape in KEYS.items() if all(key in row for key in keys)), None)
