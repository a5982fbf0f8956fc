"""What a function of the API returns: rows, and the account of how they came about."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datagen.commands.terminal import account_lines, columns, funnel_lines
from datagen.engine.job import Status
from datagen.engine.output import Output
from datagen.engine.shards import NoFiles
from datagen.llm.database import journal_folder
from datagen.printing import printable
from datagen.records.files import dump_line
from datagen.records.record import Row


class Incomplete(UserWarning):
    """A call returned less than what was asked for: short of `n`, at a cap, or candidates failed."""


@dataclass(frozen=True)
class Account:
    """What became of the candidates of a call, and what they cost. Printed, it is the table of the command line."""

    status: Status
    """finished; incomplete: candidates failed, and the same call tries them again; short: of `n`; stopped."""
    message: str
    """What the status means here; empty where there is nothing to say."""
    result: Row
    """`result` of x.meta.json: funnel, usage, spending, the method's table; the same for every call that finishes."""
    run: Row
    """`run` of x.meta.json: times, and the requests of this call."""
    notes: list[str]
    """What is to be known about the input, the servers and the journal."""
    warnings: list[str]
    """What was asked for and not obtained; the function has warned of it (`Incomplete`)."""
    tables: list[list[list[str]]]
    """The method's own tables: rows of cells, the heading first."""

    @property
    def funnel(self) -> Row:
        """asked = kept + rejected + failed + surplus."""
        return dict(self.result["funnel"])

    @property
    def cost(self) -> float | None:
        """Dollars, of all answers that the rows are made from; None where a price is not known."""
        cost: float | None = self.result["usage"]["cost"]
        return cost

    @property
    def requests(self) -> int:
        """How many requests this call has sent; recorded answers need none."""
        return int(self.run["requests"])

    def __str__(self) -> str:
        tables = ["\n".join(columns(table)) + "\n" for table in self.tables if len(table) > 1]
        lines = [*tables, *funnel_lines(self.result["funnel"]), *account_lines(self.result, self.run), *self.notes]
        return printable("\n".join([*lines, *self.warnings]))


class Rows(list[Row]):
    """Rows as a command writes them, a list of dicts; `meta.details` is JSON text (docs/rows.md).

    Args:
        rows: The accepted rows.
        rejected: Rejected and failed rows, with the reason.
        account: How they came about.
        path: The file that holds them; None where no output was named.
    """

    def __init__(self, rows: list[Row], rejected: list[Row], account: Account, path: Path | None) -> None:
        super().__init__(rows)
        self.rejected, self.account, self.path = rejected, account, path


class InMemory(NoFiles):
    """The output of a call that names none: its rows are kept in memory, as the lines that a file would hold."""

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__(folder / name, folder)
        self.lines: list[bytes] = []
        self.rejected_lines: list[bytes] = []

    @contextmanager
    def open_parts(self) -> Iterator[None]:
        journal_folder(self.folder)
        self.rows = self.rejected_rows = 0
        self.lines, self.rejected_lines = [], []
        yield

    def write_row(self, row: Row) -> None:
        super().write_row(row)
        self.lines.append(dump_line(row))

    def write_rejected(self, row: Row) -> None:
        super().write_rejected(row)
        self.rejected_lines.append(dump_line(row))


def collect(output: Output, account: Account) -> Rows:
    """Return the rows of an output, from memory or from its files."""
    if isinstance(output, InMemory):
        return Rows(loads_lines(output.lines), loads_lines(output.rejected_lines), account, None)
    kept, rejected = (path.read_bytes().splitlines() for path in (output.path, output.rejected_path))
    return Rows(loads_lines(kept), loads_lines(rejected), account, output.path)


def loads_lines(lines: list[bytes]) -> list[Row]:
    return [json.loads(line) for line in lines]


def account_in_place(meta: Mapping[str, Any]) -> Account:
    """Return the account of an output that is finished already: nothing was sent."""
    return Account("finished", "", meta["result"], {**meta["run"], "requests": 0}, [], [], [])
