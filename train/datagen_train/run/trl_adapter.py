"""The module that knows TRL. It hands TRL our token ids and our settings, and adds what TRL leaves out: measuring by
generated answers, a stop at a loss that is not a number, complete checkpoints, a clear end.

TRL's defaults that are not ours: bf16 and gradient checkpointing on, rows dropped without a message, NaN losses
filtered from the log, resuming from whatever folder has the highest number.
"""

import logging
import math
import os
from functools import cached_property
from pathlib import Path
from secrets import token_hex
from time import monotonic
from typing import Any

import datasets
import numpy as np
import torch
import transformers
from datasets import Dataset
from datasets.table import InMemoryTable
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import get_available_reporting_integrations
from trl import DPOTrainer, KTOTrainer, SFTTrainer

from datagen.errors import InputError
from datagen_train.data.encode import IGNORED, Encoded
from datagen_train.data.layouts import SEQUENCES, Layout
from datagen_train.data.table import Chosen, TableExamples
from datagen_train.errors import TrainingStopped
from datagen_train.models.load import has_bf16
from datagen_train.options import OPTIMIZERS, TrainOptions
from datagen_train.run.folder import RunFolder, mark_complete
from datagen_train.run.held_out import HeldOut
from datagen_train.run.lengths import LengthGroups
from datagen_train.run.library_names import overrides
from datagen_train.run.overfitting import message
from datagen_train.run.progress import Numbers, Terminal
from datagen_train.run.schedule import warmup_steps
from datagen_train.run.steps import StepCallback
from datagen_train.run.whole_batch import WholeBatch

NOT_QUALITY = ("runtime", "per_second", "epoch", "step", "preparation_time", "num_tokens", "total_flos", "train_loss")
"""Endings of names in the library's logs that say nothing about the model."""
BEST = {
    "loss": ("eval_loss", False),
    "exact_match": ("eval_exact_match", True),
    "rouge_l": ("eval_rouge_l", True),
    "accuracy": ("eval_accuracy", True),
    "macro_f1": ("eval_macro_f1", True),
    "last": ("eval_loss", False),
}
"""Values of --best: the metric that tells models apart, and whether more of it is better."""


def check_report_to(report_to: str) -> None:
    """Raise InputError for an unknown value, which the library would report in a traceback."""
    known = ["none", *get_available_reporting_integrations()]
    if report_to not in known:
        raise InputError(f"--report-to {report_to}: expected one of these, which are installed: {', '.join(known)}")


