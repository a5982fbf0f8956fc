"""What all shapes are made of: what a shape is, how one is chosen for a row, and how the parts of a row are read.

A shape is chosen by all the columns of a row: the one that explains most of them, the earlier in the table if two
explain as many. What a shape reads is a column's use; it cannot count one as used that it does not read.

The tables: prompt_shapes.py has those of prompts and documents, preferences.py of preferences, ranked.py of ranked
answers and samples, comparisons.py of two answers with a verdict.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from datagen.records.columns import Fields, columns_of, normal_name
from datagen.records.messages import (
    ASSISTANT,
    SYSTEM,
    USER,
    as_prompt,
    check_turns,
    read_messages,
    read_strictly,
    read_tools,
    unread_keys,
)
from datagen.records.record import Message, Messages, Row, Text, request_text, with_request
from datagen.records.transcripts import open_transcript, split_transcript

NO_INPUT = ("<noinput>", "<no input>")
"""What stands in the input of an instruction that has none."""
ANSWERED = ("response", "completion")
"""The roles of a response."""
Roles = tuple[str, ...]
BEFORE: Roles = ("system", "history")
"""The roles of what comes before a request."""


class Content(NamedTuple):
    """What a shape reads from a row: the arguments of the record's class after its id.

    Args:
        base: The arguments by position, such as prompt and response.
        more: Those by keyword, of which most rows have none, such as `reasoning` and `tools`.
    """

    base: tuple[Any, ...]
    more: Row


class Fit(NamedTuple):
    """How a shape fits a row."""

    shape: str
    core: frozenset[str]
    """The columns without which the row would be another one: what the shape needs, and a response."""
    reads: frozenset[str]
    """The columns that the shape reads."""
    explains: frozenset[str]
    """Those, and the columns that may say the same once more."""


class Shape(NamedTuple):
    """How to read the rows of one shape.

    Args:
        read: Returns one Content per record that the row holds. Raises ValueError, with the reason for a user, if the
            row cannot be used.
        needs: Roles without which a row is not of this shape.
        may: Roles that the shape reads where they are there.
        needs_any: Roles of which one is enough for a row to be of this shape.
        unless: Roles with which a row is not of this shape.
        repeats: Roles of columns that such rows often have, and that say once more what the shape reads.
        detected: Whether a row can be recognised as this shape; else it is read by --format alone.
    """

    read: Callable[[Fields], Sequence[Content]]
    needs: Roles = ()
    may: Roles = ()
    needs_any: Roles = ()
    unless: Roles = ()
    repeats: Roles = ()
    detected: bool = True

    @property
    def roles(self) -> Roles:
        """The roles that the shape reads."""
        return (*self.needs, *self.needs_any, *self.may)

    def fit(self, name: str, row: Row, exact: bool) -> Fit | None:
        """Return what of a row this shape explains; None if the row is not of this shape.

        Args:
            name: The name of the shape.
            row: The row, without the columns that hold null.
            exact: Whether only our own names count.
        """
        columns = columns_of((*self.roles, *self.unless, *self.repeats), row, exact)
        fits = columns.keys() >= {*self.needs} and not columns.keys() & {*self.unless}
        if not self.detected or not fits or (self.needs_any and not columns.keys() & {*self.needs_any}):
            return None
        core, reads, repeats = (
            frozenset(columns[role] for role in roles if role in columns)
            for roles in ((*self.needs, *self.needs_any, *ANSWERED), self.roles, self.repeats)
        )
        return Fit(name, core & reads, reads, reads | repeats) if reads else None


def best_shape(
    shapes: Mapping[str, Shape], row: Row, *, exact: bool = False, must: frozenset[str] = frozenset()
) -> Fit | None:
    """Return the shape that explains most of a row; None if none fits.

    Args:
        shapes: The shapes to choose from; the earlier one, if two explain as many columns.
        row: The row.
        exact: Whether only our own names of columns count.
        must: Columns that are worth more than all others if the shape reads them.
    """
    full = {name: value for name, value in row.items() if value is not None}
    fits = [fit for name, shape in shapes.items() if (fit := shape.fit(name, full, exact))]
    return max(fits, key=lambda fit: (len(fit.reads & must), len(fit.explains)), default=None)


# Fields


def conversation_field(fields: Fields, role: str, *, strict: bool = True) -> Messages:
    """Read a column that is a conversation; what its turns hold besides is noted."""
    value, name = fields.value(role), fields.name(role)
    if role not in fields:
        raise ValueError(f'no "{name}" (found: {", ".join(fields.row) or "nothing"})')
    if normal_name(name) == "turns" and isinstance(value, list) and any(isinstance(turn, str) for turn in value):
        # MT-bench lists what the user says in each turn; elsewhere such texts are those of two speakers.
        raise ValueError(f'"{name}" holds texts without speakers; to read the first: --map prompt={name}.0')
    messages = (read_strictly if strict else read_messages)(value, name)
    fields.notes += [f'"{key}" in the turns of "{name}", which is left out' for key in sorted(unread_keys(value))]
    return messages


def answer_message(fields: Fields, role: str, before: Messages | None = None) -> Message:
    """Read an answer of the assistant: a column that holds text, one message, or a list of one message.

    A list may also repeat the whole conversation `before` the answer.
    """
    value, name = fields.value(role), fields.name(role)
    if not isinstance(value, dict | list):
        return {"role": ASSISTANT, "content": fields.text(role, required=True)}
    turns = value if isinstance(value, list) else [value]
    messages = read_messages(turns, name) if turns else []
    if not messages or messages[-1]["role"] != ASSISTANT or messages[:-1] not in ([], before):
        raise ValueError(f'"{name}" is not one message of the assistant')
    if not messages[-1]["content"].strip() and "tool_calls" not in messages[-1]:
        raise ValueError(f'"{name}" is empty')
    return messages[-1]


def with_system(fields: Fields, messages: Messages) -> Messages:
    """Put the row's system message, if any, before a conversation."""
    system = fields.text("system")
    has_own = bool(messages) and messages[0]["role"] == SYSTEM
    if not system.strip() or (has_own and messages[0]["content"].strip() == system.strip()):
        return messages
    if has_own:
        raise ValueError(f'two system messages: "{fields.name("system")}" and the first turn')
    return [{"role": SYSTEM, "content": system}, *messages]


