"""Options of the trainers with their help texts: those that all share, then those of each alone.

Nothing heavy is imported here: the help of a command and every mistake in its options need no library of the extra.
"""

from dataclasses import asdict, dataclass, fields, replace
from importlib.util import find_spec
from typing import Any, ClassVar

from datagen.engine.options import MAP_HELP, check_choices, option, template_values
from datagen.errors import InputError, unknown_value
from datagen_train.division import check_deepspeed, check_sharding

MODEL, STEPS, RUN, DATA = "Model", "Optimisation", "Run", "Data"
"""Headings in `--help`."""
NOT_SHAPING = (
    *("output", "overwrite", "json", "quiet", "report_to", "keep", "sampler", "batch_size", "nproc", "encode_workers"),
)
"""Options that do not decide the model; a server that samples may move to another port."""
DTYPES = ("auto", "float32", "bfloat16")
ATTENTIONS = ("eager", "sdpa", "flash_attention_2")
OPTIMIZERS = {"adamw": None, "adafactor": "adafactor", "adamw_8bit": "adamw_bnb_8bit"}
"""Values of --optimizer, and the library's names; None is its default."""
SCHEDULES = ("cosine", "linear", "constant_with_warmup")
LABEL_METRICS = ("accuracy", "macro_f1")
"""Metrics of answers that are labels."""
TEXT_METRICS = ("exact_match", "rouge_l")
ANSWER_METRICS = (*TEXT_METRICS, *LABEL_METRICS)
BEST = ("loss", *ANSWER_METRICS, "last")
TIES = ("skip", "soft")
DPO_LOSSES = (
    "sigmoid", "sft", "hinge", "ipo", "robust", "sigmoid_norm", "apo_zero", "apo_down", "nca_pair", "discopop",
)  # fmt: skip
REWARD_HELP = (
    "Reward: FOLDER, classifier:PATH#LABEL, file.py:NAME, verifier:NAME, judge:MODEL or http://..., "
    "with an optional weight, 0.5*FOLDER. Repeat it for a weighted sum."
)
FSDP_HELP = (
    "Divide the model, its gradients and optimiser states among the processes (FSDP2); each holds a part of them. "
    "pretrain, sft, dpo, reward, ppo, grpo."
)
DEEPSPEED_HELP = "DeepSpeed's configuration, a JSON file (pretrain, sft, dpo); in place of --fsdp."
ALLOW_SELF_HELP = "Allow a judge of --reward to score answers of its own model family."
TOKENS_HELP = "Tokens with a loss to train on, instead of --epochs: rows are repeated or left out. pretrain, sft, dpo."
TEMPLATE_HELP = (
    "Values of the chat template as a JSON object, such as '{\"enable_thinking\": false}'. They become its defaults, "
    "and are saved with the model."
)
TEMPLATES = ("plain", "chatml", "gemma", "llama3", "mistral", "phi3", "qwen3", "vicuna")
TEMPLATE_NAME_HELP = (
    f"Chat template, for a base model without one or in place of its own: {', '.join(TEMPLATES)}; or FILE.jinja. "
    "It is saved with the model. [the model's own, else plain]"
)
REASONING = ("train", "drop")
REASONING_HELP = "Reasoning of the rows: train on it in the form of the model's chat template, or drop it."


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
    template: str | None = None
    """A name of TEMPLATES, or a file."""
    chat_template_kwargs: str | None = None
    """A JSON object: values of the chat template."""
    attention: str | None = None
    """One of ATTENTIONS; None is the library's choice."""
    dropout: float | None = None
    """Rate of every dropout that the model's config names; None leaves them as they are."""


