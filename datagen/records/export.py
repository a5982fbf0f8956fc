"""Rows as tables: Parquet, CSV, and a folder as the library `datasets` saves it (`datagen convert --to`).

The columns of our own fields have fixed types, whatever the rows hold. `tools` and `tool_calls` are JSON text, since no
two rows need the same keys there; a prompt is a list of messages if that of any row is. Other columns keep
their types where all rows have one, else they are JSON text. A CSV has text alone. `records.tables` reads all of it
again: the same rows, but for numbers in other columns of a CSV, which come back as text.

The types follow from all rows, so rows go to a temporary file first, on the disk of the output; memory holds a batch.
"""

import csv
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from io import TextIOWrapper
from pathlib import Path
from secrets import token_hex
from tempfile import NamedTemporaryFile
from typing import Any

from datagen.errors import InputError
from datagen.libraries import import_data
from datagen.records.files import replacing
from datagen.records.layout import META_KEYS, pack_row
from datagen.records.record import Document, Preference, Record, Row, as_messages
from datagen.records.spool import Spool, spooled

STATE = "state.json"
GROUP = 1 << 24
"""Bytes of the rows in a row group of Parquet, which is held in memory."""
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


def columns_of(spool: Spool) -> list[str]:
    """Return the names of the columns, our own fields first."""
    return [*(key for key in TYPES if key in spool.columns), *(key for key in spool.columns if key not in TYPES)]


def json_text(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False, allow_nan=False)


# CSV


def write_csv(rows: Iterable[Row], path: Path) -> None:
    """Write a CSV in UTF-8: a list or an object is JSON text."""
    with spooled(rows, path.parent) as spool, replacing(path) as file:
        sheet, columns = TextIOWrapper(file, encoding="utf-8", newline=""), columns_of(spool)
        writer = csv.writer(sheet)
        writer.writerow(columns)
        writer.writerows([csv_cell(row.get(key)) for key in columns] for row in spool)
        sheet.detach()


def csv_cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else str(json_text(value))


# Parquet and datasets


class Column:
    """A column of a table of pyarrow: of its type if it is ours, else of the one type that all cells have.

    Args:
        arrow: The module pyarrow.
        key: The name of the column.
    """

    def __init__(self, arrow: Any, key: str) -> None:
        self._arrow, self._kind = arrow, TYPES.get(key)
        text = self._text = arrow.string()
        message = arrow.struct([(name, arrow.float64() if name == "weight" else text) for name in TURN])
        self._kinds = {
            "text": text, "JSON": text, "prompt": text, "messages": arrow.list_(message), "texts": arrow.list_(text),
            "number": arrow.float64(), "numbers": arrow.list_(arrow.float64()), "truth": arrow.bool_(),
            "whole numbers": arrow.list_(arrow.int64()), "meta": arrow.struct([(name, text) for name in META_KEYS]),
        }  # fmt: skip
        self._if_lists = {"prompt": "messages", "reasoning": "texts"}.get(key)
        self.type = self._kinds[self._kind] if self._kind else arrow.null()
        """What holds all cells so far."""

    def widen(self, cells: list[Any]) -> None:
        """Widen the type, so that it holds more cells; where they have no type in common, it is text."""
        if self._if_lists and any(isinstance(cell, list) for cell in cells):
            self._kind, self._if_lists = self._if_lists, None
            self.type = self._kinds[self._kind]
        try:
            if self._kind is None:
                schemas = [self._arrow.schema([("", kind)]) for kind in (self.type, self._arrow.infer_type(cells))]
                self.type = self._arrow.unify_schemas(schemas, promote_options="permissive").field(0).type
            self.array(cells)
        except (self._arrow.ArrowException, TypeError, OverflowError):
            self.type = self._text

    def array(self, cells: list[Any]) -> Any:
        """Return cells as an array; in a column of text, what is none as JSON."""
        if self._kind == "messages":
            cells = conversations(cells)
        if self._kind == "JSON":
            cells = list(map(json_text, cells))
        elif self.type == self._text:
            cells = [cell if isinstance(cell, str) else json_text(cell) for cell in cells]
        return self._arrow.array(cells, self.type)


def conversations(prompts: list[Any]) -> list[Any]:
    """Return prompts as lists of messages, whose calls of tools are JSON text."""
    return [
        None
        if prompt is None
        else [
            {**turn, **({"tool_calls": json_text(turn["tool_calls"])} if "tool_calls" in turn else {})}
            for turn in as_messages(prompt)
        ]
        for prompt in prompts
    ]


def typed_columns(arrow: Any, spool: Spool) -> dict[str, Column]:
    """Return the columns of rows, each with a type that holds all of its cells."""
    columns = {key: Column(arrow, key) for key in columns_of(spool)}
    while True:
        types = [column.type for column in columns.values()]
        for batch in spool.batches():
            for key, column in columns.items():
                column.widen([row.get(key) for row in batch])
        if types == [column.type for column in columns.values()]:
            return columns


def record_batches(rows: Iterable[Row], folder: Path) -> Iterator[Any]:
    """Yield the schema of a table of pyarrow, then its record batches; `folder` holds the rows meanwhile."""
    arrow = import_data("pyarrow", "to write a table")
    with spooled(rows, folder) as spool:
        columns = typed_columns(arrow, spool)
        schema = arrow.schema([(key, column.type) for key, column in columns.items()])
        yield schema
        for batch in spool.batches():
            arrays = [column.array([row.get(key) for row in batch]) for key, column in columns.items()]
            yield arrow.record_batch(arrays, schema=schema)


def write_parquet(rows: Iterable[Row], path: Path) -> None:
    """Write a Parquet file, in row groups of about GROUP bytes."""
    parquet = import_data("pyarrow.parquet", "to write Parquet")
    batches = record_batches(rows, path.parent)
    schema = next(batches)
    with replacing(path) as file, parquet.ParquetWriter(file, schema) as writer:
        for group in groups_of(batches):
            table = import_data("pyarrow", "to write Parquet").Table.from_batches(group, schema)
            writer.write_table(table.combine_chunks())


def groups_of(batches: Iterable[Any]) -> Iterator[list[Any]]:
    """Yield record batches in lists of about GROUP bytes."""
    group: list[Any] = []
    for batch in batches:
        group.append(batch)
        if sum(part.nbytes for part in group) >= GROUP:
            yield group
            group = []
    if group:
        yield group


def write_dataset(rows: Iterable[Row], path: Path) -> None:
    """Write a folder as `Dataset.save_to_disk` does; one that is there is replaced if it is such a folder.

    Raises:
        InputError: Something else is there.
    """
    datasets = import_data("datasets", "to write a folder of datasets")
    ipc = import_data("pyarrow.ipc", "to write a folder of datasets")
    if path.exists() and not (path / STATE).is_file():
        raise InputError(f"{path}: exists and is no data set; choose another -o")
    part = path.with_name(f".{token_hex(8)}.part")
    try:
        with NamedTemporaryFile(dir=path.parent, prefix=".", suffix=".arrow") as file:
            batches = record_batches(rows, path.parent)
            with ipc.new_stream(file, next(batches)) as stream:
                for batch in batches:
                    stream.write_batch(batch)
            file.flush()
            datasets.Dataset.from_file(file.name).save_to_disk(str(part))
        if path.exists():
            shutil.rmtree(path)
        os.replace(part, path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


TABLES: Mapping[str, tuple[str, Callable[[Iterable[Row], Path], None]]] = {
    "parquet": (".parquet", write_parquet),
    "csv": (".csv", write_csv),
    "datasets": ("", write_dataset),
}
"""What `--to` names, to the ending of the output and the function that writes it."""
