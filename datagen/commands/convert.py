"""`datagen convert FILE --to SHAPE`: rows in the shapes that other tools read (records/convert.py has the table)."""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, cast

from datagen.commands.terminal import counts
from datagen.engine.options import MAP_HELP, option
from datagen.errors import InputError, nothing_usable, unknown_value
from datagen.printing import printable
from datagen.records.columns import mapped_row, parse_map
from datagen.records.convert import (
    CONVERTERS,
    Converted,
    Target,
    audit_sheet,
    left_out,
    read_registry,
    register_dataset,
    to_text_line,
)
from datagen.records.export import TABLES, canonical_row
from datagen.records.files import check_folder, dump_line, open_input, output_stem, replacing
from datagen.records.kinds import first_row
from datagen.records.places import paths_in, refuse_overlap
from datagen.records.reader import DOCUMENTS, KINDS, PROMPTS, Kind, Reader, kind_of_row
from datagen.records.record import BadLine, Row
from datagen.records.spool import spooled
from datagen.signals import interrupt, on_stop
from datagen.text import count_of

ARGUMENTS = (("input", "A file or a folder of rows, hf://NAME, or - for standard input."),)
SHOWN = 20
"""Rows that are left out are named up to this many."""
COPY: Mapping[str, Target] = dict.fromkeys((kind.name for kind in KINDS), Target(canonical_row))
"""For a table of our own rows: every kind as it is."""


@dataclass(frozen=True)
class Options:
    """Options of `datagen convert`."""

    to: str = option(
        "trl", "Output: trl, openai, alpaca, llama-factory, axolotl, hh, medicalgpt, audit; parquet, csv, datasets."
    )
    output: str | None = option(None, "Output file, or - for standard output. [INPUT.FORMAT.jsonl]", short="-o")
    format: str | None = option(None, "Format of the input rows. [detected]")
    map: str | None = option(None, MAP_HELP)
    limit: int | None = option(None, "Read only the first N rows.", least=1)
    overwrite: bool = option(False, "Replace an existing file, whoever made it; never the input.")
    quiet: bool = option(False, "Print only errors.", short="-q")


@dataclass
class Written:
    """What is known of the rows that are written, once they are."""

    rows: int = 0
    columns: set[str] = field(default_factory=set)

    def count(self, rows: Iterator[Converted]) -> Iterator[Converted]:
        """Yield the rows, and count each."""
        for row in rows:
            self.rows += 1
            if isinstance(row, dict):
                self.columns.update(row)
            yield row


@dataclass
class Left:
    """The lines and rows that are left out: each is named, the first SHOWN on the terminal."""

    reasons: Counter[str] = field(default_factory=Counter)
    unreadable: int = 0
    columns: Counter[str] = field(default_factory=Counter)
    """Rows by what they hold and the shape has no place for."""

    def bad_line(self, bad: BadLine) -> None:
        self.unreadable += 1
        self._name(str(bad))

    def row(self, name: str, line: int, reason: str) -> None:
        self.reasons[reason] += 1
        self._name(f"{name}:{line}: {reason}")

    @property
    def total(self) -> int:
        return self.unreadable + self.reasons.total()

    def _name(self, text: str) -> None:
        if self.total <= SHOWN:
            print(f"{printable(text)} (left out)", file=sys.stderr)

    def __str__(self) -> str:
        """All reasons with their counts."""
        return counts(self.reasons + Counter({"unreadable": self.unreadable} if self.unreadable else {})) or "none"


