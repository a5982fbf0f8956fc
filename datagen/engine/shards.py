"""Shards: a part of a run on a machine of its own, which records answers and writes no rows.

A run is a replay, so to distribute a run is to fill its journal. Each shard reads the whole input, so that its records
have the ids that they have in the whole run, and asks for every n-th of them. `datagen gather` merges the journals, and
the same command without --shard finds every answer and writes the rows: the only place where rows are written.

A shard leaves the note of a run that has not ended. So the run that follows continues it, and takes the failures of
the shard for those of its own, as it would on one machine.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datagen.engine.method import Method
from datagen.engine.options import RunOptions
from datagen.engine.output import JOURNAL_FILES, Output
from datagen.errors import InputError
from datagen.llm.database import JOURNAL_FOLDER, journal_folder
from datagen.records.record import BadLine, Record, Row


@dataclass(frozen=True)
class Shard:
    """One of several parts of a run; both numbers count from 1."""

    number: int
    total: int

    def __str__(self) -> str:
        return f"{self.number}/{self.total}"

    def take(self, items: Iterator[Record | BadLine]) -> Iterator[Record | BadLine]:
        """Yield every `total`-th record, and all bad lines."""
        place = 0
        for item in items:
            if isinstance(item, BadLine):
                yield item
                continue
            if place % self.total == self.number - 1:
                yield item
            place += 1


def parse_shard(text: str) -> Shard:
    """Parse I/N; raise InputError unless I is from 1 to N."""
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise InputError(f"--shard {text}: expected I/N with I from 1 to N, such as 1/8 to 8/8")
    return Shard(int(match[1]), int(match[2]))


def choose_shard(method: Method, run: RunOptions, *, asks_models: bool) -> Shard | None:
    """Return the shard that a command runs; None without --shard.

    Raises:
        InputError: The records depend on each other, or only the whole run can keep what is asked for.
    """
    if run.shard is None:
        return None
    shard = parse_shard(run.shard)
    refuse_undivided("--shard", method, asks_models=asks_models)
    if run.n is not None:
        raise InputError("--shard with -n: only the whole run knows when it has enough rows; use --limit")
    if run.json:
        raise InputError("--shard with --json: a shard writes no report; the command without --shard does")
    return shard


def refuse_undivided(option: str, method: Method, *, asks_models: bool) -> None:
    """Raise InputError if the records of a method cannot be divided, or if there is nothing to divide."""
    name = f"{method.name} {method.variant}".strip()
    if method.lag is not None or method.endless:
        raise InputError(f"{option}: what {name} asks next depends on the rows before, so it cannot be divided")
    if not asks_models:
        raise InputError(f"{option}: with these options, {name} asks no model, so there is nothing to divide")


class NoFiles(Output):
    """The output of a shard: its rows are counted, and written by the run that follows."""

    @property
    def touched(self) -> list[Path]:
        return [self.folder / JOURNAL_FOLDER / name for name in JOURNAL_FILES]

    def read_meta(self) -> Row | None:
        return None

    def refuse_strangers(self) -> None:
        """Do nothing: no file is written."""

    @property
    def has_lines(self) -> bool:
        return False

    @contextmanager
    def open_parts(self) -> Iterator[None]:
        journal_folder(self.folder)
        self.rows = self.rejected_rows = 0
        yield

    def write_row(self, row: Row) -> None:
        self.rows += 1

    def write_rejected(self, row: Row) -> None:
        self.rejected_rows += 1

    def finish(self, meta: Mapping[str, Any], *, complete: bool) -> None:
        """Do nothing."""
