"""Whether, and how, calls are collected for batches."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """What the user wants."""

    is_on: bool = False
    """Collect calls for batches. Without it, answers that batches have brought are read all the same."""
    wait: float | None = None
    """Seconds after which what a batch has not answered is sent at once; 0 makes no new batch. None: a run never
    waits."""
