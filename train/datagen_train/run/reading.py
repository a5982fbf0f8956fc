"""Reading the rows of a run: what cannot be used is kept in a file, each line with its reason."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, BinaryIO

from datagen.errors import InputError, nothing_usable
from datagen.records.files import dump_line
from datagen.records.makers import makers
from datagen.records.reader import Kind, Reader
from datagen.records.record import BadLine
from datagen_train.data.split import Account
from datagen_train.run.progress import Terminal

BAD_LINES_SHOWN = 5


def open_reader(
    name: str, file: BinaryIO, kinds: Sequence[Kind[Any]], shape: str | None, mapping: Mapping[str, str]
) -> Reader[Any]:
    """Open a reader of the first kind of rows that the file holds.

    Raises:
        InputError: It holds none of them; the message is about the first.
    """
    problems = []
    for kind in kinds:
        try:
            return Reader(name, file, kind, shape, mapping)
        except InputError as problem:
            problems.append(problem)
    raise problems[0]


def read_usable(
    reader: Reader[Any], dropped: BinaryIO, limit: int | None, account: Account, terminal: Terminal
) -> list[Any]:
    """Return the rows, at most `limit`; count them, and write lines that cannot be used to `dropped`.

    Raises:
        InputError: No row can be used.
    """
    rows: list[Any] = []
    for item in reader.read():
        if isinstance(item, BadLine):
            account.unreadable += 1
            account.problems[item.reason] += 1
            dropped.write(dump_line(asdict(item)))
            if account.unreadable <= BAD_LINES_SHOWN:
                terminal.say(f"{item} (skipped)")
        elif limit is None or len(rows) < limit:
            rows.append(item)
            terminal.count(len(rows))
    for note in reader.account.lines():
        terminal.say(note)
    account.read = len(rows) + account.unreadable
    account.makers.update(name for row in rows for name in set(makers(row.meta)))
    if not rows:
        raise nothing_usable(reader.name, account.losses())
    return rows
