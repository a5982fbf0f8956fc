"""What ends a run from outside, Ctrl-C and a full disk, told in one line."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from safetensors import SafetensorError

from datagen_train.errors import TrainingStopped
from datagen_train.run.trl_adapter import RunCallback

DISK_FULL = ("No space left", "File too large", "Disk quota", "PytorchStreamWriter", "inline_container", "iostream")
"""What the system, and PyTorch in its place, say when there is no room."""


@contextmanager
def interruptible(watch: RunCallback) -> Iterator[None]:
    """Let the first Ctrl-C end the run at the next step with a checkpoint, and the second the process."""

    def on_signal(*_: object) -> None:
        watch.interrupted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def disk_full_as_one_line() -> Iterator[None]:
    """Turn a full disk into one line."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if any(sign in str(error) for sign in DISK_FULL):
            raise TrainingStopped(
                f"the disk is full: {error}. Free some space; the same command goes on from the last checkpoint"
            ) from error
        raise
