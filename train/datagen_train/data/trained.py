"""The prompts that a model was trained on, as digests beside the model, so that nobody measures on them unawares.

`run/trained.bin` holds 8 bytes a prompt, sorted: those of this run and those of the model that it started from, which
may be gone by then. A row was trained on if its prompt was, or if the seed of its prompt was: related prompts are on
one side of the split, too (data/split.py).
"""

from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from datagen.llm.local.hub import resolve_model
from datagen.records.record import Document, as_messages, canonical

DIGEST_BYTES = 8


def digests(row: Any) -> Iterator[int]:
    """Yield the digests of a row: of its prompt or text, and of the seed that the prompt was made from."""
    yield digest(row.text if isinstance(row, Document) else as_messages(row.prompt))
    if seed := row.meta.get("seed_id"):
        yield digest({"seed": seed})


def digest(value: object) -> int:
    return int.from_bytes(sha256(canonical(value)).digest()[:DIGEST_BYTES], "little")


def record_of(folder: Path) -> Path:
    """Return the file of a model's folder that holds the digests."""
    return folder / "run" / "trained.bin"


def read_trained(folder: Path) -> set[int]:
    """Return the digests of all that a model was trained on; none if its folder has no record."""
    path = record_of(folder)
    return set(np.fromfile(path, dtype="<u8").tolist()) if path.exists() else set()


def trained_by(spec: str) -> set[int]:
    """Return the digests of all that a model was trained on, by its spec; none for one that is made from nothing."""
    return set() if spec.partition(":")[0] == "tiny" else read_trained(resolve_model(spec))


def write_trained(folder: Path, trained: Iterable[int]) -> None:
    """Write the digests into a model's folder."""
    path = record_of(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.array(sorted(trained), dtype="<u8").tofile(path)


def was_trained_on(row: Any, trained: set[int]) -> bool:
    """Was the prompt of a row trained on, or one that comes from the same seed?"""
    return not trained.isdisjoint(digests(row))
