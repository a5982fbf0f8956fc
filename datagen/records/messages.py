"""One reader of conversations, whatever names a file has for its turns.

A turn is {role, content}, {from, value} or a mix of their synonyms; it keeps what TURN_FIELDS name. A list of plain
texts, of [user, assistant] or of {user, assistant} is a conversation in which the two take turns.

Calls of functions come in the form of the OpenAI API, as `function_call` beside the content, or as turns of their own
(`function_call` and `observation`, as ShareGPT and LLaMA-Factory have them). All become `tool_calls` of an assistant's
turn and `tool` turns. A text that begins with <think> stays as it is: only a field of its own is reasoning.

Everywhere a tool's turn must follow a call. A strict reader also wants a system message first, if any, then user and
assistant in turn, the user first, none of them empty. Any other role, order or empty turn is a ValueError with the
reason for a user, never dropped or renamed. Only an empty system message is left out.
"""

import json
from collections.abc import Iterable
from typing import Any

from datagen.records.lines import loads_strictly
from datagen.records.record import Message, Messages, Row, Text

USER, ASSISTANT, SYSTEM, TOOL = "user", "assistant", "system", "tool"
ROLES = {
    "user": USER, "human": USER, "prompter": USER,
    "assistant": ASSISTANT, "gpt": ASSISTANT, "chatgpt": ASSISTANT, "bing": ASSISTANT, "bard": ASSISTANT,
    "bot": ASSISTANT, "model": ASSISTANT, "function_call": ASSISTANT, "function-call": ASSISTANT,
    "tool_call": ASSISTANT,
    "system": SYSTEM, "developer": SYSTEM,
    "tool": TOOL, "function": TOOL, "observation": TOOL, "function_response": TOOL, "function-response": TOOL,
    "tool_response": TOOL,
}  # fmt: skip
"""Names of speakers in other formats, and the roles they are."""
CALL_ROLES = ("function_call", "function-call", "tool_call")
"""Speakers whose text is a call: {"name", "arguments"}, or a list of them."""
SPEAKER_KEYS = ("role", "from", "speaker")
TEXT_KEYS = ("content", "value", "text", "utterance")
PLAIN_KEYS, PLAIN_ROLES = {"role", "content"}, (USER, ASSISTANT, SYSTEM, TOOL)
"""A turn of these keys and roles is one of ours already."""
PAIR_KEYS = (("user", "assistant"), ("human", "assistant"), ("human", "gpt"), ("input", "output"))
"""The keys of two turns that stand in one object."""
FIELD_KEYS = {
    "reasoning_content": ("reasoning_content", "reasoning", "thinking", "thought"),
    "tool_calls": ("tool_calls",),
    "tool_call_id": ("tool_call_id",),
    "name": ("name",),
    "weight": ("weight", "train"),
}
"""The names under which a turn may hold each of TURN_FIELDS."""
READ_KEYS = {*SPEAKER_KEYS, *TEXT_KEYS, "function_call", *(key for keys in FIELD_KEYS.values() for key in keys)}


def read_messages(value: object, name: str) -> Messages:
    """Read a conversation whose roles may come in any order; only a tool's turn must follow a call.

    Args:
        value: A list of turns.
        name: The field that holds it, for messages.

    Raises:
        ValueError: It is no such list, or a turn cannot be read.
    """
    turns = value if isinstance(value, list) else None
    if not turns:
        raise ValueError(f'"{name}" is not a list of turns')
    messages = [message for number, turn in enumerate(turns, 1) for message in _read_turns(turn, number, name)]
    calls = False
    for number, message in enumerate(messages, 1):
        if message["role"] == TOOL and not calls:
            raise ValueError(f'turn {number} of "{name}" is from tool, but no call stands before it')
        calls = message["role"] == TOOL or is_call(message)
    return messages


def read_strictly(value: object, name: str) -> Messages:
    """Read a conversation as `read_messages` does, and check the order of its turns (`check_turns`)."""
    return check_turns(read_messages(value, name), name)