@dataclass(frozen=True)
class TrainOptions:
    """Options of all trainers."""

    output: str | None = option(
        None, "Output folder: model, checkpoints, report. [DATA.COMMAND]", short="-o", panel=RUN
    )
    overwrite: bool = option(False, "Replace the run in the output folder.", panel=RUN)
    format: str | None = option(None, "Format of the data. [detected]", panel=DATA)
    map: str | None = option(None, MAP_HELP, panel=DATA)
    limit: int | None = option(None, "Read only the first N rows.", least=1, panel=DATA)
    held_out: float = option(0.05, "Fraction of the prompts held out for evaluation.", least=0, most=0.5, panel=DATA)
    eval_data: str | None = option(
        None,
        "File of rows to measure on; then all rows of DATA are trained on (--held-out has no effect).",
        file=True,
        panel=DATA,
    )
    encode_workers: int | None = option(
        None, "Processes that encode the rows. [one for each core, where there are many rows]", least=1, panel=DATA
    )
    max_length: int = option(1024, "Maximum sequence length in tokens; longer ones are cut.", least=8, panel=DATA)

    model: str = option(
        "tiny", "Base model: a folder, a Hugging Face name, or tiny (an untrained toy model).", file=True, panel=MODEL
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
    dtype: str = option("auto", "Data type of the weights: auto, float32 or bfloat16.", choices=DTYPES, panel=MODEL)
    template: str | None = option(None, TEMPLATE_NAME_HELP, file=True, panel=MODEL)
    attention: str | None = option(
        None,
        "Implementation of attention: eager, sdpa or flash_attention_2. [the library's choice]",
        choices=ATTENTIONS,
        panel=MODEL,
    )
    dropout: float | None = option(
        None, "Dropout of the model (sft, pretrain). [that of its config]", least=0, most=0.9, panel=MODEL
    )
    chat_template_kwargs: str | None = option(None, TEMPLATE_HELP, panel=MODEL)

    epochs: float | None = option(None, "Epochs (passes over the data). [3; reward: 1]", least=0.01, panel=STEPS)
    steps: int | None = option(None, "Optimiser steps, instead of --epochs.", least=1, panel=STEPS)
    tokens: int | None = option(None, TOKENS_HELP, least=1, panel=STEPS)
    batch_size: int = option(32, "Batch size: rows per optimiser step, per process.", least=1, panel=STEPS)
    accumulate: int = option(1, "Gradient-accumulation steps (micro-batches per optimiser step).", least=1, panel=STEPS)
    learning_rate: float | None = option(None, "Peak learning rate. [depends on trainer, model and LoRA]", panel=STEPS)
    schedule: str = option(
        "cosine", "Learning-rate schedule: cosine, linear or constant_with_warmup.", choices=SCHEDULES, panel=STEPS
    )
    warmup: float = option(0.03, "Learning-rate warm-up, as a fraction of the steps.", least=0, most=0.9, panel=STEPS)
    weight_decay: float = option(0.0, "Weight decay.", least=0, panel=STEPS)
    optimizer: str = option(
        "adamw",
        "Optimiser: adamw, adafactor (factored second moments), or adamw_8bit (bitsandbytes).",
        choices=tuple(OPTIMIZERS),
        panel=STEPS,
    )
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
    best: str | None = option(
        None,
        "Metric that selects the best checkpoint: loss, exact_match, rouge_l or, where responses are labels, accuracy "
        "or macro_f1; or last, which keeps the last one. "
        "[loss; ppo, grpo: the reward; sft, pretrain of tiny: last]",
        choices=BEST,
        panel=RUN,
    )
    report_to: str = option("none", "Also report metrics to tensorboard, wandb, trackio or others.", panel=RUN)
    nproc: int = option(1, "Number of training processes, one per device.", least=1, panel=RUN)
    fsdp: bool = option(False, FSDP_HELP, panel=RUN)
    deepspeed: str | None = option(None, DEEPSPEED_HELP, file=True, panel=RUN)
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
class TrainerOptions:
    """Options of one trainer alone; a subclass for each."""

    has_dropout: ClassVar[bool] = False
    """Whether the trainer may train with dropout of the model."""
    can_shard: ClassVar[bool] = False
    """Whether the trainer trains a model that is divided among the processes."""
    takes_deepspeed: ClassVar[bool] = False
    """Whether the trainer trains a model that DeepSpeed has wrapped; these also read --tokens."""

    def check(self, training: TrainOptions) -> None:
        """Raise InputError for a value that does not exist, and for options that do not fit together.

        No library of the extra and no file is needed for that, so the command line checks before it loads any.
        """
        check_choices(self)
        check_choices(training)
        check_measured(training)
        check_size(training, has_dropout=self.has_dropout)
        if training.fsdp:
            check_sharding(training, can_shard=self.can_shard, sampler=getattr(self, "sampler", None))
        if training.deepspeed:
            check_deepspeed(training, takes_deepspeed=self.takes_deepspeed)
        if training.tokens and (not self.takes_deepspeed or training.steps or training.epochs):
            why = "--steps and --epochs say it, too" if self.takes_deepspeed else "pretrain, sft and dpo take it"
            raise InputError(f"--tokens says how long to train; {why}: leave it out")
        template_values(training.chat_template_kwargs)
        check_template_name(training.template)
        if training.batch_size % training.accumulate:
            sizes = f"--batch-size {training.batch_size} is no multiple of --accumulate {training.accumulate}"
            raise InputError(f"{sizes}: a step is made of so many equal parts")
        if training.best in ANSWER_METRICS and not self.answers_held_out(training):
            raise InputError(f"--best {training.best} needs --generate N: how many held-out prompts to answer")
        chosen = {"--lora": training.lora or training.qlora, "--train-last": training.train_last is not None}
        chosen["--train-layers"] = training.train_layers is not None
        if len(names := [name for name, is_given in chosen.items() if is_given]) > 1:
            raise InputError(f"{' and '.join(names)}: each says which parameters are trained; leave one out")
        if training.is_tiny and (training.lora or training.qlora):
            raise InputError("--lora adapts a trained model, and tiny is untrained: leave --lora out")

    def answers_held_out(self, training: TrainOptions) -> bool:
        """Are held-out prompts answered at every measurement?"""
        return training.generate > 0


def shaping(training: TrainOptions, options: TrainerOptions) -> dict[str, Any]:
    """Return the options that decide the model. How many processes share the rows of a step does not."""
    values = asdict(training) | asdict(options)
    rows = {"rows_per_step": training.batch_size * training.nproc}
    return rows | {name: value for name, value in values.items() if name not in NOT_SHAPING}


def is_template_file(spec: str) -> bool:
    """Does `--template` name a file?"""
    return spec.endswith((".jinja", ".jinja2"))


def check_template_name(spec: str | None) -> None:
    """Raise InputError if `--template` names neither a template nor a file."""
    if spec is not None and spec not in TEMPLATES and not is_template_file(spec):
        raise unknown_value("--template", spec, [*TEMPLATES, "FILE.jinja"])


def check_measured(training: TrainOptions) -> None:
    """Raise InputError for options that act on measurements, where nothing is held out to measure on."""
    if training.held_out or training.eval_data:
        return
    selects = training.best not in (None, "last")
    given = {"--patience": training.patience, "--best": selects, "--generate": training.generate}
    if names := [name for name, is_given in given.items() if is_given]:
        raise InputError(
            f"{', '.join(names)}: with --held-out 0 nothing is measured; raise --held-out, or name --eval-data"
        )


def check_size(training: TrainOptions, *, has_dropout: bool) -> None:
    """Raise InputError for options of size and regularisation that cannot act here."""
    if training.is_tiny and (training.attention or training.dropout is not None):
        raise InputError("--attention and --dropout act on a model that is loaded; tiny is untrained: leave them out")
    if training.dropout is not None and not has_dropout:
        raise InputError("--dropout: this trainer compares two passes of the model, and trains without dropout")
    if training.attention == "flash_attention_2" and not find_spec("flash_attn"):
        raise InputError("--attention flash_attention_2 needs a package and a CUDA device: pip install flash-attn")
    if training.optimizer == "adamw_8bit" and not find_spec("bitsandbytes"):
        raise InputError("--optimizer adamw_8bit needs a package: pip install bitsandbytes")


@dataclass(frozen=True)
class PretrainOptions(TrainerOptions):
    """Options of `datagen train pretrain` alone: none."""

    has_dropout: ClassVar[bool] = True
    can_shard: ClassVar[bool] = True
    takes_deepspeed: ClassVar[bool] = True

    def check(self, training: TrainOptions) -> None:
        super().check(training)
        if training.generate:
            raise InputError("--generate: documents have no prompts to answer; leave it out")
        if training.template:
            raise InputError("--template: documents are no conversations; name it in sft")


@dataclass(frozen=True)
class SftOptions(TrainerOptions):
    """Options of `datagen train sft` alone."""

    has_dropout: ClassVar[bool] = True
    can_shard: ClassVar[bool] = True
    takes_deepspeed: ClassVar[bool] = True
    all_turns: bool = option(
        False, "Train on every assistant turn of a conversation instead of those after the last user turn only."
    )
    reasoning: str = option("train", REASONING_HELP, choices=REASONING)
    backward: bool = option(False, "Swap prompt and response: learn to write the prompt of a response.")
    packing: bool = option(False, "Pack short rows into one sequence; the attention must not cross rows (checked).")
    group_by_length: bool = option(False, "Put rows of about the same length into a batch: less padding.")

    def check(self, training: TrainOptions) -> None:
        super().check(training)
        if self.packing and self.group_by_length:
            raise InputError("--packing leaves no padding that --group-by-length could save: leave one out")


@dataclass(frozen=True)
class RewardOptions(TrainerOptions):
    """Options of `datagen train reward` alone."""

    can_shard: ClassVar[bool] = True
    ties: str = option("skip", "Answers of equal rank: skip them, or train on a target of 1/2 (soft).", choices=TIES)
    margin: float = option(0.0, "Weight of the comparison's margin in the ranking loss (Llama 2).", least=0)
    reference: str | None = option(
        None,
        "File of prompts with responses whose scores are normalised to mean 0 and variance 1. "
        "[the best answers of the training rows]",
        file=True,
    )

    def check(self, training: TrainOptions) -> None:
        if training.generate or training.best in ANSWER_METRICS:
            raise InputError("a reward model answers nothing: leave out --generate and --best")
        super().check(training)
        if training.lora_dropout:
            raise InputError("--lora-dropout: a reward model is trained without dropout")


@dataclass(frozen=True)
class ClassifyOptions(TrainerOptions):
    """Options of `datagen train classify` alone."""

    balance: bool = option(False, "Weigh the rows so that every label counts the same, however rare it is.")

    def check(self, training: TrainOptions) -> None:
        if training.generate or training.best in TEXT_METRICS:
            raise InputError("a classifier answers nothing: leave out --generate, and --best exact_match and rouge_l")
        super().check(training)
        if training.qlora:
            raise InputError("--qlora: a classifier is saved with its adapters merged; use --lora")
        if training.chat_template_kwargs or training.template:
            raise InputError("--template and --chat-template-kwargs: a classifier reads texts without a chat template")
        if training.lora_dropout:
            raise InputError("--lora-dropout: a classifier is trained without dropout")

    def answers_held_out(self, training: TrainOptions) -> bool:
        return True  # each text gets a label at every measurement


@dataclass(frozen=True)
class DpoOptions(TrainerOptions):
    """Options of `datagen train dpo` alone."""

    can_shard: ClassVar[bool] = True
    takes_deepspeed: ClassVar[bool] = True
    loss: str = option("sigmoid", f"Loss, or several joined by +: {', '.join(DPO_LOSSES)}; or kto.")
    beta: float = option(0.1, "DPO beta (strength of the KL constraint).", least=0)
    reasoning: str = option("train", REASONING_HELP, choices=REASONING)
    label_smoothing: float = option(0.0, "Share of the pairs assumed to be mislabelled (cDPO).", least=0, most=0.49)
    gate: str | None = option(
        None, "File of prompts with reference responses; the run fails if the metric on them gets worse.", file=True
    )

    @property
    def losses(self) -> list[str]:
        """The losses that are added."""
        return self.loss.split("+")

    def check(self, training: TrainOptions) -> None:
        super().check(training)
        if training.is_tiny:
            raise InputError("DPO starts from a trained model: --model FOLDER of datagen train sft")
        unknown = [] if self.loss == "kto" else [name for name in self.losses if name not in DPO_LOSSES]
        if unknown:
            known = ", ".join(DPO_LOSSES)
            raise InputError(f"--loss {self.loss}: unknown {', '.join(unknown)}; known: {known}, kto")
        if self.label_smoothing and not {"sigmoid", "robust"} & set(self.losses):
            raise InputError(f"--label-smoothing acts on the losses sigmoid and robust, not on {self.loss}")
        if self.loss == "kto" and training.batch_size // training.accumulate < 2:
            raise InputError(
                "--loss kto estimates its KL term within a batch: --batch-size / --accumulate must be 2 or more"
            )
        if training.lora_dropout:
            raise InputError("--lora-dropout: DPO trains without dropout, or its first rewards would not be 0")
        if training.generate and not self.gate:
            raise InputError("--generate answers the prompts of --gate: name the file, or leave --generate out")
        if self.gate and not training.generate:
            raise InputError("--gate needs --generate N: how many of its prompts to answer at every measurement")
