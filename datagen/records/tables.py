"""Rows of tables: CSV and TSV by the standard library, Parquet and Arrow through pyarrow in batches.

A cell becomes the JSON value that it stands for. An empty cell of a CSV, a null and a NaN are null; a cell of a column
that holds lists or objects (`meta`, `messages`, `tools`) is parsed if it is JSON text. A date is its ISO text.
"""

import csv
import json
from base64 import b64encode
from collections.abc import Iterator
from datetime import date, time, timedelta
from decimal import Decimal
from functools import partial
from math import isfinite, isnan
from typing import Any, BinaryIO

from datagen.errors import InputError
from datagen.libraries import import_data
from datagen.records.lines import LONGEST_LINE, Line, all_lines, first_lines, loads_strictly
from datagen.records.record import Row
from datagen.text import count_of

DELIMITERS = ",;\t|"
BATCH = 1_000
"""Rows that are held in memory at once."""
STRUCTURED = frozenset(
    "messages conversations conversation history instances responses reasonings ranks scores tools tool_calls "
    "meta source_meta".split()
)
"""Columns that hold a list or an object, which may be JSON text."""
TURNS = frozenset("prompt completion chosen rejected".split())
"""Columns that hold a text or a list of messages, which may be JSON text."""
NUMBERS = frozenset("label weight train margin score rank soft_label".split())
"""Columns that hold a number or a truth value, which a CSV can only hold as text."""
LONE_RETURN = "not CSV: a carriage return without a line feed, outside of quotes; convert with tr '\\r' '\\n'"
LONGEST_NAME = 100
"""Characters of the longest name of a column."""


# CSV


def csv_lines(name: str, file: BinaryIO, text_key: str) -> Iterator[Line]:
    """Yield the rows of a CSV or TSV file whose first line names the columns; a row may have line breaks in quotes.

    Raises:
        InputError: The first line does not name the columns, or one name stands there twice.
    """
    lines = first_lines(file)
    if not lines:
        return
    csv.field_size_limit(LONGEST_LINE)
    delimiter = delimiter_of(lines[0].decode(errors="replace"))
    taken: list[bytes] = []
    reader = csv.reader(decoded(file, taken), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        number = reader.line_num + 1
        taken.clear()
        try:
            cells = next(reader)
            problem = ""
        except StopIteration:
            return
        except csv.Error as error:
            cells, problem = [], LONE_RETURN if "new-line character" in str(error) else f"not CSV: {error}"
        raw = b"".join(taken)
        if not problem and not any(cells):
            continue
        if header is None:
            header = column_names(f"{name}:{number}", cells, problem)
            continue
        if not problem:
            problem = cell_problem(cells, header)
        row = None if problem else {key: csv_value(key, cell) for key, cell in zip(header, cells, strict=True)}
        yield Line(number, raw, row, problem)


def decoded(file: BinaryIO, taken: list[bytes]) -> Iterator[str]:
    """Yield all lines as text, and add each to `taken`; bytes that are not UTF-8 become surrogates."""
    for raw in all_lines(file):
        taken.append(raw)
        yield raw.decode(errors="surrogateescape")


def delimiter_of(line: str) -> str:
    """Return the delimiter that parts the names of the columns into most cells."""
    return max(DELIMITERS, key=lambda delimiter: len(cells_of(line, delimiter)))


def cells_of(line: str, delimiter: str) -> list[str]:
    """Return the cells of one line; none of a line that is not CSV by itself."""
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])]
    except csv.Error:
        return []


def column_names(place: str, cells: list[str], problem: str) -> list[str]:
    """Return the names of the columns.

    Raises:
        InputError: The cells of the first line are no names.
    """
    names = [cell.strip() for cell in cells]
    twice = next((cell for cell in names if names.count(cell) > 1), None)
    odd = next((cell for cell in names if not is_name(cell)), None)
    if problem:
        raise InputError(f"{place}: {problem}")
    if odd is not None:
        problem = f'the first line of a table must name its columns (found: "{odd[:LONGEST_NAME]}")'
        raise InputError(f"{place}: {problem}; add a line such as prompt,response")
    if twice is not None:
        raise InputError(f'{place}: two columns are named "{twice}"; rename one')
    return names


def is_name(cell: str) -> bool:
    """Tell whether a cell may be the name of a column: not a number, a sentence or many lines."""
    is_number = cell.replace(".", "", 1).lstrip("-").isdigit()
    return not is_number and len(cell) <= LONGEST_NAME and cell.isprintable() and not cell.endswith(("?", ".", "!"))


def cell_problem(cells: list[str], header: list[str]) -> str:
    """Return why the cells of a line are no row; empty if they are one."""
    if len(cells) != len(header):
        return f"{count_of(len(cells), 'cell')}, where the first line names {len(header)} columns"
    text = "".join(cells)
    if "\0" in text:
        return "holds a NUL byte, which no text does"
    return "not UTF-8" if not text.isascii() and any("\udc80" <= char <= "\udcff" for char in text) else ""