def shared_arguments(options: TrainOptions, folder: RunFolder, *, rate: float, steps: int, rows: int) -> dict[str, Any]:
    """Return the arguments that the library's trainers share, for a run of `steps` with `rows` held-out rows."""
    every = options.eval_every or max(1, steps // 10)
    save = options.save_every or every
    metric, greater = BEST[options.best or "loss"]
    on_gpu = torch.cuda.is_available()
    return {
        "output_dir": str(folder.checkpoints),
        "max_steps": steps,
        "per_device_train_batch_size": max(1, options.batch_size // options.accumulate),
        "per_device_eval_batch_size": options.batch_size,
        "gradient_accumulation_steps": options.accumulate,
        "learning_rate": rate,
        "lr_scheduler_type": options.schedule,
        "warmup_steps": warmup_steps(options.warmup, steps),
        "weight_decay": options.weight_decay,
        **({"optim": OPTIMIZERS[options.optimizer]} if OPTIMIZERS[options.optimizer] else {}),
        "max_grad_norm": 1.0,
        "bf16": has_bf16(),
        "use_cpu": not on_gpu,
        "gradient_checkpointing": options.checkpointing,
        "seed": options.seed,
        "logging_steps": options.log_every,
        "logging_nan_inf_filter": False,
        "eval_strategy": "steps" if rows else "no",
        "eval_steps": every,
        "save_strategy": "steps",
        "save_steps": save,
        "save_total_limit": options.keep,
        "load_best_model_at_end": rows > 0 and options.best != "last" and save % every == 0,
        "metric_for_best_model": metric if rows else None,
        "greater_is_better": greater if rows else None,
        "report_to": options.report_to,
        "log_level": "error",
        "log_level_replica": "error",
        "disable_tqdm": True,
        "dataloader_pin_memory": on_gpu,
        "ddp_find_unused_parameters": False,
        **({"deepspeed": options.deepspeed} if options.deepspeed else {}),
    }


def quiet_libraries() -> None:
    """Turn off the libraries' progress bars and notes; their warnings about faults stay."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    os.environ["TQDM_DISABLE"] = "1"
    for name in ("grpo", "rloo"):  # they print every answer without a score, control characters and all
        logging.getLogger(f"trl.trainer.{name}_trainer").setLevel(logging.ERROR)


def make_dataset(columns: dict[str, list[Any]]) -> Dataset | None:
    """Make a dataset of columns; None without rows."""
    return Dataset.from_dict(columns) if next(iter(columns.values())) else None


def table_dataset(examples: Chosen[Any], layout: Layout[Any]) -> Dataset | None:
    """Make a dataset of the columns of a layout, which reads from the table of the examples; None without rows."""
    if not examples:
        return None
    assert isinstance(examples.source, TableExamples)
    columns = InMemoryTable(examples.source.table.select(list(layout.columns)))  # a table of a file stays in its pages
    return Dataset(columns, fingerprint=token_hex(8)).select(examples.numbers)  # the library's would read all of it


def sequence_dataset(sequences: Chosen[Encoded]) -> Dataset | None:
    """Make the dataset that TRL's SFT trainer reads."""
    dataset = table_dataset(sequences, SEQUENCES)
    return dataset and dataset.with_transform(expand_labels)


def expand_labels(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Make labels of the spans that the table holds in their place."""
    labels = [[IGNORED] * len(ids) for ids in batch["input_ids"]]
    for row, ids, spans in zip(labels, batch["input_ids"], batch["labels"], strict=True):
        for start, end in zip(spans[::2], spans[1::2], strict=True):
            row[start:end] = ids[start:end]
    return batch | {"labels": labels}


def whole_labels(dataset: Dataset) -> Dataset:
    """Return a dataset of sequences in memory, with labels in place of their spans, 8 bytes a token."""
    columns = {name: [np.array(row[name], dtype=np.int32) for row in dataset] for name in ("input_ids", "labels")}
    return Dataset.from_dict(columns)


class PreTokenized(Trainer):
    """Takes our token ids as they are; TRL would tokenise again, and drop rows."""

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset


@overrides("_get_train_sampler")
class Sft(HeldOut, SFTTrainer):
    """SFT and pre-training on our ids and labels: every metric is a mean over the tokens with a loss."""

    def weight(self, name: str, inputs: dict[str, Any]) -> float:
        return float((inputs["labels"][:, 1:] != IGNORED).sum())

    groups_by_length = False
    """Whether rows of about the same length come into a batch."""

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Any:
        if not self.groups_by_length:
            return super()._get_train_sampler(train_dataset)
        rows: Any = train_dataset or self.train_dataset
        return LengthGroups([len(ids) for ids in rows["input_ids"]], self.args.train_batch_size, self.args.seed)


@overrides("_prepare_dataset")
class Dpo(HeldOut, WholeBatch, PreTokenized, DPOTrainer):
    """DPO on our ids. The loss `sft` is a mean over tokens, the others are means over pairs."""

    loss_weights: Any

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._base_weights = list(self.loss_weights)

    def count(self, inputs: dict[str, Any]) -> tuple[int, int]:
        chosen, _ = inputs["completion_mask"].chunk(2)
        return len(chosen), int(chosen[:, 1:].sum())

    def weight(self, name: str, inputs: dict[str, Any]) -> float:
        chosen, rejected = (float(mask[:, 1:].sum()) for mask in inputs["completion_mask"].chunk(2))
        tokens = {"entropy": chosen + rejected, "mean_token_accuracy": chosen}
        return {**tokens, "logits/chosen": chosen, "logits/rejected": rejected}.get(name, self.count(inputs)[0])

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Weigh the loss `sft` by tokens, as if the whole batch, or all held-out rows, went through the model at once.

        A batch's mean over its tokens becomes one that is averaged over pairs: times its tokens per pair, over those of
        the whole.
        """
        (rows, tokens), whole = self.count(inputs), self.whole if model.training else self._held_out_size
        share = tokens / rows * whole[0] / whole[1]
        names = zip(self.loss_types, self._base_weights, strict=True)
        self.loss_weights = [weight * share if name == "sft" else weight for name, weight in names]
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        return self.weigh(loss, inputs) if model.training else loss

    @cached_property
    def _held_out_size(self) -> tuple[int, int]:
        """(pairs, tokens of chosen answers) of all held-out rows."""
        chosen = self.eval_dataset["chosen_ids"]
        return len(chosen), sum(map(len, chosen))


@overrides("_prepare_dataset")
class Kto(HeldOut, WholeBatch, PreTokenized, KTOTrainer):
    """KTO on our ids. Its reference point is estimated from each micro-batch, so the loss depends on their size."""

    def count(self, inputs: dict[str, Any]) -> tuple[int, int]:
        return len(inputs["label"]), 0

    def weight(self, name: str, inputs: dict[str, Any]) -> float:
        mask, good = inputs["completion_mask"][:, 1:], torch.as_tensor(inputs["label"]).bool()
        tokens = {"entropy": mask, "logits/chosen": mask[good], "logits/rejected": mask[~good]}
        rows = {"chosen": good, "rejected": ~good}.get(name.rpartition("/")[2], torch.ones_like(good))
        return float(tokens.get(name, rows).sum())

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        return self.weigh(loss, inputs) if model.training else loss


def quality_metrics(logs: dict[str, Any]) -> dict[str, float]:
    """Drop from a log line what says nothing about the model: times, and the token count, which a resume resets."""
    return {
        name: float(value)
        for name, value in logs.items()
        if isinstance(value, int | float) and not name.endswith(NOT_QUALITY)
    }


def any_rank(flag: bool, device: torch.device) -> bool:
    """Is the flag set in any process? All must stop at the same step, or they would wait for each other for ever."""
    if not torch.distributed.is_initialized():
        return flag
    flags = torch.tensor(float(flag), device=device)
    torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX)
    return bool(flags)


def set_callbacks(trainer: Trainer, *callbacks: TrainerCallback) -> None:
    """Add callbacks, and remove the one that prints."""
    for callback in callbacks:
        trainer.add_callback(callback)
    trainer.remove_callback(PrinterCallback)


class RunCallback(StepCallback):
    """Writes metrics, marks complete checkpoints, and ends the run at a signal, at NaN, or without improvement."""

    def __init__(self, folder: RunFolder, terminal: Terminal, patience: int | None) -> None:
        """`terminal` shows the run (progress.Terminal); `patience` is in measurements without a better one."""
        self._folder, self._terminal, self._patience = folder, terminal, patience
        self.interrupted = self.finished = self._in_steps = False
        self._tokens, self._seconds, self._step_start = 0, 0.0, 0.0
        """Tokens until the last log, and seconds in optimiser steps since then."""
        self._batches = 0
        """Of this measurement."""
        self._is_measured = False
        """Whether there was a measurement after the last step."""

    def interrupt(self, _: int) -> bool:
        """End the run with a checkpoint once the step is done. Returns False where no step is, and none is lost.

        With several processes there may be a step in another one, so that all of them go on to the end of one.
        """
        if self.finished or not (self._in_steps or torch.distributed.is_initialized()):
            return False
        self.interrupted = True
        self._terminal.say("Stopping after this step, with a checkpoint. Ctrl-C again to quit at once.")
        return True

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._tokens = state.num_input_tokens_seen
        self._terminal.step(state)

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        control.should_training_stop = state.global_step >= state.max_steps or self._is_stalled(args, state)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self._is_measured and (text := message(self._folder, state.global_step)):
            self._terminal.say(text)
        self._step_start, self._in_steps, self._is_measured = monotonic(), True, False
        self._terminal.phase("training")

    def on_step_numbers(self, numbers: Numbers) -> None:
        self._terminal.update(numbers)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, Any], **_: Any
    ) -> None:
        if not state.is_world_process_zero:
            return
        metrics = quality_metrics(logs)
        bad = sorted(
            name for name, x in metrics.items() if name.endswith(("loss", "grad_norm")) and not math.isfinite(x)
        )
        if bad:
            raise TrainingStopped(
                f"step {state.global_step}: {', '.join(bad)} is not a number. Lower --learning-rate, or use "
                "--dtype float32; the last checkpoint is from before."
            )
        if self.finished or not metrics:  # the best model is measured once more, long after its step
            return
        self._folder.log({"step": state.global_step, **metrics})
        self._terminal.show(state, metrics | self._speed(logs))

    def _speed(self, logs: dict[str, Any]) -> dict[str, float]:
        """Return the tokens per second of the steps since the last log; nothing for a measurement."""
        if "num_tokens" not in logs or not self._seconds:
            return {}
        speed = (logs["num_tokens"] - self._tokens) / self._seconds
        self._tokens, self._seconds = logs["num_tokens"], 0.0
        return {"tokens_per_second": speed}

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **arguments: Any
    ) -> None:
        self._batches += 1
        self._terminal.count(self._batches, len(arguments["eval_dataloader"]), "batches")

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._batches = 0
        self._is_measured = True
        if control.should_save:
            self._terminal.phase("saving")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._seconds += monotonic() - self._step_start
        self._terminal.step(state)
        if any_rank(self.interrupted, args.device):
            self.interrupted = True
            control.should_save = control.should_training_stop = True
        if self._is_stalled(args, state):
            control.should_training_stop = True
        if control.should_evaluate or control.should_save:
            self._terminal.phase("measuring" if control.should_evaluate else "saving")

    def _is_stalled(self, args: TrainingArguments, state: TrainerState) -> bool:
        """Have the last measurements of --patience not been better than the best before?"""
        best = state.best_global_step
        return bool(self._patience and best and state.global_step - best >= self._patience * args.eval_steps)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if torch.distributed.is_initialized():
            torch.distributed.barrier()  # each process has files of its own there
        if state.is_world_process_zero:
            mark_complete(Path(args.output_dir) / f"checkpoint-{state.global_step}")
