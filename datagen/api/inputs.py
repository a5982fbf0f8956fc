"""What a function of the API reads: a path, or rows in memory, which are kept in a file beside the journal.

The file has the digest of its contents as its name, in .datagen/inputs/. So the same rows are the same input in every
process, and `datagen trace` finds the seed that a row descends from.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, time
from hashlib import sha256
from math import isfinite, isnan
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from datagen.errors import InputError
from datagen.llm.database import JOURNAL_FOLDER, journal_folder
from datagen.records.hub import is_on_hub
from datagen.records.record import Row

BATCH = 1_000
"""Rows of a data frame that become objects of Python at a time."""
DIGEST_LENGTH = 16
NULLS = ("NAType", "NaTType")
"""The types of what pandas has instead of null."""


def input_name(rows: Any, text_key: str, folder: Path) -> str:
    """Return the name of a file that holds the input.

    Args:
        rows: A path, `hf://NAME`, or rows in memory (`iterate`).
        text_key: The field that a text becomes, such as "prompt".
        folder: Holds the journal.

    Raises:
        InputError: It is nothing that has rows, or a value cannot be written as JSON.
    """
    if isinstance(rows, os.PathLike):
        return str(os.fspath(rows))
    if isinstance(rows, str):
        if not is_on_hub(rows) and not Path(rows).exists() and any(character.isspace() for character in rows):
            raise InputError(f"{rows[:60]!r}: no such file; prompts in memory are a list, such as [{rows[:20]!r}]")
        return rows
    return keep(iterate(rows), text_key, folder)


def keep(rows: Iterable[Any], text_key: str, folder: Path) -> str:
    """Write rows to the file that their contents name; return its name."""
    journal_folder(folder)
    inputs = folder / JOURNAL_FOLDER / "inputs"
    inputs.mkdir(exist_ok=True)
    sha = sha256()
    with NamedTemporaryFile(dir=inputs, suffix=".part", delete=False) as file:
        try:
            for number, row in enumerate(rows, 1):
                line = json.dumps(json_row(number, row, text_key), ensure_ascii=True).encode() + b"\n"
                sha.update(line)
                file.write(line)
            place = inputs / f"{sha.hexdigest()[:DIGEST_LENGTH]}.jsonl"
            file.flush()
            os.replace(file.name, place)
        except BaseException:
            os.unlink(file.name)
            raise
    return str(place)


def iterate(rows: Any) -> Iterator[Any]:
    """Yield the rows of a list or another iterable of dicts and texts, a `datasets.Dataset`, a data frame of pandas or
    polars, or a table of pyarrow.

    Raises:
        InputError: It is something else.
    """
    if hasattr(rows, "to_batches"):  # pyarrow.Table
        yield from (row for batch in rows.to_batches() for row in batch.to_pylist())
    elif hasattr(rows, "iter_rows"):  # polars.DataFrame
        yield from rows.iter_rows(named=True)
    elif hasattr(rows, "iloc"):  # pandas.DataFrame
        for start in range(0, len(rows), BATCH):
            yield from rows.iloc[start : start + BATCH].to_dict("records")
    elif isinstance(rows, Mapping):
        names = ", ".join(map(str, list(rows)[:3]))
        raise InputError(f"rows: expected a list of rows, not one object ({names}); of a DatasetDict, take a split")
    elif isinstance(rows, Iterable) and not isinstance(rows, bytes):
        yield from rows
    else:
        raise InputError(f"rows: expected a path, or rows in memory, not {type(rows).__name__}")


def json_row(number: int, row: Any, text_key: str) -> Row:
    """Return a row of the input as JSON values; a text is a row of one field."""
    if isinstance(row, str):
        return {text_key: row}
    if not isinstance(row, Mapping):
        raise InputError(f"row {number}: expected a dict or a text, not {type(row).__name__}")
    try:
        return {str(name): json_value(value) for name, value in row.items()}
    except ValueError as problem:
        raise InputError(f"row {number}: {problem}") from None


def json_value(value: Any) -> Any:
    """Return a value of Python, numpy or pandas as a value of JSON; a number that is none (NaN) is null.

    Raises:
        ValueError: JSON has no such value.
    """
    if type(value).__name__ in NULLS:
        return None
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            if isfinite(value):
                return float(value)
            if isnan(value):
                return None
            raise ValueError("an infinite number, which JSON cannot hold")
        case Mapping():
            return {str(name): json_value(item) for name, item in value.items()}
        case list() | tuple():
            return [json_value(item) for item in value]
        case date() | time():
            return value.isoformat()
    if hasattr(value, "tolist"):  # numpy
        return json_value(value.tolist())
    raise ValueError(f"a value of type {type(value).__name__}, which JSON cannot hold")
