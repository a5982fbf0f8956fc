"""The numbers of each optimiser step for the live lines, long before the first log, which has the means of ten steps.

They stay tensors of the device until a line is drawn, so that no step waits for them.
"""

from collections.abc import Mapping
from time import monotonic
from typing import Any

from transformers import TrainerCallback

from datagen_train.run.progress import Numbers
from datagen_train.run.schedule import Scheduled


class StepCallback(TrainerCallback):
    """A callback that also gets the numbers of each step."""

    def on_step_numbers(self, numbers: Numbers) -> None:
        """Take the loss, the learning rate and, where they are known, the tokens per second of a step."""


class Watched(Scheduled):
    """A trainer whose steps can be watched by a StepCallback."""

    _step_loss: Any = 0.0
    _step_tokens: Any = 0
    """Of the micro-batches of this step, so far."""
    _step_start: float | None = None

    def training_step(self, model: Any, inputs: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        self._step_start = monotonic() if self._step_start is None else self._step_start
        tokens = sum(mask.sum() for name, mask in inputs.items() if name.endswith("attention_mask"))
        loss = super().training_step(model, inputs, *args, **kwargs)
        self._step_loss, self._step_tokens = self._step_loss + loss.detach(), self._step_tokens + tokens
        if self.accelerator.sync_gradients:
            self._publish(monotonic() - self._step_start)
            self._step_loss, self._step_tokens, self._step_start = 0.0, 0, None
        return loss

    def _publish(self, seconds: float) -> None:
        numbers = {"loss": self._step_loss, "learning_rate": self.lr_scheduler.get_last_lr()[0]}
        if not isinstance(self._step_tokens, int):
            numbers["tokens_per_second"] = self._step_tokens / seconds
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, StepCallback):
                callback.on_step_numbers(numbers)
