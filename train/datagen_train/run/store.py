"""Encoded rows on the disk, made once: every later start, every process, and every run beside it maps them.

    .datagen/encoded/KEY/rows.arrow     the table, an Arrow stream
                        /done.json      its digest, the rows that were dropped, what was counted; written last

`.datagen/` lies beside the folder of the run, as the journal of the other commands does. KEY is a digest of all that
decides the table. One process at a time works on a key; the others wait for it, and find the table. What has no
`done.json`, or another digest than it says, is made again. The KEPT tables that were used last stay.
"""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from typing import Any

import pyarrow as pa

from datagen.errors import DatagenError
from datagen.llm.database import journal_folder, locked
from datagen.records.files import content_digest, replacing, write_json
from datagen_train.data.layouts import Example
from datagen_train.data.table import EncodedRows, EncodeJob, Part, Row, add_up, of_table, schema_of
from datagen_train.run.folder import lock_folder

KEPT = 4
TABLE, DONE = "rows.arrow", "done.json"


def load_or_encode(
    folder: Path, key: str, job: EncodeJob[Row, Example], parts: Iterable[Part], say: Callable[[str], None]
) -> EncodedRows[Example]:
    """Return the encoded rows from the table on the disk; make it first if it is not there.

    Args:
        folder: The table is in its `.datagen/`.
        key: Of the table.
        job: What is to be encoded.
        parts: Encodes it when it is read.
        say: Gets a line about where the rows are from.

    Raises:
        OSError: The disk is full.
    """
    place = journal_folder(folder) / "encoded" / key
    place.mkdir(parents=True, exist_ok=True)
    with locked(place):
        place.mkdir(parents=True, exist_ok=True)  # another run may have removed it meanwhile
        encoded = load(place, job)
        if encoded is None:
            if (place / DONE).exists():
                say(f"{place}: is damaged, so the rows are encoded again")
            encode_into(place, job, parts)
            encoded = load(place, job)
            assert encoded is not None
            say(f"encoded rows: {size_of(place)} in {place}, for the next run on them")
        else:
            say(f"encoded rows: read from {place}")
        os.utime(place)
    remove_old(place.parent)
    return encoded


def encode_into(place: Path, job: EncodeJob[Any, Any], parts: Iterable[Part]) -> None:
    """Write the table, then the mark that it is whole; remove what a killed run has left."""
    for path in place.iterdir():
        path.unlink()
    notes = list[Part]()
    with replacing(place / TABLE) as file, pa.ipc.new_stream(file, schema_of(job.layout)) as stream:
        for part in parts:
            stream.write_batch(part.batch)
            notes.append(part._replace(batch=None))
    dropped, counts = add_up(notes, job)
    by_reason = defaultdict[str, list[int]](list)
    for row, reason in dropped.items():
        by_reason[reason].append(row)
    write_json(place / DONE, {"digest": content_digest(place / TABLE), "dropped": by_reason, "counts": counts})


def load(place: Path, job: EncodeJob[Row, Example]) -> EncodedRows[Example] | None:
    """Map the table; None if it is not there, or not whole."""
    try:
        done = json.loads((place / DONE).read_bytes())
        if done["digest"] != content_digest(place / TABLE):
            return None
        dropped = {row: reason for reason, rows in done["dropped"].items() for row in rows}
        counts = [Counter[str](count) for count in done["counts"]]
    except (OSError, DatagenError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None
    table = pa.ipc.open_stream(pa.memory_map(str(place / TABLE))).read_all()  # reads no page of the ids
    return of_table(job, table, dropped, counts)


def size_of(place: Path) -> str:
    """Return the size of a table, in words."""
    return f"{(place / TABLE).stat().st_size / 1e6:,.1f} MB"


def remove_old(tables: Path) -> None:
    """Remove the tables that were used before the last KEPT; a run that has one mapped keeps it until it ends."""
    with suppress(OSError):  # another run removes them as well
        for place in sorted(tables.iterdir(), key=lambda place: -place.stat().st_mtime)[KEPT:]:
            with suppress(DatagenError), lock_folder(place):  # it is in use
                rmtree(place, ignore_errors=True)
