"""Rows in the shapes that other tools read (`datagen convert`).

    shape            prompts with responses                       preferences                           documents
    trl              {"prompt", "completion"}, messages           {"prompt", "chosen", "rejected"}      {"text"}
    openai           {"messages"}                                 {"input", "preferred_output", ...}
    alpaca           {"instruction", "input", "output", ...}
    llama-factory    ShareGPT, and dataset_info.json beside it    the same, ranked                      {"text"}
    axolotl          {"messages"}                                 {"messages", "chosen", "rejected"}    {"text"}
    hh                                                            two transcripts
    medicalgpt       {"conversations"}                            {"conversations", "chosen", ...}      text lines
    audit            a sheet of 200 random rows with the four questions of Self-Instruct (arXiv 2212.10560, table 2)

A row that a shape cannot hold is a ValueError that says why; what a shape has no place for is named by `left_out`.
Reading a converted file again gives the same rows but for that (the tables of shapes read all that is written here).
An answer that is not to be learned (weight 0, a label of false) is never written where it would be.
"""

import csv
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from io import StringIO
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from datagen.errors import InputError
from datagen.records.files import write_json
from datagen.records.lines import loads_strictly
from datagen.records.messages import ASSISTANT, SYSTEM, TOOL, USER
from datagen.records.reader import DOCUMENTS, PREFERENCES, Kind
from datagen.records.record import TURN_FIELDS, Document, Message, Messages, Preference, Record, Row, as_messages
from datagen.records.shapes import join_input
from datagen.records.spool import Spool

AUDIT_ROWS = 200
"""Self-Instruct, section 3.3."""
AUDIT_QUESTIONS = "Is it a task?", "Does the input fit it?", "Is the output right and acceptable?", "Are all three so?"
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
REGISTRY = "dataset_info.json"
"""The file in which LLaMA-Factory looks for its datasets."""
SHAREGPT_ROLES = {SYSTEM: "system", USER: "human", ASSISTANT: "gpt"}
CALL, RESULT = "function_call", "observation"
Converted = Row | str
"""A row, or a line of text."""
Converter = Callable[[Any], Converted]


class Target(NamedTuple):
    """How rows of one kind are written in one shape.

    Args:
        write: Converts a row. Raises ValueError for a row that the shape cannot hold.
        holds: What the shape has a place for besides role and text: names as `contents_of` gives them.
    """

    write: Converter
    holds: frozenset[str] = frozenset()


def contents_of(row: Record | Preference | Document) -> set[str]:
    """Return what a row holds besides texts and roles: fields of its messages, columns of its own, unknown columns."""
    names = {name for name, value in row.extra.items() if value not in (None, "", [], {})}
    if isinstance(row, Document):
        return names
    messages = row.messages if isinstance(row, Record) else as_messages(row.prompt)
    names |= {"reasoning" if key == "reasoning_content" else key for message in messages for key in message}
    thoughts = (row.chosen_reasoning, row.rejected_reasoning) if isinstance(row, Preference) else ()
    columns = {"tools": row.tools, "reasoning": any(thoughts)}
    columns |= {"margin": row.margin is not None} if isinstance(row, Preference) else {"label": row.label is not None}
    return (names | {name for name, value in columns.items() if value}) - {"role", "content"}


def left_out(row: Record | Preference | Document, target: Target) -> list[str]:
    """Return the names of what a row holds and the shape has no place for, to be counted and named."""
    return sorted(contents_of(row) - target.holds)


def assistant(text: str, reasoning: str | None = None) -> Message:
    return {"role": ASSISTANT, "content": text} | ({"reasoning_content": reasoning} if reasoning else {})


def as_conversation(row: Record, *keys: str, learns_all: bool = False) -> Messages:
    """Return prompt and response as one conversation.

    Args:
        row: The row.
        keys: The fields of messages that stay, besides role and text.
        learns_all: Whether the tool that reads the shape trains on every turn of the assistant; else on the last alone.

    Raises:
        ValueError: There is no response, or a turn would be learned that must not be.
    """
    if row.response is None:
        raise ValueError("no response")
    if row.label is False:
        raise ValueError("a label of false, and the answer would be learned as a good one")
    learned = row.messages if learns_all else row.messages[-1:]
    if "weight" not in keys and any(message.get("weight") == 0 for message in learned):
        raise ValueError("a turn of weight 0, which would be learned")
    return [with_keys(message, keys) for message in row.messages]


