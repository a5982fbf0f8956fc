"""The files that a command touches: none that it writes may be one that it reads.

What a command reads is found in the values of its options, whatever they are called: a value is a path, or a spec that
holds one, as in `replay:FILE`, `FILE#FIELD` and `0.5*FOLDER`. So no option can be missing from a list.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations
from pathlib import Path

from datagen.errors import InputError

SEPARATORS = re.compile("[:#=*,@]")
"""What stands between the parts of a spec."""
MAX_SPEC = 1_000
"""Characters of the longest value that can hold a path with its neighbours; a longer one is text."""
STREAMS = {"-": "/dev/stdin"}
"""Names that stand for a file which the shell has opened."""


def real_path(path: Path) -> Path:
    """Follow symlinks: return the place where a file of this name is, or will be."""
    return Path(os.path.realpath(path))


def paths_in(values: Iterable[object]) -> Iterator[Path]:
    """Yield every file or folder that the values of options may name; lists and tables of options are looked into.

    The option `output` is left out: it names what is written.
    """
    for value in values:
        if isinstance(value, Mapping):
            yield from paths_in(inner for name, inner in value.items() if name != "output")
        elif isinstance(value, list | tuple):
            yield from paths_in(value)
        elif isinstance(value, str | Path):
            yield from map(Path, filter(None, spec_parts(STREAMS.get(str(value), str(value)))))


def spec_parts(spec: str) -> Iterator[str]:
    """Yield a value, and whatever stands between two of its separators."""
    yield spec
    if len(spec) <= MAX_SPEC:
        places = [match.start() for match in SEPARATORS.finditer(spec)]
        yield from (spec[start + 1 : end] for start, end in combinations([-1, *places, len(spec)], 2))


def refuse_overlap(written: Iterable[Path], read: Iterable[Path], rows: object = None) -> None:
    """Raise InputError if a file that is to be written is one that is read, or a folder that holds one.

    Two names may be one file: another spelling, a symlink, a hard link.

    Args:
        written: What is to be written.
        read: What is read.
        rows: The input, or several. If one is a folder, nothing is written into it: the next run would read that, too.
    """
    sources = [(path, real_path(path)) for path in read if is_there(path)]
    folders = [real_path(path) for path in paths_in([rows]) if is_there(path) and path.is_dir()]
    for target in written:
        place = real_path(target)
        if folder := next((folder for folder in folders if folder in place.parents), None):
            raise InputError(f"{target}: lies in {folder}, all of which is read; choose another -o")
        for source, origin in sources:
            if place in origin.parents or is_same_file(target, source):
                raise InputError(f"{source}: is read by this command, which would write {target}; choose another -o")


def refuse_bytes(output: Path) -> None:
    """Raise InputError if a name is not UTF-8: the libraries that save a model cannot write there."""
    try:
        str(output).encode()
    except UnicodeEncodeError:
        raise InputError(
            f"-o {output}: the name is not UTF-8, and no model can be saved there; choose another -o"
        ) from None


def is_there(path: Path) -> bool:
    """Is this the name of a file or folder? A long text is not."""
    try:
        return path.exists() and not path.is_char_device()
    except (OSError, ValueError):
        return False


def is_same_file(one: Path, other: Path) -> bool:
    """Are both the names of one file or folder that is there?"""
    try:
        return one.samefile(other)
    except (OSError, ValueError):
        return False
