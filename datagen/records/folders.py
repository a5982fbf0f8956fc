"""Inputs that are no single file: the files of a folder, one after another, in the order of their names.

A folder that the library `datasets` saved holds what its state.json lists. Any other folder holds its files of rows,
also those in folders in it. Hidden files, pages such as README.md, and what datagen writes beside rows are no rows; any
other file is refused, never left out. A folder of several splits is read by one: FOLDER:SPLIT.
"""

import io
import json
import re
from collections.abc import Callable, Collection, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

from datagen.errors import InputError

ENDINGS = re.compile(r"\.(?:jsonl|json|ndjson|csv|tsv|tab|parquet|arrow|txt)(?:\.gz|\.zst)?")
"""How the name of a file of rows ends."""
COMPANIONS = re.compile(
    r"(?:readme|license|licence|citation|notice|dataset_infos?|croissant)\b.*|.*\.(?:meta\.json|rejected\.jsonl)", re.I
)
"""Files that stand beside rows."""
SPLIT = re.compile(r"(?:^|[-_./])(train|test|validation|valid|val|dev|eval)(?=[-_./0-9]|$)", re.I)
"""The name of a split, in the name of a file or of a folder."""
STATE, SPLITS = "state.json", "dataset_dict.json"
"""Files of `datasets`: of a data set, and of one with several splits."""


class ManyFiles(io.RawIOBase):
    """Several files as one input; `records.kinds` reads the rows of each.

    Args:
        names: The names of the files.
        open_file: Opens one of them. What it opens later must be what it opened first.
    """

    def __init__(self, names: list[str], open_file: Callable[[str], BinaryIO]) -> None:
        self.names, self._open = names, open_file

    def files(self) -> Iterator[tuple[str, BinaryIO]]:
        """Yield the name of each file, and the file, open until the next one is asked for."""
        for name in self.names:
            with self._open(name) as file:
                yield name, file

    def digest(self) -> str:
        """Return the SHA-256 of the contents of all files, 64 hex digits."""
        whole = sha256()
        for _, file in self.files():
            file.seek(0)
            part = sha256()
            while block := file.read(1 << 20):
                part.update(block)
            whole.update(part.digest())
        return whole.hexdigest()

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return 0


def folder_and_split(name: str) -> tuple[Path, str] | None:
    """Return a folder and the split that is asked for, "" for none; None if this is the name of no folder."""
    if Path(name).is_dir():
        return Path(name), ""
    folder, _, split = name.rpartition(":")
    return (Path(folder), split) if folder and Path(folder).is_dir() and not Path(name).exists() else None


def files_of(folder: Path, split: str) -> list[str]:
    """Return the names of the files with the rows of a folder.

    Raises:
        InputError: There are none, or there are several splits and none of them is named, or a file may hold no rows.
    """
    if (folder / SPLITS).is_file():
        return files_of(folder / pick_split(folder, split, strings_of(folder / SPLITS, "splits")), "")
    if (folder / STATE).is_file():
        return [str(folder / name) for name in data_files(folder / STATE)]
    paths = [path for path in sorted(folder.rglob("*")) if is_visible(path.relative_to(folder)) and path.is_file()]
    rows = [path for path in paths if not COMPANIONS.fullmatch(path.name)]
    if odd := next((path for path in rows if not ENDINGS.search(path.name.lower())), None):
        raise InputError(f"{odd}: no file of rows, in a folder that is read; move it away, or name one file")
    if not rows:
        raise InputError(f"{folder}: a folder without a file of rows")
    splits: dict[str, list[str]] = {}
    for path in rows:
        words = SPLIT.findall(str(path.relative_to(folder)))
        splits.setdefault(words[-1].lower() if words else "", []).append(str(path))
    if len(splits) == 1 and not split:
        return next(iter(splits.values()))
    return splits[pick_split(folder, split, splits)]


def is_data_set(folder: Path) -> bool:
    """Tell whether the library `datasets` saved a folder."""
    return (folder / STATE).is_file() or (folder / SPLITS).is_file()


def is_visible(path: Path) -> bool:
    """Tell whether no part of a path is hidden."""
    return not any(part.startswith(".") for part in path.parts)


def pick_split(folder: Path, split: str, splits: Collection[str]) -> str:
    """Return the split that was asked for.

    Raises:
        InputError: None was asked for, or one that is not there.
    """
    if split in splits and split:
        return split
    names = ", ".join(name for name in splits if name)
    others = " and other files" if "" in splits else ""
    if not names:
        raise InputError(f"{folder}:{split}: the folder has no splits; leave :{split} out")
    first = next(name for name in splits if name)
    problem = f"no split {split} in it" if split else "several splits in one folder"
    raise InputError(f"{folder}: {problem} ({names}{others}); name one of them, such as {folder}:{first}")


def data_files(path: Path) -> list[str]:
    """Return the names of the files that a state.json of `datasets` lists, each in the folder itself."""
    files = read_object(path).get("_data_files")
    names = [entry.get("filename") for entry in files if isinstance(entry, dict)] if isinstance(files, list) else []
    return plain_names(path, names)


def strings_of(path: Path, key: str) -> list[str]:
    """Return the names under a key of a file of `datasets`."""
    return plain_names(path, read_object(path).get(key))


def plain_names(path: Path, names: Any) -> list[str]:
    """Return names of files or folders beside a file; InputError if they are none, or lead elsewhere."""
    if not isinstance(names, list) or not names:
        raise InputError(f"{path}: names no files; save the data set again")
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise InputError(f"{path}: {name!r} is no name of a file in this folder")
    return names


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file of `datasets`."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: not a JSON object")
    return value