def with_keys(message: Message, keys: tuple[str, ...]) -> Message:
    return {key: value for key, value in message.items() if key in ("role", "content", *keys)}


def split_turns(messages: Messages) -> tuple[str, list[list[str]], str]:
    """Split a prompt into the system message, the earlier turns as [[user, assistant], ...], and the last request."""
    system = messages[0]["content"] if messages[0]["role"] == SYSTEM else ""
    turns = messages[1:] if system else messages
    if [turn["role"] for turn in turns] != [USER, ASSISTANT] * (len(turns) // 2) + [USER]:
        raise ValueError("a conversation that does not take turns")
    texts = [turn["content"] for turn in turns]
    return system, [list(pair) for pair in zip(texts[:-1:2], texts[1::2], strict=True)], texts[-1]


def tools_of(row: Record | Preference) -> Row:
    return {"tools": list(row.tools)} if row.tools else {}


# Shapes


def sharegpt_turns(messages: Messages, *, calls: bool = False) -> list[dict[str, str]]:
    """Return the turns of ShareGPT; with `calls`, calls of functions as turns of their own (LLaMA-Factory)."""
    turns, before = [], ""
    for message in messages:
        role, text = SHAREGPT_ROLES.get(message["role"]), message["content"]
        if calls and "tool_calls" in message:
            if text.strip():
                raise ValueError("a call with text beside it")
            role, text = CALL, call_text(message["tool_calls"])
        elif calls and message["role"] == TOOL:
            role = RESULT
        if role is None or "tool_calls" in with_keys(message, () if calls else ("tool_calls",)):
            raise ValueError("a turn in a role that ShareGPT does not have")
        if role == before == RESULT:
            raise ValueError("several results of tools in a row")
        turns.append({"from": role, "value": text})
        before = role
    return turns


def call_text(calls: list[Row]) -> str:
    """Return calls as one JSON text; the arguments stay text if an object would not give the same text again."""
    functions = []
    for call in calls:
        arguments = call["function"].get("arguments", "")
        try:
            value = loads_strictly(arguments) if isinstance(arguments, str) else arguments
        except (ValueError, RecursionError):
            value = arguments
        same = isinstance(value, dict) and json.dumps(value, ensure_ascii=False) == arguments
        functions.append({"name": call["function"]["name"], "arguments": value if same else arguments})
    return json.dumps(functions[0] if len(functions) == 1 else functions, ensure_ascii=False)


def bare_tools(row: Record | Preference) -> Row:
    """Return the functions as LLaMA-Factory has them: as JSON text, without their type."""
    tools = [tool["function"] if tool.keys() == {"type", "function"} else tool for tool in row.tools]
    return {"tools": json.dumps(tools, ensure_ascii=False)} if tools else {}


def with_call_ids(messages: Messages) -> Messages:
    """Give every call an id that its result names, as OpenAI wants it; text beside calls may be null."""
    numbered, open_ids = [], list[str]()
    for place, message in enumerate(messages):
        if "tool_calls" in message:
            calls = [{"id": f"call_{place}_{n}", **call} for n, call in enumerate(message["tool_calls"])]
            message, open_ids = {**message, "tool_calls": calls}, [call["id"] for call in calls]
        elif message["role"] == TOOL:
            first = open_ids.pop(0) if open_ids else ""
            message = {"tool_call_id": first, **message}
        numbered.append(message)
    return numbered


def to_trl(row: Record) -> Row:
    messages = as_conversation(replace(row, label=None), *TURN_FIELDS[:-1])
    label = {} if row.label is None else {"label": row.label}
    return {"prompt": messages[:-1], "completion": messages[-1:], **tools_of(row), **label}


def to_trl_preference(row: Preference) -> Row:
    chosen, rejected = assistant(row.chosen, row.chosen_reasoning), assistant(row.rejected, row.rejected_reasoning)
    margin = {} if row.margin is None else {"margin": row.margin}
    return {"prompt": as_messages(row.prompt), "chosen": [chosen], "rejected": [rejected], **tools_of(row), **margin}


def to_openai(row: Record) -> Row:
    messages = with_call_ids(as_conversation(row, *MESSAGE_CALLS, "weight", learns_all=True))
    return {"messages": messages, **tools_of(row), **parallel_calls(row)}


def to_openai_preference(row: Preference) -> Row:
    messages = with_call_ids([with_keys(m, MESSAGE_CALLS) for m in as_messages(row.prompt)])
    return {
        "input": {"messages": messages, **tools_of(row), **parallel_calls(row)},
        "preferred_output": [assistant(row.chosen)],
        "non_preferred_output": [assistant(row.rejected)],
    }


def parallel_calls(row: Record | Preference) -> Row:
    """Return OpenAI's switch for parallel calls, where the row came with it."""
    return {name: row.extra[name] for name in ("parallel_tool_calls",) if name in row.extra}


def to_alpaca(row: Record) -> Row:
    """Split the request into instruction and input again if `meta` holds the two that it was joined from."""
    answer = as_conversation(row, learns_all=True)[-1]["content"]
    system, history, request = split_turns(as_messages(row.prompt))
    instruction, input = row.meta.get("instruction"), row.meta.get("input") or ""
    if not isinstance(instruction, str) or join_input(instruction, input) != request:
        instruction, input = request, ""
    converted = {"instruction": instruction, "input": input, "output": answer}
    return converted | ({"system": system} if system else {}) | ({"history": history} if history else {})


def to_llama_factory(row: Record) -> Row:
    messages = as_conversation(replace(row, label=None), "tool_calls", learns_all=True)
    label = {} if row.label is None else {"kto_tag": row.label}
    return {"conversations": sharegpt_turns(messages, calls=True), **bare_tools(row), **label}


def to_llama_factory_preference(row: Preference) -> Row:
    return {
        "conversations": sharegpt_turns(as_messages(row.prompt), calls=True),
        "chosen": {"from": "gpt", "value": row.chosen},
        "rejected": {"from": "gpt", "value": row.rejected},
        **bare_tools(row),
    }


def to_axolotl(row: Record) -> Row:
    """Write a weight as `train`, the words of axolotl."""
    messages = as_conversation(row, *TURN_FIELDS, learns_all=True)
    trained = [
        {key: value for key, value in message.items() if key != "weight"}
        | ({"train": bool(message["weight"])} if "weight" in message else {})
        for message in messages
    ]
    return {"messages": trained, **tools_of(row)}


def to_hh(row: Preference) -> Row:
    system, history, request = split_turns(as_messages(row.prompt))
    converted = {}
    for name, answer in (("chosen", row.chosen), ("rejected", row.rejected)):
        turns = [*history, [request, answer]]
        texts = [text for turn in turns for text in turn]
        if system or any(mark in text for text in texts for mark in ("\n\nHuman:", "\n\nAssistant:")):
            raise ValueError("a transcript cannot hold a system message, nor turns within a turn")
        converted[name] = "".join(f"\n\nHuman: {user}\n\nAssistant: {reply}" for user, reply in turns)
    return converted


def to_text_line(row: Document) -> str:
    if "\n" in row.text.strip():
        raise ValueError("a text of several lines, where a line is a document")
    return row.text.strip()


MESSAGE_CALLS = ("tool_calls", "tool_call_id", "name")
CALLS = frozenset((*MESSAGE_CALLS, "tools"))
TEXT = Target(lambda row: {"text": row.text})
CONVERTERS: Mapping[str, Mapping[str, Target]] = {
    "trl": {
        "prompts": Target(to_trl, CALLS | {"reasoning", "label"}),
        "preferences": Target(to_trl_preference, CALLS | {"reasoning", "margin"}),
        "documents": TEXT,
    },
    "openai": {
        "prompts": Target(to_openai, CALLS | {"weight", "parallel_tool_calls"}),
        "preferences": Target(to_openai_preference, CALLS | {"parallel_tool_calls"}),
    },
    "alpaca": {"prompts": Target(to_alpaca)},
    "llama-factory": {
        "prompts": Target(to_llama_factory, frozenset(("tool_calls", "tools", "label"))),
        "preferences": Target(to_llama_factory_preference, frozenset(("tool_calls", "tools"))),
        "documents": TEXT,
    },
    "axolotl": {
        "prompts": Target(to_axolotl, CALLS | {"reasoning", "weight"}),
        "preferences": Target(
            lambda row: {
                "messages": [with_keys(message, MESSAGE_CALLS) for message in as_messages(row.prompt)],
                "chosen": assistant(row.chosen),
                "rejected": assistant(row.rejected),
            },
            frozenset(MESSAGE_CALLS),
        ),
        "documents": TEXT,
    },
    "hh": {"preferences": Target(to_hh)},
    "medicalgpt": {
        "prompts": Target(lambda row: {"conversations": sharegpt_turns(as_conversation(row, learns_all=True))}),
        "preferences": Target(
            lambda row: {
                "conversations": sharegpt_turns(as_messages(row.prompt)),
                "chosen": row.chosen,
                "rejected": row.rejected,
            }
        ),
        "documents": Target(to_text_line),
    },
    "audit": {"prompts": Target(lambda row: {"id": row.id, **to_alpaca(row)})},
}
"""Shape to write, then name of the kind, to how its rows are written. The rows of `audit` go into `audit_sheet`."""


def audit_sheet(rows: Spool) -> str:
    """Draw rows for people to check; return them as CSV, with the four questions as empty columns."""
    places = Random("audit").sample(range(rows.count), min(AUDIT_ROWS, rows.count))
    drawn: dict[int, Row] = {place: {} for place in places}
    drawn |= {place: row for place, row in enumerate(rows) if place in drawn}
    sheet = StringIO()
    writer = csv.writer(sheet)
    columns = ("id", "instruction", "input", "output")
    writer.writerow([*columns, *AUDIT_QUESTIONS])
    for row in drawn.values():
        # The text of a model is not to be trusted: a quote keeps a spreadsheet from running a cell as a formula.
        cells = (f"'{row[name]}" if row[name].startswith(FORMULA_STARTS) else row[name] for name in columns)
        writer.writerow([*cells, *("" for _ in AUDIT_QUESTIONS)])
    return sheet.getvalue().rstrip("\r\n")


def read_registry(path: Path) -> Row:
    """Return the dataset_info.json beside a file; InputError if it cannot be added to."""
    registry = path.with_name(REGISTRY)
    try:
        known = json.loads(registry.read_bytes()) if registry.exists() else {}
    except (ValueError, RecursionError):
        known = None
    if not isinstance(known, dict):
        raise InputError(f"{registry}: is not a JSON object, so nothing can be added to it; mend it, or move it away")
    return known


def register_dataset(path: Path, kind: Kind[Any], known: Row, columns: Collection[str]) -> None:
    """Add a file to the dataset_info.json beside it: LLaMA-Factory reads only datasets that this file names.

    Args:
        path: The file.
        kind: The kind of its rows.
        columns: The columns of its rows.
        known: What dataset_info.json holds already.
    """
    entry: Row = {"file_name": path.name, "formatting": "sharegpt", "columns": {"messages": "conversations"}}
    if kind is PREFERENCES:
        entry["columns"] |= {"chosen": "chosen", "rejected": "rejected"}
        entry["ranking"] = True
    elif kind is DOCUMENTS:
        entry = {"file_name": path.name, "columns": {"prompt": "text"}}
    for column in ("tools", "kto_tag") if kind is not DOCUMENTS else ():
        entry["columns"] |= {column: column} if column in columns else {}
    write_json(path.with_name(REGISTRY), {**known, path.stem: entry})