def csv_value(key: str, cell: str) -> Any:
    """Return the JSON value of a cell of text."""
    if not cell:
        return None
    if key in NUMBERS:
        try:
            value = loads_strictly(cell.lower())
        except ValueError:
            return cell
        return value if isinstance(value, int | float) else cell
    return structured(key, cell)


def structured(key: str, text: str) -> Any:
    """Return the list or object that the text of a cell stands for, or the text itself."""
    if key not in STRUCTURED | TURNS | {"reasoning"} or text[:1] not in ("[", "{"):
        return text
    try:
        value = loads_strictly(text)
    except (ValueError, RecursionError):
        return text
    is_meant = key in STRUCTURED or (isinstance(value, list) and all(map(FITS[key in TURNS], value)))
    return value if is_meant else text


def is_turn(value: object) -> bool:
    return isinstance(value, dict) and ("role" in value or "from" in value)


FITS = {True: is_turn, False: lambda value: value is None or isinstance(value, str)}
"""What each item of a list is, in a column of turns, and in that of the reasoning of several answers."""


# Parquet and Arrow


def parquet_lines(name: str, file: BinaryIO, text_key: str) -> Iterator[Line]:
    """Yield the rows of a Parquet file. For errors see `table_lines`."""
    parquet = import_data("pyarrow.parquet", f"{name}: to read Parquet")
    yield from table_lines(name, file, lambda: parquet.ParquetFile(file).iter_batches(batch_size=BATCH))


def arrow_lines(name: str, file: BinaryIO, text_key: str, *, is_stream: bool) -> Iterator[Line]:
    """Yield the rows of an Arrow file, or of an Arrow stream. For errors see `table_lines`."""
    ipc = import_data("pyarrow.ipc", f"{name}: to read Arrow")

    def batches() -> Iterator[Any]:
        if is_stream:
            yield from ipc.open_stream(file)
            return
        table = ipc.open_file(file)
        yield from map(table.get_batch, range(table.num_record_batches))

    yield from table_lines(name, file, batches)


arrow_stream_lines = partial(arrow_lines, is_stream=True)
arrow_file_lines = partial(arrow_lines, is_stream=False)


def table_lines(name: str, file: BinaryIO, batches: Any) -> Iterator[Line]:
    """Yield the rows of record batches.

    Raises:
        InputError: The file is damaged, or two of its columns have one name.
    """
    arrow = import_data("pyarrow", name)
    file.seek(0)
    while file.read(1 << 20):  # to its end, in order: so a file that was changed is noticed
        pass
    file.seek(0)
    number = 0
    try:
        for batch in batches():
            columns = batch.schema.names
            if twice := [column for column in columns if columns.count(column) > 1]:
                raise InputError(f'{name}: two columns are named "{twice[0]}"; rename one')
            for part in (batch.slice(start, BATCH) for start in range(0, batch.num_rows, BATCH)):
                for values in row_values(part):
                    number += 1
                    yield table_line(number, values)
    except (arrow.ArrowException, OSError) as error:
        raise InputError(f"{name}: damaged, after row {number}: {str(error).splitlines()[0]}") from error


def row_values(batch: Any) -> Iterator[Row | str]:
    """Yield the values of each row of a batch, or the reason why they cannot be read."""
    try:
        yield from batch.to_pylist()
    except (ValueError, OverflowError):  # text that is not UTF-8, a date beyond the year 9999
        for place in range(batch.num_rows):
            try:
                yield batch.slice(place, 1).to_pylist()[0]
            except (ValueError, OverflowError) as error:
                yield str(error)


def table_line(number: int, values: Row | str) -> Line:
    """Return the line of one row."""
    if isinstance(values, str):
        return Line(number, b"", None, values)
    try:
        row = {key: json_value(key, value) for key, value in values.items()}
    except ValueError as problem:
        return Line(number, repr(values).encode(), None, str(problem))
    return Line(number, json.dumps(row, ensure_ascii=False).encode(), row, "")


def json_value(key: str, value: Any) -> Any:
    """Return the JSON value of a cell. In an object, what is null is left out: its type has the field, the row not.

    Raises:
        ValueError: It has none.
    """
    match value:
        case None | bool() | int():
            return value
        case str():
            return structured(key, value)
        case float():
            if isfinite(value):
                return value
            if isnan(value):
                return None
            raise ValueError(f'"{key}" is infinite, which JSON cannot hold')
        case list():
            return [json_value("", item) for item in value]
        case dict():
            items = {inner: json_value(inner, item) for inner, item in value.items()}
            return {inner: item for inner, item in items.items() if item is not None or inner == "content"}
        case tuple():  # an entry of a map
            return [json_value("", item) for item in value]
        case date() | time():
            return value.isoformat()
        case bytes():
            return bytes_text(value)
        case timedelta() | Decimal():
            return str(value)
    return str(value)


def bytes_text(value: bytes) -> str:
    """Return bytes as text if they are UTF-8, else in base64."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return b64encode(value).decode()
