"""The module that knows TRL. It hands TRL token ids that we made and settings that we chose, and adds what TRL
leaves out: measuring by generation, numbers that are none, complete checkpoints, a clear end.

TRL's defaults that are not ours: bf16 and gradient checkpointing on, rows dropped without a word, NaN losses filtered
from the log, resuming from whatever folder has the highest number.
"""

import logging
import math
import os
import warnings
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from datasets import Dataset
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import get_available_reporting_integrations
from trl import DPOTrainer, KTOTrainer, SFTTrainer

from datagen.errors import InputError
from datagen_train.errors import TrainingStopped
from datagen_train.models.load import has_bf16
from datagen_train.options import TrainOptions
from datagen_train.run.folder import RunFolder, mark_complete

Measure = Callable[[Any], dict[str, float]]
"""Answers held-out prompts with a model and returns metrics by name."""
Show = Callable[[TrainerState, dict[str, Any]], None]
"""Shows a line of metrics to a person."""
NOT_MEASURED = ("runtime", "per_second", "epoch", "step", "preparation_time", "num_tokens", "total_flos", "train_loss")
BEST = {"loss": ("eval_loss", False), "exact_match": ("eval_exact_match", True), "rouge_l": ("eval_rouge_l", True)}


SCHEDULES = ("cosine", "linear", "constant_with_warmup")


def refuse_unknown(options: TrainOptions) -> None:
    """Raise InputError for a choice that is none; the library would say so in a traceback, or take another."""
    choices: dict[str, tuple[str, Collection[str]]] = {
        "best": (options.best, BEST),
        "schedule": (options.schedule, SCHEDULES),
        "dtype": (options.dtype, ("auto", "float32", "bfloat16")),
        "report-to": (options.report_to, ["none", *get_available_reporting_integrations()]),
    }
    for name, (given, known) in choices.items():
        if given not in known:
            here = " here" if name == "report-to" else ""
            raise InputError(f"--{name} {given}: expected one of{here}: {', '.join(known)}")


def shared_arguments(options: TrainOptions, folder: RunFolder, *, rate: float, steps: int, rows: int) -> dict[str, Any]:
    """Return the settings that all trainers share. `steps` is the length of the run, `rows` the held-out ones."""
    every = options.eval_every or max(1, steps // 10)
    save = options.save_every or every
    best, greater = BEST[options.best]
    pick_best = rows > 0 and save % every == 0
    on_gpu = torch.cuda.is_available()
    return {
        "output_dir": str(folder.checkpoints),
        "max_steps": steps,
        "per_device_train_batch_size": max(1, options.batch_size // options.accumulate),
        "per_device_eval_batch_size": options.batch_size,
        "gradient_accumulation_steps": options.accumulate,
        "learning_rate": rate,
        "lr_scheduler_type": options.schedule,
        "warmup_steps": math.ceil(options.warmup * steps),
        "weight_decay": options.weight_decay,
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
        "load_best_model_at_end": pick_best,
        "metric_for_best_model": best if pick_best else None,
        "greater_is_better": greater if pick_best else None,
        "report_to": options.report_to,
        "log_level": "error",
        "log_level_replica": "error",
        "disable_tqdm": True,
        "dataloader_pin_memory": on_gpu,
        "ddp_find_unused_parameters": False,
    }


def quiet_libraries() -> None:
    """Keep the libraries' own bars and notes away from ours; warnings about what is wrong stay."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    os.environ["TQDM_DISABLE"] = "1"
    for name in ("grpo", "rloo"):  # they print answers as they are, at every one without a score
        logging.getLogger(f"trl.trainer.{name}_trainer").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", ".*gradient_checkpointing.* is deprecated", FutureWarning)


class EvaluatedByGeneration(Trainer):
    """Adds the metrics of generated answers to every evaluation, so that the best checkpoint can be chosen by them."""

    measure: Measure | None = None

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        metrics: dict[str, float] = super().evaluate(*args, **kwargs)
        if self.measure is not None:
            more = {f"eval_{name}": value for name, value in self.measure(self.model).items()}
            self.log(more)
            metrics |= more
        return metrics


class Sft(EvaluatedByGeneration, SFTTrainer):
    """SFT and pre-training on our ids and labels."""


class PreTokenized(Trainer):
    """Takes our ids as they are; TRL would tokenise, and drop, again."""

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset


class Dpo(EvaluatedByGeneration, PreTokenized, DPOTrainer):
    """DPO on our ids."""


class Kto(EvaluatedByGeneration, PreTokenized, KTOTrainer):
    """KTO on our ids."""


def quality_metrics(logs: dict[str, Any]) -> dict[str, float]:
    """Keep what was measured: not how long it took, nor the token count, which a resumed run starts again."""
    return {
        name: float(value)
        for name, value in logs.items()
        if isinstance(value, int | float) and not name.endswith(NOT_MEASURED)
    }


def any_rank(said: bool, device: torch.device) -> bool:
    """Did any process say so? They stop at the same step, or they would wait for each other for ever."""
    if not torch.distributed.is_initialized():
        return said
    told = torch.tensor(float(said), device=device)
    torch.distributed.all_reduce(told, torch.distributed.ReduceOp.MAX)
    return bool(told)


class RunCallback(TrainerCallback):
    """Writes metrics, marks checkpoints, ends the run where it cannot or should not go on."""

    def __init__(self, folder: RunFolder, show: Show, patience: int | None) -> None:
        """`patience` in measurements without a better one."""
        self._folder, self._show, self._patience = folder, show, patience
        self.interrupted = self.finished = False

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, Any], **_: Any
    ) -> None:
        if not state.is_world_process_zero:
            return
        numbers = quality_metrics(logs)
        bad = sorted(
            name for name in numbers if name.endswith(("loss", "grad_norm")) and not math.isfinite(numbers[name])
        )
        if bad:
            raise TrainingStopped(
                f"step {state.global_step}: {', '.join(bad)} is not a number. Lower --learning-rate, or use "
                "--dtype float32; the last checkpoint is from before."
            )
        if self.finished or not numbers:  # the best model is measured once more, long after its step
            return
        self._folder.log({"step": state.global_step, **numbers})
        self._show(state, numbers)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if any_rank(self.interrupted, args.device):
            self.interrupted = True
            control.should_save = control.should_training_stop = True
        best = state.best_global_step
        if self._patience and best and state.global_step - best >= self._patience * args.eval_steps:
            control.should_training_stop = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.is_world_process_zero:
            mark_complete(Path(args.output_dir) / f"checkpoint-{state.global_step}")
