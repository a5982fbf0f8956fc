"""Encoding the rows of a run: in memory where they are few, else once, into a table on the disk (run/store.py)."""

import os
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datagen
import datagen_train
from datagen.records.record import digest
from datagen_train.data.encode import Encoder
from datagen_train.data.layouts import Example
from datagen_train.data.table import EncodedRows, EncodeJob, Row, in_list, in_memory
from datagen_train.data.workers import encode_parts, process_count
from datagen_train.models.reward_model import tokenizer_digests
from datagen_train.options import TrainOptions
from datagen_train.run.progress import Terminal
from datagen_train.run.reading import file_digests
from datagen_train.run.stops import disk_full_as_one_line
from datagen_train.run.store import load_or_encode

STORED_ROWS, STORED_CHARACTERS = 1_000, 2_000_000
"""From so many rows on, or characters of documents, a table is worth a file."""
LIBRARIES = ("transformers", "tokenizers", "jinja2", "pyarrow")


def encode_all(
    job: EncodeJob[Row, Example],
    key: Callable[[], str],
    folder: Path,
    workers: int | None,
    terminal: Terminal,
) -> EncodedRows[Example]:
    """Encode all rows of a job, or read them as they were encoded before; add to the counters of the job.

    Args:
        job: What is to be encoded.
        key: Returns a digest of what decides the outcome.
        folder: Of the run; the table is beside it.
        workers: Processes that encode; None: as many as there are cores and as pay.
        terminal: Gets the progress.

    Raises:
        TrainingStopped: The disk is full.
    """
    encoded = encode_or_read(job, key, folder, workers, terminal)
    for count, total in zip(job.counts, encoded.counts, strict=True):
        count += total
    return encoded


def encode_or_read(
    job: EncodeJob[Row, Example], key: Callable[[], str], folder: Path, workers: int | None, terminal: Terminal
) -> EncodedRows[Example]:
    """Encode as `encode_all` does, but for what is counted."""
    if not job.layout.columns:
        return in_list(job, terminal.count)
    parts = encode_parts(job, process_count(workers, len(job.rows)), terminal.count)
    place = folder.parent
    if not is_large(job.rows) or not os.access(place, os.W_OK):
        return in_memory(job, parts)
    with disk_full_as_one_line():
        return load_or_encode(place, key(), job, parts, terminal.say)


def is_large(rows: Sequence[Any]) -> bool:
    """Is a table of these rows worth a file?"""
    return len(rows) >= STORED_ROWS or sum(len(getattr(row, "text", "")) for row in rows) >= STORED_CHARACTERS


def encoding_key(tokenizer: Any, encoder: Encoder | None, options: TrainOptions, others: object) -> str:
    """Return a digest of what decides how rows are encoded.

    Args:
        tokenizer: With its chat template.
        encoder: Where the trainer has one.
        options: Those of all trainers.
        others: What only the caller knows, as a JSON value: digests of the files, options of the trainer.
    """
    digests = tokenizer_digests(tokenizer)  # tokenises, so what the backend remembers of a call is the same each time
    backend = getattr(tokenizer, "backend_tokenizer", None)
    form = [type(tokenizer).__name__, tokenizer.special_tokens_map, digests, backend.to_str() if backend else ""]
    read = [options.format, options.map, options.limit, options.max_length, file_digests(options)]
    versions = [code_digest(), *(version(name) for name in LIBRARIES)]
    return digest([form, encoder.settings if encoder else {}, read, versions, others])[:32]


@cache
def code_digest() -> str:
    """Return a digest of this program's code: what another version of it encodes may be something else."""
    roots = [Path(str(package.__file__)).parent for package in (datagen, datagen_train)]
    files = [path for root in roots for path in sorted(root.rglob("*.py"))]
    return digest([path.read_text() for path in files])