def check_turns(messages: Messages, name: str) -> Messages:
    """Check that user and assistant take turns, after at most one system message; leave that out if it is empty.

    A call is followed by the turns of tools, and these by the assistant's.
    """
    expected: tuple[str, ...] = (USER,)
    for number, message in enumerate(messages, 1):
        role = message["role"]
        if number == 1 and role == SYSTEM:
            continue
        if role not in expected:
            raise ValueError(f'turn {number} of "{name}" is from {role}, expected {" or ".join(expected)}')
        if not message["content"].strip() and role != TOOL and "tool_calls" not in message:
            raise ValueError(f'turn {number} of "{name}" ({role}) is empty')
        expected = _followers(message)
    return [message for message in messages if message["role"] != SYSTEM or message["content"].strip()]


def is_call(message: Message) -> bool:
    """Tell whether a message calls a function; some files write the call into the text, as Hermes does."""
    return "tool_calls" in message or (message["role"] == ASSISTANT and "<tool_call>" in message["content"])


def _followers(message: Message) -> tuple[str, ...]:
    """Return the roles that may speak after a message."""
    if message["role"] == ASSISTANT:
        return (TOOL,) if is_call(message) else (USER,)
    return (TOOL, ASSISTANT) if message["role"] == TOOL else (ASSISTANT,)


def _read_turns(turn: object, number: int, name: str) -> Messages:
    """Read one item of a conversation: a turn, or the two turns of a pair."""
    if isinstance(turn, str):
        return [{"role": (USER, ASSISTANT)[(number - 1) % 2], "content": turn}]
    if isinstance(turn, list) and len(turn) == 2 and all(isinstance(text, str) for text in turn):
        return [{"role": USER, "content": turn[0]}, {"role": ASSISTANT, "content": turn[1]}]
    if isinstance(turn, dict) and not any(key in turn for key in SPEAKER_KEYS):
        if isinstance(turn.get("utterance"), str):
            return [{"role": (USER, ASSISTANT)[(number - 1) % 2], "content": turn["utterance"]}]
        for keys in PAIR_KEYS:
            if all(isinstance(turn.get(key), str) for key in keys):
                return [{"role": role, "content": turn[key]} for role, key in zip((USER, ASSISTANT), keys, strict=True)]
    return [read_turn(turn, number, name)]


def is_plain(turn: Any) -> bool:
    """Tell whether a turn is one of ours already, and holds text alone; most are."""
    is_ours = isinstance(turn, dict) and turn.keys() == PLAIN_KEYS and turn["role"] in PLAIN_ROLES
    return is_ours and isinstance(turn["content"], str)


def read_turn(turn: Any, number: int, name: str) -> Message:
    """Read one turn; for the arguments and errors see `read_messages`."""
    if is_plain(turn):
        return {"role": turn["role"], "content": turn["content"]}
    place = f'turn {number} of "{name}"'
    if not isinstance(turn, dict):
        raise ValueError(f"{place} has no text as from and value, or role and content")
    speaker = next((turn[key] for key in SPEAKER_KEYS if isinstance(turn.get(key), str)), None)
    text = next((turn[key] for key in TEXT_KEYS if turn.get(key) is not None), None)
    calls = _calls(turn, speaker, text, place)
    if speaker is not None and speaker not in ROLES:
        raise ValueError(f'{place} has the role "{speaker}", expected user, assistant, system or tool')
    content = "" if calls and (text is None or speaker in CALL_ROLES) else _content(text, place)
    if speaker is None or content is None:
        raise ValueError(f"{place} has no text as from and value, or role and content")
    return {"role": ROLES[speaker], "content": content} | _fields(turn, ROLES[speaker], calls, place)


def _content(text: object, place: str) -> str | None:
    """Return the content of a turn; None if it is not text. The text parts of a list are joined by line ends."""
    if not isinstance(text, list):
        return text if isinstance(text, str) else None
    parts = [part if isinstance(part, dict) else {"type": "text", "text": part} for part in text]
    for part in parts:
        if part.get("type", "text") not in ("text", "input_text", "output_text"):
            raise ValueError(f'{place} has a part of type "{part["type"]}"; only parts of type "text" can be used')
    texts = [part.get("text") for part in parts]
    return "\n".join(map(str, texts)) if texts and all(isinstance(text, str) for text in texts) else None


