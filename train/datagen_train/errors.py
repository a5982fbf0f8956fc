"""What stops a training run, beyond datagen's own errors."""

from typing import Any

from datagen.errors import DatagenError
from datagen.signals import INTERRUPTED


class CheckFailed(DatagenError):
    """A check before the first step shows a fault that training would not report."""

    exit_code = 2


class TrainingStopped(DatagenError):
    """Training cannot go on: the loss is not a number, the disk is full."""


class Interrupted(DatagenError):
    """Ctrl-C or another signal to stop: a checkpoint was written."""

    exit_code = INTERRUPTED


class UnusableRow(Exception):
    """A row that cannot be trained on; the message is the reason that is counted."""


class Finished(Exception):
    """Exactly this run is finished: there is nothing to do. It carries the report."""

    def __init__(self, report: dict[str, Any]) -> None:
        super().__init__()
        self.report = report


def first_line(error: BaseException) -> str:
    """Return the first line of an error of a library, without its full stop, at most 300 characters."""
    lines = str(error).strip().splitlines()
    return lines[0][:300].rstrip(".") if lines else type(error).__name__
