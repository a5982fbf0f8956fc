"""Rows in the shapes that other tools read (`datagen convert`).

    shape            prompts with responses                       preferences                           documents
    trl              {"prompt", "completion"}, messages           {"prompt", "chosen", "rejected"}      {"text"}
    openai           {"messages"}                                 {"input", "preferred_output", ...}
    alpaca           {"instruction", "input", "output", ...}
    llama-factory    ShareGPT, and dataset_info.json beside it    the same, ranked                      {"text"}
    axolotl          {"messages"}                                 {"messages", "chosen", "rejected"}    {"text"}
    hh                                                            two transcripts
    medicalgpt       {"conversations"}                            {"system", "history", "question", ...} text lines
    audit            a sheet of 200 random rows with the four questions of Self-Instruct (arXiv 2212.10560, table 2)

A row that a shape cannot hold is a ValueError that says why; nothing is left out silently. Reading a converted file
again gives the same prompts and answers.
"""

import csv
import json
from collections.abc import Callable, Mapping
from io import StringIO
from pathlib import Path
from random import Random
from typing import Any

from datagen.records.files import write_json
from datagen.records.reader import DOCUMENTS, PREFERENCES, Kind
from datagen.records.record import Document, Message, Messages, Preference, Record, Row, as_messages
from datagen.records.shapes import join_input

AUDIT_ROWS = 200
"""Self-Instruct, section 3.3."""
AUDIT_QUESTIONS = "Is it a task?", "Does the input fit it?", "Is the output right and acceptable?", "Are all three so?"
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
SHAREGPT_ROLES = {"system": "system", "user": "human", "assistant": "gpt"}
Converted = Row | str
"""A row, or a line of text."""
Converter = Callable[[Any], Converted]


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def as_conversation(row: Record) -> Messages:
    """Return prompt and response as one conversation."""
    if row.response is None:
        raise ValueError("no response")
    return [*as_messages(row.prompt), assistant(row.response)]


def split_turns(messages: Messages) -> tuple[str, list[list[str]], str]:
    """Split a prompt into the system message, the earlier turns as [[user, assistant], ...], and the last request."""
    system = messages[0]["content"] if messages[0]["role"] == "system" else ""
    turns = messages[1:] if system else messages
    if [turn["role"] for turn in turns] != ["user", "assistant"] * (len(turns) // 2) + ["user"]:
        raise ValueError("a conversation that does not take turns")
    texts = [turn["content"] for turn in turns]
    return system, [list(pair) for pair in zip(texts[:-1:2], texts[1::2], strict=True)], texts[-1]


def sharegpt_turns(messages: Messages) -> list[dict[str, str]]:
    if any(message["role"] not in SHAREGPT_ROLES for message in messages):
        raise ValueError("a turn in a role that ShareGPT does not have")
    return [{"from": SHAREGPT_ROLES[message["role"]], "value": message["content"]} for message in messages]


def to_alpaca(row: Record) -> Row:
    """Split the request into instruction and input again if `meta` holds the two that it was joined from."""
    system, history, request = split_turns(as_messages(row.prompt))
    instruction, input = row.meta.get("instruction"), row.meta.get("input") or ""
    if not isinstance(instruction, str) or join_input(instruction, input) != request:
        instruction, input = request, ""
    converted = {"instruction": instruction, "input": input, "output": as_conversation(row)[-1]["content"]}
    return converted | ({"system": system} if system else {}) | ({"history": history} if history else {})


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


def to_medicalgpt(row: Preference) -> Row:
    system, history, request = split_turns(as_messages(row.prompt))
    return {
        "system": system,
        "history": history,
        "question": request,
        "response_chosen": row.chosen,
        "response_rejected": row.rejected,
    }


def to_text_line(row: Document) -> str:
    if "\n" in row.text.strip():
        raise ValueError("a text of several lines, where a line is a document")
    return row.text.strip()


TRL: Mapping[str, Converter] = {
    "prompts": lambda row: {"prompt": as_messages(row.prompt), "completion": as_conversation(row)[-1:]},
    "preferences": lambda row: {
        "prompt": as_messages(row.prompt), "chosen": [assistant(row.chosen)], "rejected": [assistant(row.rejected)],
    },
    "documents": lambda row: {"text": row.text},
}  # fmt: skip
CONVERTERS: Mapping[str, Mapping[str, Converter]] = {
    "trl": TRL,
    "openai": {
        "prompts": lambda row: {"messages": as_conversation(row)},
        "preferences": lambda row: {
            "input": {"messages": as_messages(row.prompt)},
            "preferred_output": [assistant(row.chosen)],
            "non_preferred_output": [assistant(row.rejected)],
        },
    },
    "alpaca": {"prompts": to_alpaca},
    "llama-factory": {
        "prompts": lambda row: {"conversations": sharegpt_turns(as_conversation(row))},
        "preferences": lambda row: {
            "conversations": sharegpt_turns(as_messages(row.prompt)),
            "chosen": {"from": "gpt", "value": row.chosen},
            "rejected": {"from": "gpt", "value": row.rejected},
        },
        "documents": TRL["documents"],
    },
    "axolotl": {
        "prompts": lambda row: {"messages": as_conversation(row)},
        "preferences": lambda row: {
            "messages": as_messages(row.prompt), "chosen": assistant(row.chosen), "rejected": assistant(row.rejected),
        },
        "documents": TRL["documents"],
    },
    "hh": {"preferences": to_hh},
    "medicalgpt": {
        "prompts": lambda row: {"conversations": sharegpt_turns(as_conversation(row))},
        "preferences": to_medicalgpt,
        "documents": to_text_line,
    },
    "audit": {"prompts": lambda row: {"id": row.id, **to_alpaca(row)}},
}  # fmt: skip
"""Shape to write, then name of the kind, to the function that converts one row; it raises ValueError for a row that the
shape cannot hold. The rows of `audit` go into `audit_sheet`."""


def audit_sheet(rows: list[Any]) -> str:
    """Draw rows for people to check; return them as CSV, with the four questions as empty columns."""
    drawn = Random("audit").sample(rows, min(AUDIT_ROWS, len(rows)))
    sheet = StringIO()
    writer = csv.writer(sheet)
    columns = ("id", "instruction", "input", "output")
    writer.writerow([*columns, *AUDIT_QUESTIONS])
    for row in drawn:
        # The text of a model is not to be trusted: a quote keeps a spreadsheet from running a cell as a formula.
        cells = (f"'{row[name]}" if row[name].startswith(FORMULA_STARTS) else row[name] for name in columns)
        writer.writerow([*cells, *("" for _ in AUDIT_QUESTIONS)])
    return sheet.getvalue().rstrip("\r\n")


def register_dataset(path: Path, kind: Kind[Any]) -> None:
    """Add a file to the dataset_info.json beside it: LLaMA-Factory reads only datasets that this file names."""
    registry = path.with_name("dataset_info.json")
    known = json.loads(registry.read_bytes()) if registry.exists() else {}
    entry: Row = {"file_name": path.name, "formatting": "sharegpt", "columns": {"messages": "conversations"}}
    if kind is PREFERENCES:
        entry["columns"] |= {"chosen": "chosen", "rejected": "rejected"}
        entry["ranking"] = True
    elif kind is DOCUMENTS:
        entry = {"file_name": path.name, "columns": {"prompt": "text"}}
    write_json(registry, {**known, path.stem: entry})