def run(input: str, options: Options) -> int:
    """Convert a file; return the exit code."""
    if options.to not in (*CONVERTERS, *TABLES):
        raise unknown_value("--to", options.to, (*CONVERTERS, *TABLES))
    path = output_path(input, options)
    if path is not None:
        check_folder(path)
        refuse_overlap([path], paths_in([input]), input)
    left, mapping = Left(), parse_map(options.map)
    with open_input(input) as file:
        name = "standard input" if input == "-" else input
        kind: Kind[Any] = PROMPTS if options.format else kind_of_rows(name, file, mapping)
        reader = Reader(name, file, kind, options.format, mapping)
        targets = COPY if options.to in TABLES else CONVERTERS[options.to]
        if kind.name not in targets:
            kinds = ", ".join(targets)
            raise InputError(f"{name}: holds {kind.name}; {options.to} has a shape for {kinds} alone. {kind.use}")
        target, written = targets[kind.name], Written()
        if path is not None and options.output is None and target.write is to_text_line:
            path = path.with_suffix(".txt")
        if path is not None and path.exists() and not options.overwrite:
            raise InputError(f"{path}: exists already; choose another -o, or add --overwrite")
        registry = read_registry(path) if path is not None and options.to == "llama-factory" else None
        rows = written.count(converted(reader, target, options.limit, left))
        first = next(rows, None)
        if first is not None:
            with on_stop(interrupt):  # what is written so far is removed
                write(chain([first], rows), path, options.to)
    dropped = [
        f'{count_of(count, "row")} with "{column}", for which {options.to} has no place'
        for column, count in sorted(left.columns.items())
    ]
    for line in (*reader.account.lines(), *dropped):
        print(printable(line), file=sys.stderr)
    if left.total > SHOWN:
        print(printable(f"... and {left.total - SHOWN:,} more are left out"), file=sys.stderr)
    if first is None:
        raise nothing_usable(name, str(left) if left.total else "")
    if path is not None and registry is not None:
        register_dataset(path, kind, registry, written.columns)

    if path is not None and not options.quiet:
        print(printable(f"Rows: {path}"), file=sys.stderr)
    if not options.quiet and options.to != "audit":
        print(printable(f"{count_of(written.rows, 'row')}; left out: {left}"), file=sys.stderr)
    return 0


def output_path(input: str, options: Options) -> Path | None:
    """Return the file to write; None for standard output.

    Raises:
        InputError: A table of bytes would go to standard output.
    """
    if options.output == "-" or (options.output is None and input == "-"):
        if options.to in TABLES:
            raise InputError(f"--to {options.to} writes no lines: name its place with -o")
        return None
    ending = TABLES[options.to][0] if options.to in TABLES else ".csv" if options.to == "audit" else ".jsonl"
    middle = "" if ending in (".csv", ".parquet") and options.to in TABLES else f".{options.to}"
    return Path(options.output or f"{output_stem(input)}{middle}{ending}")


def kind_of_rows(name: str, file: BinaryIO, mapping: Mapping[str, str]) -> Kind[Any]:
    """Return the kind of the first row; text and what is of no kind are documents."""
    first = first_row(name, file)
    return PROMPTS if first is None else kind_of_row(mapped_row(first, mapping)) or DOCUMENTS


def converted(reader: Reader[Any], target: Target, limit: int | None, left: Left) -> Iterator[Converted]:
    """Yield the first `limit` rows, converted; those that the shape cannot hold are added to `left`, and bad lines."""
    count = 0
    for row in reader.read():
        if isinstance(row, BadLine):
            left.bad_line(row)
        elif limit is None or count < limit:
            count += 1
            try:
                yield target.write(row)
            except ValueError as problem:
                left.row(reader.name, row.line, str(problem))
            else:
                left.columns.update(left_out(row, target) if target.write is not canonical_row else ())


def write(rows: Iterator[Converted], path: Path | None, to: str) -> None:
    """Write rows or lines of text to a file, or to standard output if `path` is None, one after another."""
    if path is not None and to in TABLES:
        TABLES[to][1](cast(Iterator[Row], rows), path)
        return
    with replacing(path) if path else nullcontext(sys.stdout.buffer) as file:
        if to == "audit":
            with spooled(cast(Iterator[Row], rows), path.parent if path else None) as spool:
                rows = iter([audit_sheet(spool)])
        for row in rows:
            file.write(row.encode() + b"\n" if isinstance(row, str) else dump_line(row))