def join_input(instruction: str, input: str) -> str:
    """Join an instruction and its input, if any, with a blank line between them."""
    return f"{instruction}\n\n{input}" if input else instruction


def read_history(fields: Fields) -> Messages:
    """Read the earlier turns of a row as [[user, assistant], ...]."""
    pairs = fields.value("history") or []
    if not isinstance(pairs, list) or not all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair) for pair in pairs
    ):
        raise ValueError('"history" is not a list of [user, assistant]')
    return check_turns(read_messages(pairs, "history"), "history") if pairs else []


def request(fields: Fields, *, strict: bool = False) -> Text:
    """Read the prompt of a row: system, history, and the request from all the columns that it is written in.

    Args:
        fields: The row.
        strict: Whether a conversation as prompt must take turns.
    """
    main = next((role for role in ("prompt", "instruction") if role in fields), None)
    material = [text for role in ("input", "context") if (text := fields.text(role)).strip() not in ("", *NO_INPUT)]
    if main and isinstance(fields.value(main), list):
        prompt = as_prompt(conversation_field(fields, main, strict=strict), ends_in_tool=True)
        messages = prompt if isinstance(prompt, list) else [{"role": USER, "content": prompt}]
        text = "\n\n".join([request_text(messages), *material])
        return as_prompt(with_system(fields, with_request(messages, text)), ends_in_tool=True)  # type: ignore[arg-type]
    parts = [fields.text(main, required=True)] if main else []
    parts += material
    if "question" in fields or not parts:
        parts.append(fields.text("question" if "question" in fields else fields.roles[0], required=not main))
    text = "\n\n".join(filter(str.strip, parts))
    if main == "prompt" and (transcript := open_transcript(text)) is not None:
        return as_prompt(with_system(fields, split_transcript(transcript, fields.name("prompt"))))
    return as_prompt(with_system(fields, [*read_history(fields), {"role": USER, "content": text}]))


def tools_field(fields: Fields) -> Row:
    """Read the functions that the assistant may call, for `Content.more`."""
    tools = fields.optional("tools", read_tools)
    return {"tools": tools} if tools else {}


def message_fields(message: Message) -> Row:
    """Return what an assistant's message holds beside its content, for `Content.more`."""
    rest = {key: value for key, value in message.items() if key not in ("role", "content", "reasoning_content")}
    reasoning = message.get("reasoning_content")
    return ({"reasoning": reasoning} if reasoning else {}) | ({"response_fields": rest} if rest else {})


def single(fields: Fields, prompt: Text, answer: Message | None) -> list[Content]:
    """Return the content of a prompt with or without a response, and what the row holds of the response."""
    message = dict(answer or {})
    if answer is not None:
        for role, name in (("reasoning", "reasoning_content"), ("weight", "weight"), ("tool_calls", "tool_calls")):
            if name not in message and (value := fields.value(role)) not in (None, "", []):
                message[name] = value
    label = fields.value("label") if answer is not None else None
    more = message_fields(message) | tools_field(fields) | ({} if label is None else {"label": label})
    return [Content((prompt, message.get("content")), more)]
