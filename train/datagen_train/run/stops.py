"""What ends a run from outside: Ctrl-C, and a full disk."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from safetensors import SafetensorError

from datagen_train.errors import TrainingStopped
from datagen_train.run.trl_adapter import RunCallback

DISK_FULL = ("No space left", "File too large", "Disk quota", "PytorchStreamWriter", "inline_container", "iostream")
"""Parts of the messages of the system, and of PyTorch, when a disk is full."""


@contextmanager
def interruptible(callback: RunCallback) -> Iterator[None]:
    """Let the first Ctrl-C end the run at the next step with a checkpoint, and the second one end the process."""

    def on_signal(*_: object) -> None:
        callback.interrupted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


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
