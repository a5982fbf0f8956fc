"""The rows of a data set as Parquet: one configuration for each output, each with one schema."""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from datagen.commands.convert import COPY, Left, converted, kind_of_rows
from datagen.errors import nothing_usable
from datagen.publish.secrets import environment_secrets, refuse_secret
from datagen.records.export import write_parquet
from datagen.records.files import open_input
from datagen.records.layout import META_KEYS, is_meta
from datagen.records.lines import json_lines
from datagen.records.reader import Reader
from datagen.records.record import Row

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))
"""What the hub calls the sizes of data sets, by the number of rows below which they are."""


@dataclass(frozen=True)
class Config:
    """The rows of one file in a data set."""

    name: str
    file: str
    """Where they are, from the folder of the data set."""
    kind: str
    """What the rows are, such as samples."""
    rows: int
    columns: list[str]


def config_name(path: Path) -> str:
    """Return the name of the configuration for a file: what the hub takes."""
    return (
        re.sub(r"[^\w.-]+", "-", os.fsencode(path.stem).decode(errors="replace"), flags=re.ASCII).strip("-.") or "rows"
    )


def write_rows(path: Path, name: str, folder: Path) -> Config:
    """Write the rows of an output as Parquet into `folder`/data.

    Raises:
        InputError: A library is missing, no row can be used, or a row holds a key of the environment.
    """
    left, count, columns = Left(), 0, dict[str, None]()
    secrets = environment_secrets()
    with open_input(str(path)) as file:
        kind = kind_of_rows(str(path), file, {})
        reader = Reader(str(path), file, kind, None, {})

        def rows() -> Iterator[Row]:
            nonlocal count
            for row in converted(reader, COPY[kind.name], None, left):
                assert isinstance(row, dict)
                refuse_secret(f"{path}: a row", row, secrets)
                columns.update(dict.fromkeys(row))
                count += 1
                yield row

        stream = rows()
        first = next(stream, None)
        if first is None:
            raise nothing_usable(str(path), str(left) if left.total else "")
        write_parquet(chain([first], stream), folder / "data" / f"{name}.parquet")
    return Config(name, f"data/{name}.parquet", kind.name, count, list(columns))


def write_rejected(path: Path, name: str, folder: Path) -> Config | None:
    """Write rejected rows in the same way, the row that each was made from as JSON text; None if there are none."""
    count, secrets = 0, environment_secrets()

    def rows() -> Iterator[Row]:
        nonlocal count
        with open_input(str(path)) as file:
            for line in json_lines(str(path), file):
                if isinstance(line.row, dict):
                    refuse_secret(f"{path}: a row", line.row, secrets)
                    count += 1
                    yield rejected_row(line.row)

    stream = rows() if path.exists() else iter(())
    first = next(stream, None)
    if first is None:
        return None
    write_parquet(chain([first], stream), folder / "data" / f"{name}.parquet")
    return Config(name, f"data/{name}.parquet", "rejected rows", count, list(rejected_row({})))


def rejected_row(row: Row) -> Row:
    """Return a rejected row with the same columns in each; half a character is written as an escape."""
    cells = {name: whole(row.get(name)) for name in ("status", "reason", "stage", "reply")}
    meta = row["meta"] if is_meta(row.get("meta")) else dict.fromkeys(META_KEYS, "")
    return {**cells, "record": json.dumps(row.get("record")), "meta": {key: whole(meta[key]) for key in META_KEYS}}


def whole(text: Any) -> str:
    """Return a text that UTF-8 can hold; empty for what is none."""
    return text.encode(errors="backslashreplace").decode() if isinstance(text, str) else ""


def size_category(rows: int) -> str:
    """Return what the hub calls a number of rows."""
    return next((name for most, name in SIZES if rows < most), "n>10M")
