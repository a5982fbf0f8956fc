"""The learning rate over the steps of a run: a linear warm-up to the peak, then the schedule of --schedule.

The library's schedules begin a warm-up at 0, so the first optimiser step changes nothing: a whole iteration of PPO, or
one of the seven steps of a small file. Here every step that is taken has a rate above 0, and one of them has the peak:

    step i of T, i = 0 ... T-1, W of them warm-up:    i < W     (i + 1) / (W + 1)                    times the peak
                                                      i >= W    the schedule at p = (i - W) / (T - W)
"""

from collections.abc import Callable
from math import ceil, cos, pi
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from datagen_train.models.precision import held_in
from datagen_train.run.library_names import overrides
from datagen_train.run.sharded import Sharded

DECAYS: dict[str, Callable[[float], float]] = {
    "cosine": lambda progress: (1 + cos(pi * progress)) / 2,
    "linear": lambda progress: 1 - progress,
    "constant_with_warmup": lambda progress: 1.0,
}
"""Share of the peak rate at a progress from 0 up to 1, which is after the last step."""


def warmup_steps(share: float, steps: int) -> int:
    """Return the number of warm-up steps, rounded up; the last step is none, so that the peak is reached."""
    return min(ceil(share * steps), steps - 1)


def rate_factor(step: int, schedule: str, warmup: int, steps: int) -> float:
    """Return the share of the peak rate at a step that counts from 0."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return DECAYS[schedule]((step - warmup) / (steps - warmup))


@overrides("_run_epoch", "_save")
class Scheduled(Sharded):
    """A trainer with the schedules of this module; the base of every trainer here."""

    lr_scheduler: Any

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        if self.lr_scheduler is None:
            schedule, warmup = self.args.lr_scheduler_type.value, int(self.args.warmup_steps)
            self.lr_scheduler = LambdaLR(
                optimizer or self.optimizer, lambda step: rate_factor(step, schedule, warmup, num_training_steps)
            )
        return self.lr_scheduler

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Take no step where none is left: the library takes one more if it resumes from the last checkpoint."""
        if not self.control.should_training_stop:
            super()._run_epoch(*args, **kwargs)

    def save_in(self, dtype: torch.dtype | None, folder: Path) -> None:
        """Save the trained model, its weights in a data type; None: in that of their training."""
        self.saved_dtype = dtype
        self.save_model(str(folder))
        (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle, and nothing needs it

    def _save(self, *args: Any, **kwargs: Any) -> None:
        with held_in(self.model, self.saved_dtype):
            super()._save(*args, **kwargs)
