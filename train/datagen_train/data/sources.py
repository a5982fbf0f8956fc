"""The files of rows of one run, each with a weight: `rows.jsonl 0.5*more.jsonl`.

A weight says how often the rows of a file are trained on in one epoch: 2 means each of them twice, 0.5 means half of
them, drawn by the seed. What is held out is chosen before that, so no row is on both sides, nor measured twice.
"""

import re
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from datagen.errors import InputError
from datagen.records.files import input_digest, open_input, output_stem
from datagen.records.places import real_path

WEIGHT = re.compile(r"(-?\d+(?:\.\d*)?|-?\.\d+)\*(.+)", re.DOTALL)
Data = str | Sequence[str]
"""What a trainer reads: a file, or several, each with or without a weight."""


def split_weight(spec: str) -> tuple[float, str]:
    """Split `0.5*NAME` into weight and name; without a weight it is 1."""
    match = WEIGHT.fullmatch(spec)
    return (float(match[1]), match[2]) if match else (1.0, spec)


class Source(NamedTuple):
    """A file of rows: its name, or `-` for standard input, and its weight."""

    weight: float
    name: str

    def label(self, what: str) -> str:
        """Write the weight before a name or a digest, unless it is 1."""
        return what if self.weight == 1 else f"{self.weight:g}*{what}"


def parse_sources(data: Data) -> list[Source]:
    """Return the files that are named, with their weights.

    Raises:
        InputError: A weight is not above 0, or a file is named twice.
    """
    sources = [Source(*split_weight(spec)) for spec in ([data] if isinstance(data, str) else data)]
    places = set[Path]()
    for source in sources:
        if source.weight <= 0:
            raise InputError(f"{source.label(source.name)}: a weight is above 0; leave the file out, or raise it")
        if (place := real_path(Path(source.name))) in places:
            raise InputError(f"{source.name}: is named twice; name it once, with a weight: '2*{source.name}'")
        places.add(place)
    return sources


def data_stem(sources: Sequence[Source]) -> str:
    """Return what the name of an output begins with."""
    return "+".join(output_stem(source.name) for source in sources)


class Sources:
    """The files of a run, opened once: what is read must be what their digests say. Use it in a `with`.

    Args:
        data: The names, each with or without a weight.

    Raises:
        InputError: As in `parse_sources`; or a file cannot be read.
    """

    def __init__(self, data: Data) -> None:
        self.listed = parse_sources(data)
        self.rows: list[int] = []
        """Rows of each file, as they are read."""
        self.usable, self.drawn = [0] * len(self.listed), [0] * len(self.listed)
        """Rows of each file that can be trained on, and those of one epoch."""
        with ExitStack() as opened:
            self.files = [opened.enter_context(open_input(source.name)) for source in self.listed]
            self._opened = opened.pop_all()

    def __enter__(self) -> "Sources":
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def __str__(self) -> str:
        """Return the names with their weights, for messages."""
        return ", ".join(source.label(source.name) for source in self.listed)

    @property
    def names(self) -> list[str]:
        return [source.name for source in self.listed]

    def as_dict(self) -> dict[str, Any]:
        """Return the first file as `data` and, where there are several or one with a weight, all of them as `files`."""
        files = [source.label(source.name) for source in self.listed]
        return {"data": self.names[0], **({} if self.is_plain else {"files": files})}

    @property
    def stem(self) -> str:
        """What the name of an output begins with."""
        return data_stem(self.listed)

    @property
    def is_plain(self) -> bool:
        """Is this one file without a weight?"""
        return len(self.listed) == 1 and self.listed[0].weight == 1

    @cached_property
    def digests(self) -> list[str]:
        """The digest of each file."""
        return [input_digest(file) for file in self.files]

    @property
    def identity(self) -> str:
        """Return the digests of all files with their weights; of one file without a weight its digest alone."""
        pairs = zip(self.listed, self.digests, strict=True)
        return ", ".join(source.label(digest) for source, digest in pairs)

    def draw(self, places: Sequence[int], seed: int) -> list[int]:
        """Choose the rows of one epoch, and count them.

        Args:
            places: The numbers of the rows that can be trained on; all rows of all files are numbered in one sequence.
            seed: Of the run.

        Returns:
            Indices into `places`: all rows that are trained on, then those that are trained on once more, and so on.

        Raises:
            InputError: A weight is so low that no row of its file is drawn.
        """
        bounds, copies = list(accumulate(self.rows)), [0] * len(places)
        files = [bisect_right(bounds, place) for place in places]
        for number, source in enumerate(self.listed):
            own = [i for i, file in enumerate(files) if file == number]
            whole, part = divmod(source.weight, 1)
            drawn = set(Random(f"{seed}: rows of file {number}").sample(own, round(part * len(own))))
            if own and not whole and not drawn:
                raise InputError(f"{source.label(source.name)}: no row of {len(own)} is drawn; raise the weight")
            for i in own:
                copies[i] = int(whole) + (i in drawn)
            self.usable[number], self.drawn[number] = len(own), sum(copies[i] for i in own)
        return [i for earlier in range(max(copies, default=0)) for i, count in enumerate(copies) if count > earlier]

    def summary(self) -> str:
        """Say how many rows of each file are trained on in an epoch."""
        return "; ".join(
            f"{source.name}: {self.drawn[number]} rows in an epoch, of {self.usable[number]} to train on "
            f"(weight {source.weight:g})"
            for number, source in enumerate(self.listed)
        )
