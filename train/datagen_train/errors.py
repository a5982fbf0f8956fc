"""What stops a training run, beyond datagen's own errors."""

from datagen.errors import DatagenError


class CheckFailed(DatagenError):
    """A check before the first step shows a fault that training would not report."""

    exit_code = 2


class TrainingStopped(DatagenError):
    """Training cannot go on: the loss is not a number, the disk is full."""


class Interrupted(DatagenError):
    """Ctrl-C: a checkpoint was written."""

    exit_code = 130


def first_line(error: BaseException) -> str:
    """Return the first line of an error of a library, without its full stop, at most 300 characters."""
    lines = str(error).strip().splitlines()
    return lines[0][:300].rstrip(".") if lines else type(error).__name__
