"""The rows that others were made from: in the given files, in the inputs of these, and in the inputs of those.

A row names its parents and its seed. Rows of ours are looked up where their line stands (`rows.Index`). An input of
somebody else is read once, and the rows that are looked for are kept.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from datagen.engine.output import read_meta
from datagen.errors import InputError
from datagen.records.files import open_input
from datagen.records.record import Row
from datagen.report.rows import Index, read_index, row_at
from datagen.report.similarity import seed_of
from datagen.select.subjects import Subject, read_any

LONGEST = 12
"""Rows of a history."""


class Ancestor(NamedTuple):
    """A row, and where it stands."""

    row: Row
    file: str


class Ancestry:
    """The rows of files, and of everything that these were made from, as far as it is still there.

    Args:
        indexes: The given files, by their paths.
        metas: What x.meta.json says of each of them.
    """

    def __init__(self, indexes: Mapping[Path, Index], metas: Mapping[Path, Row]) -> None:
        self._indexes = dict(indexes)
        self._foreign: list[Path] = []
        self._rows: dict[str, Ancestor] = {}
        waiting = [place for path, meta in metas.items() if (place := input_of(path, meta))]
        while waiting:
            path = waiting.pop(0)
            if path in self._indexes or path in self._foreign:
                continue
            if meta := read_meta(path.with_suffix(".meta.json")):
                self._indexes[path] = read_index(path)
                waiting += [place] if (place := input_of(path, meta)) else []
            else:
                self._foreign.append(path)

    def look_for(self, rows: Iterable[Row]) -> None:
        """Read the inputs of others once, for the seeds and parents of these rows and of their ancestors."""
        names = {seed_of(row) for row in rows} | {last for row in rows if (last := self._missing(row))}
        names = {name for name in names if name and self._of_ours(name) is None}
        for path in self._foreign if names else ():
            try:
                with open_input(str(path)) as file:
                    for item in read_any(str(path), file).read():
                        if isinstance(item, Subject) and item.id in names:
                            self._rows.setdefault(item.id, Ancestor({**item.row, "meta": {}}, path.name))
            except InputError:
                continue  # it has changed, and holds no rows now

    def _of_ours(self, name: str) -> Ancestor | None:
        """Look a row up in the files of ours."""
        for path, index in self._indexes.items():
            if (position := index.find(name)) and (row := row_at(position)):
                return Ancestor(row, path.name)
        return None

    def row(self, name: str) -> Ancestor | None:
        """Return the row with this id, if it is known."""
        return self._rows.get(name) or self._of_ours(name)

    def history(self, row: Row) -> list[Ancestor]:
        """Return the rows that a row was made from, its seed first: the first parent, its first parent, and so on."""
        steps: list[Ancestor] = []
        seen = {str(row.get("id"))}
        while (name := parent_of(row)) and name not in seen and len(steps) < LONGEST:
            step = self.row(name)
            if step is None:
                break
            seen.add(name)
            steps.append(step)
            row = step.row
        return steps[::-1]

    def _missing(self, row: Row) -> str:
        """Return the id of the oldest ancestor of a row, if it is in no file of ours."""
        oldest = next((step.row for step in self.history(row)), row)
        return parent_of(oldest)


def parent_of(row: Row) -> str:
    """Return the id of the first row that a row was made from; "" if it names none."""
    meta = row.get("meta")
    parents = meta.get("parents") if isinstance(meta, dict) else None
    return str(parents[0]) if isinstance(parents, list) and parents else ""


def input_of(path: Path, meta: Row) -> Path | None:
    """Return the input of an output, if it is still there; its name may count from the folder of the output."""
    name = str(meta["run"].get("input") or "")
    places = [Path(name), path.parent / name] if name else []
    return next((place for place in places if place.is_file()), None)
