"""`datagen convert FILE --to SHAPE`: rows in the shapes that other tools read.

    shape            prompts with responses                       preferences                           documents
    trl              {"prompt", "completion"}, messages           {"prompt", "chosen", "rejected"}      {"text"}
    openai           {"messages"}                                 {"input", "preferred_output", ...}
    alpaca           {"instruction", "input", "output", ...}
    llama-factory    ShareGPT, and dataset_info.json beside it    the same, ranked                      {"text"}
    axolotl          {"messages"}                                 {"messages", "chosen", "rejected"}    {"text"}
    hh                                                            two transcripts
    medicalgpt       {"conversations"}                            {"system", "history", "question", ...} text lines
    audit            a sheet of 200 drawn rows with the four questions of Self-Instruct (arXiv 2212.10560, table 2)

What these shapes cannot hold is told, never bent: a row that does not fit is named and left out. Reading a converted
file again gives the same prompts and answers.
"""

import csv
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from random import Random
from typing import Any, BinaryIO

from datagen.commands.terminal import counts, printable
from datagen.engine.options import option
from datagen.errors import InputError
from datagen.records.files import dump_line, open_input, replace_file, write_json
from datagen.records.lines import json_lines
from datagen.records.reader import DOCUMENTS, KINDS, PREFERENCES, PROMPTS, Kind, Reader
from datagen.records.record import BadLine, Document, Message, Messages, Preference, Record, Row, as_messages

ARGUMENTS = (("input", "A file of rows, or - for standard input."),)
AUDIT_ROWS = 200
"""Self-Instruct, section 3.3."""
QUESTIONS = (
    "Is it a task?",
    "Does the input fit it?",
    "Is the output right and acceptable?",
    "Are all three so?",
)
SHAREGPT = {"system": "system", "user": "human", "assistant": "gpt"}
Made = Row | str
Convert = Callable[[Any], Made]


@dataclass(frozen=True)
class Options:
    """What converting can be told."""

    to: str = option("trl", "The shape: trl, openai, alpaca, llama-factory, axolotl, hh, medicalgpt, audit.")
    output: str | None = option(None, "Where it goes, or - for standard output. [INPUT.SHAPE.jsonl]", short="-o")
    format: str | None = option(None, "What shape the input has. [detected]")
    limit: int | None = option(None, "Read only the first so many rows.", least=1)
    overwrite: bool = option(False, "Replace a file that is there.")
    quiet: bool = option(False, "Say nothing but errors.", short="-q")


def answer(text: str) -> Message:
    return {"role": "assistant", "content": text}


def response_of(row: Record) -> str:
    if row.response is None:
        raise ValueError("no response")
    return row.response


def whole(row: Record) -> Messages:
    """Return prompt and response as one conversation."""
    return [*as_messages(row.prompt), answer(response_of(row))]


def sharegpt(messages: Messages) -> list[dict[str, str]]:
    if any(message["role"] not in SHAREGPT for message in messages):
        raise ValueError("a turn of a role that ShareGPT has not")
    return [{"from": SHAREGPT[message["role"]], "value": message["content"]} for message in messages]


