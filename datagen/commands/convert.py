"""`datagen convert FILE --to SHAPE`: rows in the shapes that other tools read (records/convert.py has the table)."""

import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datagen.commands.terminal import counts, printable
from datagen.engine.options import option
from datagen.errors import InputError
from datagen.records.convert import CONVERTERS, Converted, Converter, audit_sheet, register_dataset
from datagen.records.files import dump_line, open_input, replace_file
from datagen.records.lines import json_lines
from datagen.records.reader import DOCUMENTS, KINDS, PROMPTS, Kind, Reader
from datagen.records.record import BadLine

ARGUMENTS = (("input", "A file of rows, or - for standard input."),)


@dataclass(frozen=True)
class Options:
    """Options of `datagen convert`."""

    to: str = option("trl", "Output format: trl, openai, alpaca, llama-factory, axolotl, hh, medicalgpt, audit.")
    output: str | None = option(None, "Output file, or - for standard output. [INPUT.FORMAT.jsonl]", short="-o")
    format: str | None = option(None, "Format of the input rows. [detected]")
    limit: int | None = option(None, "Read only the first N rows.", least=1)
    overwrite: bool = option(False, "Replace an existing output.")
    quiet: bool = option(False, "Print only errors.", short="-q")


def run(input: str, options: Options) -> int:
    """Convert a file; return the exit code."""
    if options.to not in CONVERTERS:
        raise InputError(f"--to {options.to}: expected one of {', '.join(CONVERTERS)}")
    is_audit = options.to == "audit"
    with open_input(input) as file:
        name = "standard input" if input == "-" else input
        kind: Kind[Any] = PROMPTS
        if options.format is None:  # the first row tells the kind; lines of text are documents
            first = next((line.row for line in json_lines(name, file) if line.row is not None), None)
            kind = next((kind for kind in KINDS if first is not None and kind.detect(first)), DOCUMENTS)
        reader = Reader(name, file, kind, options.format)
        converter = CONVERTERS[options.to].get(kind.name)
        if converter is None:
            kinds = ", ".join(CONVERTERS[options.to])
            raise InputError(f"{name}: holds {kind.name}; {options.to} has a shape for {kinds} alone")
        rows, left_out = convert_rows(reader, converter, options.limit)

    lines = [audit_sheet(rows)] if is_audit else rows
    ending = ".csv" if is_audit else ".txt" if rows and isinstance(rows[0], str) else ".jsonl"
    to_stdout = options.output == "-" or (options.output is None and input == "-")
    path = None if to_stdout else Path(options.output or f"{Path(input).stem}.{options.to}{ending}")
    write(lines, path, options)
    if options.to == "llama-factory" and path is not None:
        register_dataset(path, kind)
    if not options.quiet and not is_audit:
        print(f"{len(rows)} rows; left out: {counts(left_out) or 'none'}", file=sys.stderr)
    return 0


def convert_rows(reader: Reader[Any], converter: Converter, limit: int | None) -> tuple[list[Any], Counter[str]]:
    """Convert the first `limit` rows; also return how many the shape cannot hold, by reason. Bad lines are reported."""
    rows: list[Converted] = []
    left_out = Counter[str]()
    for row in reader.read():
        if isinstance(row, BadLine):
            print(f"{printable(row)} (skipped)", file=sys.stderr)
        elif limit is None or len(rows) + left_out.total() < limit:
            try:
                rows.append(converter(row))
            except ValueError as problem:
                left_out[str(problem)] += 1
    return rows, left_out


def write(lines: list[Converted], path: Path | None, options: Options) -> None:
    """Write rows or lines of text to a file, or to standard output if `path` is None."""
    data = b"".join(line.encode() + b"\n" if isinstance(line, str) else dump_line(line) for line in lines)
    if path is None:
        sys.stdout.buffer.write(data)
        return
    if path.exists() and not options.overwrite:
        raise InputError(f"{path}: exists already; choose another -o, or add --overwrite")
    replace_file(path, data)
    if not options.quiet:
        print(f"Rows: {path}", file=sys.stderr)
