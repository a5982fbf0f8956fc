"""Rows in a temporary file, for what needs all of them twice: a table knows its columns only after the last row."""

import json
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

from datagen.records.files import dump_line
from datagen.records.record import Row

BATCH = 1_000
"""Rows that are held in memory at once."""


class Spool:
    """Rows on disk, to be read any number of times.

    Args:
        file: Where they go.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.columns: dict[str, None] = {}
        """The names of all columns, in the order in which they came."""
        self.count = 0

    def add(self, row: Row) -> None:
        """Append a row."""
        self._file.write(dump_line(row))
        self.count += 1
        if not row.keys() <= self.columns.keys():
            self.columns |= dict.fromkeys(row)

    def __iter__(self) -> Iterator[Row]:
        self._file.seek(0)
        for line in self._file:
            yield json.loads(line)

    def batches(self) -> Iterator[list[Row]]:
        """Yield the rows in lists of BATCH."""
        rows = iter(self)
        while batch := list(islice(rows, BATCH)):
            yield batch


@contextmanager
def spooled(rows: Iterable[Row], folder: Path | None) -> Iterator[Spool]:
    """Write rows to a file without a name, in `folder` or where temporary files lie; it is gone at the end."""
    with closing(TemporaryFile(dir=folder)) as file:
        spool = Spool(file)
        for row in rows:
            spool.add(row)
        yield spool
