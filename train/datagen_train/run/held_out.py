"""Measuring on held-out rows: the mean over all of them, in any number of batches and processes."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import torch
from accelerate.utils import gather_object

from datagen_train.models.sharding import as_many_everywhere
from datagen_train.run.steps import Watched


class OwnBatches:
    """An accelerator as a process sees it that measures batches of its own: what others measure is added later."""

    num_processes = 1

    def __init__(self, accelerator: Any) -> None:
        self._accelerator = accelerator

    def __getattr__(self, name: str) -> Any:
        return getattr(self._accelerator, name)

    def gather(self, values: Any) -> Any:
        return values

    gather_for_metrics = gather


class HeldOut(Watched):
    """Measures on held-out rows, where the best checkpoint can be chosen by any metric.

    The library averages the means of batches: a value then depends on the batch size, and on the rows that processes
    measure twice for their batches to be equal. Here each metric is the mean over all rows or tokens, as `datagen train
    eval` computes it. Processes share the batches.
    """

    accelerator: Any
    _metrics: Any
    measure: Callable[[Any], dict[str, float]] | None = None
    """Answers held-out prompts with a model; returns metrics by name, without "eval_"."""

    def weight(self, name: str, inputs: dict[str, Any]) -> float:
        """Return how many rows or tokens of a batch a metric of it is a mean over."""
        raise NotImplementedError

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Measure the loss and TRL's metrics, then `measure`, in evaluation mode."""
        self.model.eval()
        metrics = {f"eval_{name}": value for name, value in self._means().items()}
        self.log(metrics)
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        if self.measure is not None:
            generated = {f"eval_{name}": value for name, value in self.measure(self.model).items()}
            self.log(generated)
            metrics |= generated
        return metrics

    def _means(self) -> dict[str, float]:
        """Return the means of the metrics over all held-out rows, of all processes."""
        total, weight = defaultdict[str, float](float), defaultdict[str, float](float)
        for name, value, count in chain.from_iterable(gather_object([list(self._measurements())])):
            total[name] += value * count
            weight[name] += count
        return {name: total[name] / weight[name] for name in total if weight[name]}

    def _measurements(self) -> Iterator[tuple[str, float, float]]:
        """Yield the metrics of this process's batches: name, mean, and the number of rows or tokens that it is over."""
        rows: Any = self.eval_dataset
        size, accelerator = self.args.eval_batch_size, self.accelerator
        starts = range(0, len(rows), size)[self.args.process_index :: self.args.world_size]
        passes = as_many_everywhere(starts, 0, self.args.device) if self.is_divided else starts
        self.callback_handler.eval_dataloader = starts  # for the count of batches that is shown
        self.accelerator = OwnBatches(accelerator)
        try:
            for number, start in enumerate(passes):
                batch = [rows[i] for i in range(start, min(start + size, len(rows)))]
                inputs = self._prepare_inputs(self.data_collator(batch))
                with torch.no_grad(), accelerator.autocast():
                    loss = float(self.compute_loss(self.model, inputs))
                values = {"loss": loss, **{name: value for name, (value,) in self._metrics["eval"].items()}}
                self._metrics["eval"].clear()
                if number == len(starts):  # computed for the others' sake
                    break
                yield from ((name, value, self.weight(name, inputs)) for name, value in values.items())
                self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        finally:
            self.accelerator = accelerator

    def pending_state(self) -> dict[str, list[float]]:
        """Return TRL's metrics of the batches since the last log."""
        return dict(self._metrics["train"])

    def restore_pending(self, state: dict[str, list[float]]) -> None:
        self._metrics["train"].update(state)
