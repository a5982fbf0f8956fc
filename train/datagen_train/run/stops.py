"""What ends a run from outside: a full disk."""

from collections.abc import Iterator
from contextlib import contextmanager

from safetensors import SafetensorError

from datagen_train.errors import TrainingStopped

DISK_FULL = ("No space left", "File too large", "Disk quota", "PytorchStreamWriter", "inline_container", "iostream")
"""Parts of the messages of the system, and of PyTorch, when a disk is full."""


@contextmanager
def disk_full_as_one_line() -> Iterator[None]:
    """Turn the errors of a full disk into one line."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if any(sign in str(error) for sign in DISK_FULL):
            raise TrainingStopped(
                f"the disk is full: {error}. Free some space; the same command goes on from the last checkpoint"
            ) from error
        raise
