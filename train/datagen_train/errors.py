"""What stops a training run, beyond datagen's own errors."""

from datagen.errors import DatagenError


class CheckFailed(DatagenError):
    """A check before the first step found what would have gone wrong silently."""

    exit_code = 2


class TrainingStopped(DatagenError):
    """Training cannot go on: the loss is not a number, the disk is full."""


class Interrupted(DatagenError):
    """Ctrl-C: a checkpoint was written."""

    exit_code = 130
