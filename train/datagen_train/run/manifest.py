"""The files of a folder that are ours, by a list that lies in it; only these are ever replaced or removed.

What is to be saved is written to a folder of its own first. So its names are known, and on disk, before one of them
appears among the files of others.
"""

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from shutil import rmtree

from datagen.errors import InputError
from datagen.records.files import write_json

LAST, CARD = "config.json", "README.md"
"""Without the config a model cannot be loaded: it is moved last, so that a model is whole or none. And the card."""


class Manifest:
    """The list of our files in a folder.

    Args:
        folder: the folder.
        path: the file that holds the list.
    """

    def __init__(self, folder: Path, path: Path) -> None:
        self.folder, self.path = folder, path

    def names(self) -> list[str]:
        """Return the names, relative to the folder; one that leads out of it is none of ours."""
        try:
            names = json.loads(self.path.read_bytes())["files"]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError, LookupError, RecursionError):
            raise InputError(f"{self.path}: damaged, or not written by datagen; move it away") from None
        return [name for name in names if isinstance(name, str) and self._is_inside(name)]

    def _is_inside(self, name: str) -> bool:
        root = os.path.realpath(self.folder)
        return Path(root) in Path(os.path.realpath(os.path.join(root, os.path.dirname(name))), "file").parents

    def refuse_others(self, names: Iterable[str]) -> None:
        """Raise InputError if a file of one of these names is there and is not ours."""
        ours = self.names()
        for name in names:
            if name not in ours and os.path.lexists(self.folder / name):
                raise InputError(f"{self.folder / name}: is not of this run, so it is not replaced; move it away")

    def move_in(self, source: Path) -> None:
        """Move all files of another folder into this one, and remove that.

        Raises:
            InputError: a file of the same name is there and is not ours; nothing is moved then.
        """
        names = sorted(str(path.relative_to(source)) for path in source.rglob("*") if path.is_file())
        self.refuse_others(names)
        write_json(self.path, {"files": sorted({*self.names(), *names})})
        for name in sorted(names, key=lambda name: name == LAST):
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(source / name, self.folder / name)
        rmtree(source)

    def remove(self) -> None:
        """Remove our files, the list last, and the folders that are empty then."""
        files = [path for name in self.names() if (path := self.folder / name).is_file() or path.is_symlink()]
        for path in sorted(files, key=lambda path: path.name != LAST):
            path.unlink()
        remove_empty({path.parent for path in files} - {self.folder})
        self.path.unlink(missing_ok=True)


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove those of some folders in which nothing is."""
    for folder in folders:
        with suppress(OSError):  # something of somebody else is in it
            folder.rmdir()
