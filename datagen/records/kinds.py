"""The kind of a file: by its bytes first, then by its name; text comes last, and only for text.

What is no file of rows is refused by name, with the way out. Nothing here runs code that a file holds: no pickle is
loaded, no script of a data set is run.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import BinaryIO, NamedTuple

from datagen.errors import InputError
from datagen.records.columns import normal_name, role_names
from datagen.records.folders import ManyFiles
from datagen.records.hub import HubRows
from datagen.records.lines import BOM, Line, first_lines, is_array, is_json, json_lines, raw_lines, text_lines
from datagen.records.packed import packing_of, unpacked
from datagen.records.record import Row
from datagen.records.tables import (
    arrow_file_lines,
    arrow_stream_lines,
    cells_of,
    csv_lines,
    delimiter_of,
    parquet_lines,
)

HEAD = 1 << 16
"""Bytes from the start of a file that tell its kind."""
READ = Callable[[str, BinaryIO, str], Iterator[Line]]
"""Takes the name of a file, the file, and the field that text without a field becomes."""


class FileKind(NamedTuple):
    """A kind of file."""

    name: str
    """With its article, for messages."""
    read: READ | None
    """None: such a file holds no rows."""
    starts: tuple[bytes, ...] = ()
    """The first bytes of such a file."""
    endings: tuple[str, ...] = ()
    """The endings of the names of such files, if their bytes are not enough."""
    way_out: str = ""
    """What to do with a file that is not read."""


TEXT = FileKind("text", lambda name, file, key: text_lines(file, key))
JSON = FileKind("JSON", json_lines)
CSV = FileKind("CSV", csv_lines, endings=(".csv", ".tsv", ".tab"))
SAVE = "save its rows as JSON lines, CSV or Parquet"
BZIP2 = tuple(b"BZh%d1AY&SY" % level for level in range(1, 10))
UNPACK = "unpack it and name the file in it"
BY_BYTES = (
    FileKind("Parquet", parquet_lines, (b"PAR1",)),
    FileKind("an Arrow file", arrow_file_lines, (b"ARROW1\0\0",)),
    FileKind("an Arrow stream", arrow_stream_lines, (b"\xff\xff\xff\xff",)),
    FileKind("a zip archive", None, (b"PK\x03\x04", b"PK\x05\x06"), way_out=f"{UNPACK}; save a spreadsheet as CSV"),
    FileKind("a spreadsheet or document of Office", None, (b"\xd0\xcf\x11\xe0",), way_out="save it as CSV"),
    FileKind(
        "a bzip2 archive",
        None,
        tuple(b"BZh%d1AY&SY" % level for level in range(1, 10)),
        way_out="unpack it: bunzip2 -k FILE",
    ),
    FileKind("an xz archive", None, (b"\xfd7zXZ\0",), way_out="unpack it: unxz -k FILE"),
    FileKind("an lz4 archive", None, (b"\x04\x22\x4d\x18",), way_out="unpack it: unlz4 FILE"),
    FileKind("a 7z archive", None, (b"7z\xbc\xaf\x27\x1c",), way_out=UNPACK),
    FileKind("a rar archive", None, (b"Rar!\x1a\x07",), way_out=UNPACK),
    FileKind("an SQLite database", None, (b"SQLite format 3\0",), way_out="save a table as CSV: sqlite3 -csv -header"),
    FileKind("PDF", None, (b"%PDF-",), way_out="save its text as a file of text"),
    FileKind("a pickle", None, tuple(bytes([0x80, n]) for n in range(2, 6)), way_out=f"it can run code; {SAVE}"),
    FileKind("an array of NumPy", None, (b"\x93NUMPY",), way_out=SAVE),
    FileKind("HDF5", None, (b"\x89HDF",), way_out=SAVE),
    FileKind("Avro", None, (b"Obj\x01",), way_out=SAVE),
    FileKind("an image", None, (b"\x89PNG", b"\xff\xd8\xff", b"GIF87a", b"GIF89a"), way_out="rows hold text"),
    FileKind("a program", None, (b"\x7fELF", b"MZ\x90"), way_out="rows hold text"),
    FileKind("XML", None, (b"<?xml",), way_out=SAVE),
    FileKind("UTF-32", None, (b"\xff\xfe\0\0", b"\0\0\xfe\xff"), way_out="rewrite it: iconv -f UTF-32 -t UTF-8 FILE"),
    FileKind("UTF-16", None, (b"\xff\xfe", b"\xfe\xff"), way_out="rewrite it: iconv -f UTF-16 -t UTF-8 FILE"),
)
"""Of two kinds that fit, the first one is meant."""
BY_NAME = (
    CSV,
    FileKind("YAML", None, endings=(".yaml", ".yml"), way_out="write its rows as JSON lines"),
    FileKind("TOML", None, endings=(".toml",), way_out="write its rows as JSON lines"),
    FileKind("XML", None, endings=(".xml",), way_out=SAVE),
    FileKind("HTML", None, endings=(".html", ".htm", ".xhtml"), way_out="pages are read by 'datagen backtranslate'"),
    FileKind("source code", None, endings=(".py", ".sh", ".sql", ".ipynb"), way_out=SAVE),
    FileKind("a pickle", None, endings=(".pkl", ".pickle"), way_out=f"it can run code; {SAVE}"),
)


def kind_of(name: str, file: BinaryIO, *, as_text: bool | None = None) -> FileKind:
    """Return the kind of a file that is not packed.

    Args:
        name: Its name.
        file: The file, seekable.
        as_text: Whether text is to be read line by line, whatever it looks like. False: never. None: if it is no JSON.

    Raises:
        InputError: It holds no rows.
    """
    file.seek(0)
    head = file.read(HEAD)
    ending = PurePath(name).suffix.lower()
    kind = next((kind for kind in BY_BYTES if head.startswith(kind.starts)), JSON if holds_objects(head) else None)
    if kind is None and b"\0" in head:
        raise refused(name, "binary data, or text that is not UTF-8", f"{SAVE}, in UTF-8")
    if as_text and kind in (None, JSON):
        return TEXT
    kind = kind or next((kind for kind in BY_NAME if ending in kind.endings), None)
    kind = kind or (JSON if is_json(file) or not (lines := first_lines(file)) else CSV if is_header(lines[0]) else TEXT)
    kind = JSON if kind is TEXT and as_text is False else kind
    if kind.read is None:
        raise refused(name, kind.name, kind.way_out)
    if as_text:
        raise refused(name, kind.name, "it is no file of text: leave --format out")
    return kind


def refused(name: str, kind: str, way_out: str) -> InputError:
    """Return the error for a file that is not read."""
    return InputError(f"{name}: {kind}; {way_out}")


def holds_objects(head: bytes) -> bool:
    """Tell whether a file starts like JSON, whatever its name is."""
    return re.match(rb'\s*(?:\[\s*)?\{\s*["}]', head.removeprefix(BOM)) is not None


def is_header(raw: bytes) -> bool:
    """Tell whether a line of text names the columns of a table: all of them names, and one of them known."""
    line = raw.decode(errors="replace")
    names = cells_of(line, delimiter_of(line))
    is_known = any(normal_name(name) in role_names() for name in names)
    return len(names) > 1 and is_known and all(map(str.isidentifier, names))


def is_text(name: str, file: BinaryIO) -> bool:
    """Tell whether an input is plain text: each line is a row without fields.

    Raises:
        InputError: Some files of a folder are text, and some are not; for other errors see `kind_of`.
    """
    if isinstance(file, ManyFiles):
        kinds = {is_text(name, part): name for name, part in file.files()}
        if len(kinds) > 1:
            raise InputError(f"{name}: holds text ({kinds[True]}) and rows ({kinds[False]}); name the files one by one")
        return kinds.popitem()[0]
    with unpacked(name, file) as (inner, content):
        return kind_of(inner, content) is TEXT


def file_lines(name: str, file: BinaryIO, text_key: str, *, as_text: bool | None = None) -> Iterator[Line]:
    """Yield the rows of a file of any kind.

    Args:
        name: Its name, for messages and for its ending.
        file: The file, seekable; it is read from its start.
        text_key: The field that a line of text becomes, and an item of a JSON array of strings.
        as_text: See `kind_of`.

    Raises:
        InputError: It holds no rows, is damaged, or needs a library that is not installed.
    """
    if isinstance(file, ManyFiles):
        for own_name, part in file.files():
            for line in file_lines(own_name, part, text_key, as_text=as_text):
                yield line._replace(file=own_name)
        return
    with unpacked(name, file) as (inner, content):
        read = kind_of(inner, content, as_text=as_text).read
        assert read is not None
        yield from read(name, content, text_key)


def count_rows(name: str, file: BinaryIO) -> int | None:
    """Count the lines of a file that are not blank, about the number of its rows; None for a file of another kind."""
    if isinstance(getattr(file, "raw", file), ManyFiles | HubRows):
        return None
    if packing_of(file) or kind_of(name, file) not in (TEXT, JSON) or is_array(file):
        return None
    return sum(1 for _ in raw_lines(file))


def first_row(name: str, file: BinaryIO) -> Row | None:
    """Return the first row of a file that can be used, a line of text under "text"; None if there is none."""
    return next((line.row for line in file_lines(name, file, "text") if line.row is not None), None)
