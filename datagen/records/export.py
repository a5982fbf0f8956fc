"""Rows as tables: Parquet, CSV, and a folder as the library `datasets` saves it (`datagen convert --to`).

The columns of our own fields have fixed types, whatever the rows hold. `tools` and `tool_calls` are JSON text, since no
two rows need the same keys there; a prompt is a list of messages if that of any row is. Other columns keep
their types where all rows have one, else they are JSON text. A CSV has text alone. `records.tables` reads all of it
again: the same rows, but for numbers in other columns of a CSV, which come back as text.
"""

import csv
import io
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from secrets import token_hex
from typing import Any

from datagen.errors import InputError
from datagen.libraries import import_data
from datagen.records.files import replace_file
from datagen.records.layout import META_KEYS, pack_row
from datagen.records.record import Document, Preference, Record, Row, as_messages

STATE = "state.json"
TYPES = {
    "id": "text", "prompt": "prompt", "response": "text", "reasoning": "text", "chosen": "text", "rejected": "text",
    "chosen_reasoning": "text", "rejected_reasoning": "text", "text": "text", "name": "text", "responses": "texts",
    "reasonings": "texts", "ranks": "whole numbers", "scores": "numbers", "margin": "number",
    "soft_label": "number", "weight": "number",
    "label": "truth", "tools": "JSON", "tool_calls": "JSON",
    "meta": "meta", "source_meta": "JSON",
}  # fmt: skip
"""Our own fields, in the order of the columns, and what stands in each."""
TURN = ("role", "content", "reasoning_content", "tool_call_id", "name", "tool_calls", "weight")
"""The fields of a message, in their order."""


def canonical_row(row: Record | Preference | Document) -> Row:
    """Return a row in our own layout; one of another tool keeps its own id, and has no `meta`."""
    if row.meta:
        return pack_row(row.row)
    own = {"id": row.source_id} if row.source_id is not None else {}
    return own | {name: value for name, value in row.row.items() if name not in ("id", "meta")}


def columns_of(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """Return the cells of each column, our own fields first; None where a row has none."""
    keys = dict.fromkeys(key for key in TYPES if any(key in row for row in rows))
    keys |= dict.fromkeys(key for row in rows for key in row)
    return {key: [row.get(key) for row in rows] for key in keys}


def json_text(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False, allow_nan=False)


# CSV


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Write a CSV in UTF-8: a list or an object is JSON text."""
    columns = columns_of(rows)
    sheet = io.StringIO(newline="")
    writer = csv.writer(sheet)
    writer.writerow(columns)
    writer.writerows(zip(*(map(csv_cell, cells) for cells in columns.values()), strict=True))
    replace_file(path, sheet.getvalue().encode())


def csv_cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else str(json_text(value))


# Parquet and datasets


def arrow_table(rows: Sequence[Row]) -> Any:
    """Return rows as a table of pyarrow."""
    arrow = import_data("pyarrow", "to write a table")
    columns = columns_of(rows)
    arrays = {key: arrow_column(arrow, key, cells) for key, cells in columns.items()}
    return arrow.table(arrays)


def arrow_column(arrow: Any, key: str, cells: list[Any]) -> Any:
    """Return the cells of a column as an array: of its type if it is ours, else of the one type that all have."""
    text = arrow.string()
    message = arrow.struct([(name, arrow.float64() if name == "weight" else text) for name in TURN])
    kinds = {
        "text": text, "texts": arrow.list_(text), "number": arrow.float64(), "numbers": arrow.list_(arrow.float64()),
        "whole numbers": arrow.list_(arrow.int64()), "truth": arrow.bool_(), "messages": arrow.list_(message),
        "meta": arrow.struct([(name, text) for name in META_KEYS]),
    }  # fmt: skip
    kind = TYPES.get(key)
    if kind == "prompt":
        kind, cells = ("text", cells) if not any(isinstance(cell, list) for cell in cells) else conversations(cells)
    if key == "reasoning" and any(isinstance(cell, list) for cell in cells):
        kind = "texts"
    if kind == "JSON":
        return arrow.array(list(map(json_text, cells)), text)
    try:
        return arrow.array(cells, kinds[kind] if kind else None)
    except (arrow.ArrowException, TypeError, OverflowError):
        return arrow.array([cell if isinstance(cell, str) else json_text(cell) for cell in cells], text)


def conversations(prompts: list[Any]) -> tuple[str, list[Any]]:
    """Return prompts as lists of messages, whose calls of tools are JSON text."""
    return "messages", [
        None
        if prompt is None
        else [
            {**turn, **({"tool_calls": json_text(turn["tool_calls"])} if "tool_calls" in turn else {})}
            for turn in as_messages(prompt)
        ]
        for prompt in prompts
    ]


def write_parquet(rows: Sequence[Row], path: Path) -> None:
    """Write a Parquet file."""
    parquet = import_data("pyarrow.parquet", "to write Parquet")
    sink = io.BytesIO()
    parquet.write_table(arrow_table(rows), sink)
    replace_file(path, sink.getvalue())


def write_dataset(rows: Sequence[Row], path: Path) -> None:
    """Write a folder as `Dataset.save_to_disk` does; one that is there is replaced if it is such a folder.

    Raises:
        InputError: Something else is there.
    """
    datasets = import_data("datasets", "to write a folder of datasets")
    if path.exists() and not (path / STATE).is_file():
        raise InputError(f"{path}: exists and is no data set; choose another -o")
    part = path.with_name(f".{token_hex(8)}.part")
    try:
        datasets.Dataset(arrow_table(rows)).save_to_disk(str(part))
        if path.exists():
            shutil.rmtree(path)
        os.replace(part, path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


TABLES: Mapping[str, tuple[str, Callable[[Sequence[Row], Path], None]]] = {
    "parquet": (".parquet", write_parquet),
    "csv": (".csv", write_csv),
    "datasets": ("", write_dataset),
}
"""What `--to` names, to the ending of the output and the function that writes it."""
