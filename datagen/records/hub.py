"""A data set of the Hugging Face hub as an input: hf://NAME, hf://NAME:SPLIT, hf://NAME@CONFIG:SPLIT.

Its rows are read as a stream through `datasets`, at the commit that the name stands for when it is opened, and kept in
a temporary file, so that they can be read again. No code of the data set is run: `datasets` 5 has no way to do that.
"""

import io
import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any, BinaryIO, cast

from datagen.errors import DatagenError, InputError
from datagen.libraries import import_data
from datagen.records.packed import Stream
from datagen.records.tables import json_value

NAME = re.compile(r"hf:/{1,2}(?P<name>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<config>[^:]+))?(?::(?P<split>.+))?")
"""One slash is what a path makes of two."""
BLOCK = 1 << 16


def is_on_hub(name: str) -> bool:
    """Tell whether a name is that of a data set of the hub."""
    return NAME.fullmatch(name) is not None


def hub_stem(name: str) -> str:
    """Return what the name of an output made from a data set begins with: its last name, and those after it."""
    match = NAME.fullmatch(name)
    assert match
    return "-".join(filter(None, (match["name"].rpartition("/")[2], match["config"], match["split"])))


def open_hub(name: str) -> BinaryIO:
    """Open a data set of the hub; its rows are read as they are asked for.

    Raises:
        InputError: There is no such data set, or it has several configurations or splits and none of them is named.
    """
    match = NAME.fullmatch(name)
    assert match
    datasets = import_data("datasets", f"{name}: to read data sets of the hub")
    hub = import_data("huggingface_hub", f"{name}: to read data sets of the hub")
    repository = match["name"]
    with third_party(name, InputError):
        commit = hub.HfApi().dataset_info(repository).sha
        configs = datasets.get_dataset_config_names(repository, revision=commit)
    config = pick(f"hf://{repository}", "@", "configuration", match["config"], configs)
    with third_party(name, InputError):
        splits = datasets.get_dataset_split_names(repository, config, revision=commit)
    at = f"@{config}" if len(configs) > 1 else ""
    split = pick(f"hf://{repository}{at}", ":", "split", match["split"], splits)
    with third_party(name, InputError):
        rows = datasets.load_dataset(repository, config, split=split, revision=commit, streaming=True).decode(False)
    identity = f"hf://{repository}@{config}:{split}#{commit}"
    return cast(BinaryIO, io.BufferedReader(HubRows(name, identity, rows), BLOCK))


def pick(place: str, mark: str, what: str, asked_for: str | None, names: list[str]) -> str:
    """Return the configuration or split that was asked for, or the only one.

    Raises:
        InputError: It is not there, or none was asked for and there are several.
    """
    if asked_for in names:
        return str(asked_for)
    if asked_for is None and len(names) == 1:
        return names[0]
    problem = f"no {what} {asked_for} in it" if asked_for else f"several {what}s"
    raise InputError(f"{place}: {problem} ({', '.join(names)}); name one of them, such as {place}{mark}{names[0]}")


@contextmanager
def third_party(name: str, kind: type[DatagenError]) -> Iterator[None]:
    """Make whatever the libraries of the hub raise an error of ours: network, rights, damaged files, odd layouts."""
    try:
        yield
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise kind(f"{name}: cannot be read from the hub: {reason}") from error


class HubRows(Stream):
    """The rows of a data set as JSON lines, asked for when they are read, and kept.

    Args:
        name: Its name, for messages.
        identity: What decides the rows: name, configuration, split and commit.
        rows: The rows.
    """

    def __init__(self, name: str, identity: str, rows: Any) -> None:
        self._name, self._identity = name, identity
        self._rows = iter(rows)
        self._spool = tempfile.TemporaryFile()
        self._size = 0

    def digest(self) -> str:
        """Return the SHA-256 of what decides the rows, 64 hex digits."""
        return sha256(self._identity.encode()).hexdigest()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET:
            raise io.UnsupportedOperation("a stream has no known end")
        self._place = offset
        return offset

    def readinto(self, buffer: Any) -> int:
        if self._place >= self._size:
            with third_party(self._name, DatagenError):
                row = next(self._rows, None)
            if row is None:
                return 0
            self._spool.seek(self._size)
            self._size += self._spool.write(hub_line(row))
        self._spool.seek(self._place)
        count = self._spool.readinto(buffer)
        self._place += count
        return int(count)

    def close(self) -> None:
        self._spool.close()
        super().close()


def hub_line(row: dict[str, Any]) -> bytes:
    """Return a row as a line of JSON; one with a value that JSON cannot hold becomes a line that is not JSON."""
    try:
        row = {key: json_value(key, value) for key, value in row.items()}
    except ValueError:
        return json.dumps(row, default=str).encode() + b"\n"
    return json.dumps(row).encode() + b"\n"
