"""A step on a whole batch, although it is computed in micro-batches, and in several processes.

The library gives each micro-batch the same weight. The last one of an epoch may have fewer rows, and a mean over tokens
is over other numbers of tokens in each: their mean is then not that of the whole batch. Here each has a weight:

    loss of a batch = sum over micro-batches  (rows of the micro-batch / rows of the batch)  times its mean loss

so that batch size, --accumulate and --nproc split a step in any way, and change nothing about it.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer


class WholeBatch(Trainer):
    """Weighs micro-batches by their rows; a subclass whose loss is a mean over rows calls `weigh`."""

    loss_is_scaled_for_ga = True
    whole: tuple[float, float] = (1.0, 1.0)
    """(rows, answer tokens) of the batch of this step, in all processes."""

    def count(self, inputs: dict[str, Any]) -> tuple[int, int]:
        """Return (rows, answer tokens) of a micro-batch; 0 tokens where no loss is a mean over tokens."""
        raise NotImplementedError

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device) -> Any:
        """Fetch the micro-batches of a step, and count them."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        counts = torch.tensor([self.count(inputs) for inputs in batches], device=device).sum(0)
        rows, tokens = self.accelerator.reduce(counts, "sum").tolist()
        self.whole = (rows, tokens)
        return batches, items

    def weigh(self, loss: Tensor, inputs: dict[str, Any]) -> Tensor:
        """Return the part of a micro-batch in the loss of its batch. The library averages gradients over processes."""
        return loss * (self.count(inputs)[0] / self.whole[0] * self.args.world_size)
