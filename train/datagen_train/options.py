"""Options of all trainers, with their help texts. Those of one trainer alone are in its file."""

from dataclasses import dataclass, fields, replace
from pathlib import Path

from datagen.engine.options import option

TOY_BYTES = 20_000_000
"""Below this size of its weights a model is a toy; the smallest language model in use is ten times as large."""
MODEL, STEPS, RUN, DATA = "Model", "Optimisation", "Run", "Data"


@dataclass(frozen=True)
class ModelOptions:
    """How a model is loaded, and which of its parameters are trained."""

    lora: bool = False
    lora_rank: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.0
    lora_targets: str = "all-linear"
    """`all-linear`, or names of modules separated by commas."""
    qlora: bool = False
    train_last: int | None = None
    """Train only the last N layers (and what follows them)."""
    train_layers: str | None = None
    """Train only the parameters whose names match this regular expression."""
    dtype: str = "auto"
    """auto, float32 or bfloat16."""


@dataclass(frozen=True)
class TrainOptions:
    """Options of all trainers."""

    output: str | None = option(
        None, "Output folder: model, checkpoints, report. [DATA.COMMAND]", short="-o", panel=RUN
    )
    overwrite: bool = option(False, "Replace the run in the output folder.", panel=RUN)
    format: str | None = option(None, "Format of the data. [detected]", panel=DATA)
    limit: int | None = option(None, "Read only the first N rows.", least=1, panel=DATA)
    held_out: float = option(0.05, "Fraction of the prompts held out for evaluation.", least=0, most=0.5, panel=DATA)
    max_length: int = option(1024, "Maximum sequence length in tokens; longer ones are cut.", least=8, panel=DATA)

    model: str = option(
        "tiny", "Base model: a folder, a Hugging Face name, or tiny (an untrained toy model).", panel=MODEL
    )
    lora: bool = option(False, "Train low-rank adapters (LoRA) instead of all weights.", panel=MODEL)
    lora_rank: int = option(16, "LoRA rank.", least=1, panel=MODEL)
    lora_alpha: int = option(32, "LoRA alpha (the adapters are scaled by alpha / rank).", least=1, panel=MODEL)
    lora_dropout: float = option(0.0, "LoRA dropout.", least=0, most=0.9, panel=MODEL)
    lora_targets: str = option("all-linear", "Modules to adapt: all-linear, or names separated by commas.", panel=MODEL)
    qlora: bool = option(False, "QLoRA: adapters on a base model quantised to 4 bits (CUDA).", panel=MODEL)
    train_last: int | None = option(None, "Train only the last N layers.", least=1, panel=MODEL)
    train_layers: str | None = option(
        None, "Train only parameters whose names match this regular expression.", panel=MODEL
    )
    dtype: str = option("auto", "Data type of the weights: auto, float32 or bfloat16.", panel=MODEL)

    epochs: float | None = option(None, "Epochs (passes over the data). [3; reward: 1]", least=0.01, panel=STEPS)
    steps: int | None = option(None, "Optimiser steps, instead of --epochs.", least=1, panel=STEPS)
    batch_size: int = option(32, "Batch size: rows per optimiser step, per process.", least=1, panel=STEPS)
    accumulate: int = option(1, "Gradient-accumulation steps (micro-batches per optimiser step).", least=1, panel=STEPS)
    learning_rate: float | None = option(None, "Peak learning rate. [depends on trainer, model and LoRA]", panel=STEPS)
    schedule: str = option("cosine", "Learning-rate schedule: cosine, linear or constant_with_warmup.", panel=STEPS)
    warmup: float = option(0.03, "Learning-rate warm-up, as a fraction of the steps.", least=0, most=0.9, panel=STEPS)
    weight_decay: float = option(0.0, "Weight decay.", least=0, panel=STEPS)
    checkpointing: bool = option(False, "Gradient checkpointing: less memory, more time.", panel=STEPS)
    seed: int = option(0, "Random seed (row order, new weights).", panel=STEPS)

    eval_every: int | None = option(None, "Steps between evaluations. [a tenth of the run]", least=1, panel=RUN)
    save_every: int | None = option(
        None, "Steps between checkpoints; a multiple of --eval-every. [--eval-every]", panel=RUN
    )
    log_every: int = option(10, "Steps between log lines.", least=1, panel=RUN)
    keep: int = option(2, "Number of checkpoints kept during training.", least=1, panel=RUN)
    patience: int | None = option(None, "Early stopping: evaluations without improvement.", least=1, panel=RUN)
    generate: int = option(0, "Number of held-out prompts to answer at every evaluation.", least=0, panel=RUN)
    best: str = option("loss", "Metric that selects the best checkpoint: loss, exact_match or rouge_l.", panel=RUN)
    report_to: str = option("none", "Also report metrics to tensorboard, wandb, trackio or others.", panel=RUN)
    nproc: int = option(1, "Number of training processes, one per device.", least=1, panel=RUN)
    json: bool = option(False, "Print the result as JSON on standard output.", panel=RUN)
    quiet: bool = option(False, "Print only warnings and errors.", short="-q", panel=RUN)

    @property
    def model_options(self) -> ModelOptions:
        """The options of loading the model."""
        names = [field.name for field in fields(ModelOptions)]
        return replace(ModelOptions(**{name: getattr(self, name) for name in names}), lora=self.lora or self.qlora)

    @property
    def is_tiny(self) -> bool:
        """Is the model the built-in toy?"""
        return self.model == "tiny" or self.model.startswith("tiny:")


@dataclass(frozen=True)
class Rates:
    """Peak learning rates of a trainer, by what is trained."""

    full: float
    lora: float
    tiny: float
    epochs: float = 3.0
    """Default of --epochs."""

    def pick(self, options: TrainOptions) -> float:
        """Return the peak learning rate of a run: the given one, or the default for what is trained."""
        if options.learning_rate is not None:
            return options.learning_rate
        folder = Path(options.model.removeprefix("hf:"))
        sizes = [path.stat().st_size for path in folder.glob("*.safetensors")] if folder.is_dir() else []
        if options.is_tiny or 0 < sum(sizes) < TOY_BYTES:  # rates for real models would hardly change a toy
            return self.tiny
        return self.lora if options.lora or options.qlora else self.full