def _fields(turn: Row, role: str, calls: list[Row], place: str) -> Row:
    """Return what a turn holds beside its role and text, under the names of TURN_FIELDS; null stands for nothing."""
    fields: Row = {}
    for field, keys in FIELD_KEYS.items():
        value = next((turn[key] for key in keys if turn.get(key) is not None), None)
        if field == "tool_calls":
            value = calls or None
        elif field == "weight":
            # A user's turn is never learned, whatever its weight. `train` says the same in axolotl's words.
            value = (int(value) if isinstance(value, bool) else value) if role == ASSISTANT else None
            if value is not None and not isinstance(value, int | float):
                raise ValueError(f"{place} has a weight that is not a number")
        elif value is not None and not isinstance(value, str):
            raise ValueError(f'{place}: "{field}" is not text')
        if value not in (None, ""):
            fields[field] = value
    return fields


def _calls(turn: Row, speaker: object, text: object, place: str) -> list[Row]:
    """Return the calls of a turn in the form of the OpenAI API."""
    calls: Any = turn.get("tool_calls") or turn.get("function_call") or (text if speaker in CALL_ROLES else [])
    if isinstance(calls, str):
        try:
            calls = loads_strictly(calls)
        except (ValueError, RecursionError):
            calls = None
    calls = [calls] if isinstance(calls, dict) else calls
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise ValueError(f'{place} holds no call {{"name", "arguments"}}')
    return [_call(call, place) for call in calls]


def _call(call: Row, place: str) -> Row:
    function = call["function"] if isinstance(call.get("function"), dict) else call
    if not isinstance(function.get("name"), str):
        raise ValueError(f'{place} holds no call {{"name", "arguments"}}')
    if function is call:
        arguments = call.get("arguments", call.get("parameters", {}))
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        call = {"type": "function", "function": {"name": call["name"], "arguments": text}}
    return {"type": "function", **{key: value for key, value in call.items() if value is not None}}


def read_tools(value: object) -> tuple[Row, ...]:
    """Return the functions that the assistant may call, in the form of the OpenAI API.

    Args:
        value: A list of functions, in that form or bare, or the JSON text of one; null or empty text stands for none.

    Raises:
        ValueError: It is no such list.
    """
    tools: Any = value
    if isinstance(tools, str):
        try:
            tools = loads_strictly(tools) if tools.strip() else []
        except (ValueError, RecursionError):
            tools = None
    tools = [tools] if isinstance(tools, dict) else tools if value is not None else []
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise ValueError('"tools" is not a list of functions')
    return tuple(
        tool if "function" in tool or "type" in tool else {"type": "function", "function": tool} for tool in tools
    )


def unread_keys(turns: Iterable[object]) -> set[str]:
    """Return the keys of turns that hold something and are not read."""
    return {
        key
        for turn in turns
        if isinstance(turn, dict) and not turn.keys() <= READ_KEYS and turn.keys() & {*SPEAKER_KEYS}
        for key, value in turn.items()
        if key not in READ_KEYS and value not in (None, "", [], {})
    }


def as_prompt(messages: Messages, *, ends_in_tool: bool = False) -> Text:
    """Return a conversation as a prompt; a single user message becomes a string.

    Args:
        messages: The conversation.
        ends_in_tool: Whether it may end in a tool's result, which the assistant goes on from.

    Raises:
        ValueError: The conversation does not end in a request.
    """
    last = messages[-1] if messages else {"role": "", "content": ""}
    if ends_in_tool and last["role"] == TOOL:
        return messages
    if last["role"] != USER or not last["content"].strip():
        raise ValueError("the conversation does not end in a user's message with text")
    return messages[-1]["content"] if len(messages) == 1 and messages[0].keys() == {"role", "content"} else messages
