"""The options of every trainer, with their help. A trainer's own stand in its file."""

from dataclasses import dataclass
from pathlib import Path

from datagen.engine.options import option

SMALL = 20_000_000
"""Bytes of weights; the smallest language model in use has ten times as many."""
MODEL, STEPS, RUN, DATA = "Model", "Optimisation", "Run", "Data"


@dataclass(frozen=True)
class ModelOptions:
    """How to load and what to train of it."""

    lora: bool = False
    lora_rank: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.0
    lora_targets: str = "all-linear"
    """`all-linear`, or names of modules with commas between."""
    qlora: bool = False
    train_last: int | None = None
    """Train only so many last layers (and what follows them)."""
    train_layers: str | None = None
    """Train only parameters whose name this pattern finds."""
    dtype: str = "auto"
    """auto, float32 or bfloat16: the type of the weights."""


@dataclass(frozen=True)
class TrainOptions:
    """What all trainers can be told."""

    output: str | None = option(None, "The folder of the model and its run. [DATA.COMMAND]", short="-o", panel=RUN)
    overwrite: bool = option(False, "Start again where another run has written.", panel=RUN)
    format: str | None = option(None, "What shape the data has. [detected]", panel=DATA)
    limit: int | None = option(None, "Read only the first so many rows.", least=1, panel=DATA)
    held_out: float = option(0.05, "Share of prompts that is held out to measure on.", least=0, most=0.5, panel=DATA)
    max_length: int = option(1024, "Longest sequence in tokens; longer ones are cut and counted.", least=8, panel=DATA)

    model: str = option("tiny", "A folder, a hub name, or tiny: a built-in toy made from nothing.", panel=MODEL)
    lora: bool = option(False, "Train low-rank adapters instead of the whole model.", panel=MODEL)
    lora_rank: int = option(16, "Rank of the adapters.", least=1, panel=MODEL)
    lora_alpha: int = option(32, "Scale of the adapters.", least=1, panel=MODEL)
    lora_dropout: float = option(0.0, "Dropout in the adapters.", least=0, most=0.9, panel=MODEL)
    lora_targets: str = option("all-linear", "Modules to adapt: all-linear, or names with commas.", panel=MODEL)
    qlora: bool = option(False, "Adapters on a model in 4 bits (CUDA).", panel=MODEL)
    train_last: int | None = option(None, "Train only the last so many layers.", least=1, panel=MODEL)
    train_layers: str | None = option(None, "Train only parameters whose name this pattern finds.", panel=MODEL)
    dtype: str = option("auto", "Type of the weights: auto, float32 or bfloat16.", panel=MODEL)

    epochs: float | None = option(None, "Passes over the data. [3; reward: 1]", least=0.01, panel=STEPS)
    steps: int | None = option(None, "Optimiser steps, in place of --epochs.", least=1, panel=STEPS)
    batch_size: int = option(32, "Rows per step and process.", least=1, panel=STEPS)
    accumulate: int = option(1, "Parts that a step's rows are worked through in.", least=1, panel=STEPS)
    learning_rate: float | None = option(None, "Peak learning rate. [by trainer, model and adapters]", panel=STEPS)
    schedule: str = option("cosine", "Of the learning rate: cosine, linear or constant_with_warmup.", panel=STEPS)
    warmup: float = option(0.03, "Share of the steps to warm up in.", least=0, most=0.9, panel=STEPS)
    weight_decay: float = option(0.0, "Weight decay.", least=0, panel=STEPS)
    checkpointing: bool = option(False, "Recompute activations: less memory, more time.", panel=STEPS)
    seed: int = option(0, "Draws the order of rows and new weights.", panel=STEPS)

    eval_every: int | None = option(None, "Steps between measurements. [a tenth of the run]", least=1, panel=RUN)
    save_every: int | None = option(None, "Steps between checkpoints; best as it is measured. [eval-every]", panel=RUN)
    log_every: int = option(10, "Steps between log lines.", least=1, panel=RUN)
    keep: int = option(2, "Checkpoints to keep while training.", least=1, panel=RUN)
    patience: int | None = option(None, "Stop after so many measurements without a better one.", least=1, panel=RUN)
    generate: int = option(0, "Held-out prompts to answer at every measurement.", least=0, panel=RUN)
    best: str = option("loss", "What the best checkpoint is chosen by: loss, exact_match or rouge_l.", panel=RUN)
    report_to: str = option("none", "Also report to tensorboard, wandb, trackio...", panel=RUN)
    nproc: int = option(1, "Processes to train in (torchrun).", least=1, panel=RUN)
    json: bool = option(False, "Print the result as JSON on standard output.", panel=RUN)
    quiet: bool = option(False, "Say nothing but warnings and errors.", short="-q", panel=RUN)

    @property
    def model_options(self) -> ModelOptions:
        """What concerns loading the model."""
        return ModelOptions(
            lora=self.lora or self.qlora,
            lora_rank=self.lora_rank,
            lora_alpha=self.lora_alpha,
            lora_dropout=self.lora_dropout,
            lora_targets=self.lora_targets,
            qlora=self.qlora,
            train_last=self.train_last,
            train_layers=self.train_layers,
            dtype=self.dtype,
        )

    @property
    def is_tiny(self) -> bool:
        return self.model == "tiny" or self.model.startswith("tiny:")


def is_small(model: str) -> bool:
    """Say whether a folder holds a toy's weights: rates for real models would leave it as it is."""
    folder = Path(model.removeprefix("hf:"))
    sizes = [path.stat().st_size for path in folder.glob("*.safetensors")] if folder.is_dir() else []
    return 0 < sum(sizes) < SMALL


@dataclass(frozen=True)
class Rates:
    """Peak learning rates of a trainer, by what is trained."""

    full: float
    lora: float
    tiny: float
    epochs: float = 3.0
    """Passes over the data, if none are asked for."""

    def pick(self, options: TrainOptions) -> float:
        if options.learning_rate is not None:
            return options.learning_rate
        if options.is_tiny or is_small(options.model):
            return self.tiny
        return self.lora if options.lora or options.qlora else self.full