def parted(messages: Messages) -> tuple[str, Messages, str]:
    """Return (system, turns before, last request); raise ValueError if they do not take turns."""
    system = messages[0]["content"] if messages[0]["role"] == "system" else ""
    turns = messages[1:] if system else messages
    if [turn["role"] for turn in turns] != ["user", "assistant"] * (len(turns) // 2) + ["user"]:
        raise ValueError("a conversation that does not take turns")
    return system, turns[:-1], turns[-1]["content"]


def history(turns: Messages) -> list[list[str]]:
    said = [turn["content"] for turn in turns]
    return [list(pair) for pair in zip(said[::2], said[1::2], strict=True)]


def alpaca(row: Record) -> Row:
    system, turns, request = parted(as_messages(row.prompt))
    instruction, given = row.meta.get("instruction"), row.meta.get("input") or ""
    whole_again = isinstance(instruction, str) and (f"{instruction}\n\n{given}" if given else instruction) == request
    told = {"instruction": instruction if whole_again else request, "input": given if whole_again else ""}
    extra = {name: value for name, value in (("system", system), ("history", history(turns))) if value}
    return {**told, "output": response_of(row), **extra}


def transcript(messages: Messages) -> str:
    system, turns, request = parted(messages[:-1])
    said = [*turns, {"role": "user", "content": request}, messages[-1]]
    if system or any(mark in turn["content"] for turn in said for mark in ("\n\nHuman:", "\n\nAssistant:")):
        raise ValueError("a transcript cannot hold a system message, nor turns within a turn")
    names = {"user": "Human", "assistant": "Assistant"}
    return "".join(f"\n\n{names[turn['role']]}: {turn['content']}" for turn in said)


def hh(row: Preference) -> Row:
    asked = as_messages(row.prompt)
    return {name: transcript([*asked, answer(getattr(row, name))]) for name in ("chosen", "rejected")}


def medical_preference(row: Preference) -> Row:
    system, turns, request = parted(as_messages(row.prompt))
    told = {"system": system, "history": history(turns), "question": request}
    return {**told, "response_chosen": row.chosen, "response_rejected": row.rejected}


def one_line(row: Document) -> str:
    if "\n" in row.text.strip():
        raise ValueError("a text of several lines, where a line is a document")
    return row.text.strip()


def factory_preference(row: Preference) -> Row:
    told = {name: {"from": "gpt", "value": getattr(row, name)} for name in ("chosen", "rejected")}
    return {"conversations": sharegpt(as_messages(row.prompt)), **told}


TRL: Mapping[str, Convert] = {
    "prompts": lambda row: {"prompt": as_messages(row.prompt), "completion": [answer(response_of(row))]},
    "preferences": lambda row: {
        "prompt": as_messages(row.prompt), "chosen": [answer(row.chosen)], "rejected": [answer(row.rejected)],
    },
    "documents": lambda row: {"text": row.text},
}  # fmt: skip
SHAPES: Mapping[str, Mapping[str, Convert]] = {
    "trl": TRL,
    "openai": {
        "prompts": lambda row: {"messages": whole(row)},
        "preferences": lambda row: {
            "input": {"messages": as_messages(row.prompt)},
            "preferred_output": [answer(row.chosen)],
            "non_preferred_output": [answer(row.rejected)],
        },
    },
    "alpaca": {"prompts": alpaca},
    "llama-factory": {
        "prompts": lambda row: {"conversations": sharegpt(whole(row))},
        "preferences": factory_preference,
        "documents": TRL["documents"],
    },
    "axolotl": {
        "prompts": lambda row: {"messages": whole(row)},
        "preferences": lambda row: {
            "messages": as_messages(row.prompt), "chosen": answer(row.chosen), "rejected": answer(row.rejected),
        },
        "documents": TRL["documents"],
    },
    "hh": {"preferences": hh},
    "medicalgpt": {
        "prompts": lambda row: {"conversations": sharegpt(whole(row))},
        "preferences": medical_preference,
        "documents": one_line,
    },
}  # fmt: skip


def run(input: str, options: Options) -> int:
    """Convert a file; return the exit code."""
    if options.to not in (*SHAPES, "audit"):
        raise InputError(f"--to {options.to}: expected one of {', '.join(SHAPES)}, audit")
    with open_input(input) as file:
        name = "standard input" if input == "-" else input
        reader = Reader(name, file, kind_of(name, file) if options.format is None else PROMPTS, options.format)
        if options.to == "audit":
            if reader.kind is not PROMPTS:
                raise InputError(f"{name}: holds {reader.kind.name}; an audit is of prompts with responses")
            account = Counter[str]()
            told = converted(reader, lambda row: {"id": row.id, **alpaca(row)}, options, account)
            return write(input, options, ".csv", [audit(list(told))])
        convert = SHAPES[options.to].get(reader.kind.name)
        if convert is None:
            held = ", ".join(SHAPES[options.to])
            raise InputError(f"{name}: holds {reader.kind.name}; {options.to} has a shape for {held} alone")
        account = Counter[str]()
        made = list(converted(reader, convert, options, account))
    code = write(input, options, ".txt" if made and isinstance(made[0], str) else ".jsonl", made)
    note(input, options, reader.kind.name)
    if not options.quiet:
        print(f"{len(made)} rows; left out: {counts(account) or 'none'}", file=sys.stderr)
    return code


def kind_of(name: str, file: BinaryIO) -> Kind[Any]:
    """Tell what a file holds by its first row; text lines are documents."""
    first = next((line.row for line in json_lines(name, file) if line.row is not None), None)
    return next((kind for kind in KINDS if first is not None and kind.detect(first)), DOCUMENTS)


def rows_of(reader: Reader[Any], options: Options) -> Iterator[Any]:
    """Yield the rows; a line that cannot be used is named."""
    read = 0
    for row in reader.read():
        if isinstance(row, BadLine):
            print(f"{printable(row)} (skipped)", file=sys.stderr)
        elif options.limit is None or read < options.limit:
            read += 1
            yield row


def converted(reader: Reader[Any], convert: Convert, options: Options, account: Counter[str]) -> Iterator[Made]:
    for row in rows_of(reader, options):
        try:
            yield convert(row)
        except ValueError as problem:
            account[str(problem)] += 1


def audit(rows: list[Any]) -> str:
    """Draw rows for people to look at, with the four questions as columns."""
    drawn = Random("audit").sample(rows, min(AUDIT_ROWS, len(rows)))
    sheet = StringIO()
    writer = csv.writer(sheet)
    columns = ("id", "instruction", "input", "output")
    writer.writerow([*columns, *QUESTIONS])
    writer.writerows([*(harmless(row[name]) for name in columns), *("" for _ in QUESTIONS)] for row in drawn)
    return sheet.getvalue().rstrip("\r\n")


def harmless(cell: str) -> str:
    """A sheet takes what begins so for a formula and runs it; model output is not to be run."""
    return f"'{cell}" if cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell


def write(input: str, options: Options, ending: str, made: list[Made]) -> int:
    data = b"".join(row.encode() + b"\n" if isinstance(row, str) else dump_line(row) for row in made)
    if options.output == "-" or (options.output is None and input == "-"):
        sys.stdout.buffer.write(data)
        return 0
    path = output_path(input, options, ending)
    if path.exists() and not options.overwrite:
        raise InputError(f"{path}: is there already; choose another -o, or add --overwrite")
    replace_file(path, data)
    if not options.quiet:
        print(f"Rows: {path}", file=sys.stderr)
    return 0


def output_path(input: str, options: Options, ending: str = ".jsonl") -> Path:
    return Path(options.output or f"{Path(input).stem}.{options.to}{ending}")


def note(input: str, options: Options, kind: str) -> None:
    """Tell LLaMA-Factory of the file: it reads no dataset that dataset_info.json does not name."""
    if options.to != "llama-factory" or options.output == "-" or (options.output is None and input == "-"):
        return
    path = output_path(input, options)
    registry = path.with_name("dataset_info.json")
    known = json.loads(registry.read_bytes()) if registry.exists() else {}
    columns = {"messages": "conversations"} | (
        {"chosen": "chosen", "rejected": "rejected"} if kind == PREFERENCES.name else {}
    )
    entry: Row = {"file_name": path.name, "formatting": "sharegpt", "columns": columns}
    entry |= {"ranking": True} if kind == PREFERENCES.name else {}
    if kind == DOCUMENTS.name:
        entry = {"file_name": path.name, "columns": {"prompt": "text"}}
    write_json(registry, {**known, path.stem: entry})
