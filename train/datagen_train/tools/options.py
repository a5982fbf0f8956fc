"""Options of the commands that train nothing. Nothing heavy is imported here, as in the options of the trainers."""

from dataclasses import dataclass

from datagen.engine.options import MAP_HELP, option
from datagen_train.options import (
    ALLOW_SELF_HELP,
    DATA,
    DTYPES,
    MODEL,
    REASONING,
    REWARD_HELP,
    TEMPLATE_HELP,
    TEMPLATE_NAME_HELP,
)

CHECKED = ("sft", "pretrain", "dpo")
"""Trainers that `datagen train check` knows."""
MEASURE, SWEEP = "Measurement", "Sweep"


@dataclass(frozen=True)
class EvalOptions:
    """Options of `datagen train eval`."""

    output: str | None = option(None, "File for the generated answers, each with its reference answer.", short="-o")
    format: str | None = option(None, "Format of the data. [detected]", panel=DATA)
    map: str | None = option(None, MAP_HELP, panel=DATA)
    limit: int | None = option(None, "Read only the first N rows.", least=1, panel=DATA)
    held_out: float | None = option(
        None, "Use only the rows that training with the same --held-out holds out.", least=0, most=1, panel=DATA
    )
    all: bool = option(False, "Measure also rows that the model was trained on; they are counted.", panel=DATA)
    documents: bool = option(False, "The data are documents: measure only the loss.", panel=DATA)
    max_length: int = option(
        1024, "Maximum sequence length in tokens; longer ones are cut and counted.", least=8, panel=DATA
    )
    generate: int | None = option(None, "Answer only the first N prompts; 0 = none. [all]", least=0, panel=MEASURE)
    max_tokens: int = option(256, "Maximum length of an answer in tokens.", least=1, panel=MEASURE)
    reward: list[str] = option(
        [], "Reward of the answers, as in 'datagen train ppo'. Repeat it for a weighted sum.", file=True, panel=MEASURE
    )
    allow_self: bool = option(False, ALLOW_SELF_HELP, panel=MEASURE)
    ignore_case: bool = option(False, "Ignore case in exact-match accuracy.", panel=MEASURE)
    reasoning: str = option(
        "train", "Reasoning of the rows in the loss, as in 'datagen train sft'.", choices=REASONING, panel=MEASURE
    )
    chat_template_kwargs: str | None = option(None, TEMPLATE_HELP, panel=MODEL)
    batch_size: int = option(32, "Rows per batch.", least=1, panel=MEASURE)
    dtype: str = option("auto", "Data type of the weights: auto, float32 or bfloat16.", choices=DTYPES, panel=MODEL)


@dataclass(frozen=True)
class ScoreOptions:
    """Options of `datagen train score` alone."""

    reward: list[str] = option([], REWARD_HELP, file=True)
    allow_self: bool = option(False, ALLOW_SELF_HELP)


@dataclass(frozen=True)
class MergeOptions:
    """Options of `datagen train merge`."""

    output: str | None = option(None, "Output folder of the merged model. [ADAPTER.merged]", short="-o")
    base: str | None = option(None, "Base model, instead of the one named in the adapter.", file=True)
    dtype: str = option(
        "auto", "Data type of the weights: auto (that of the base model), float32 or bfloat16.", choices=DTYPES
    )
    overwrite: bool = option(False, "Replace the folder of an earlier merge.")


@dataclass(frozen=True)
class ChatOptions:
    """Options of `datagen train chat`."""

    prompt: str | None = option(None, "Send this prompt, print the answer and exit.", short="-p", panel="Chat")
    system: str | None = option(None, "System message of every conversation.", panel="Chat")
    chat_template_kwargs: str | None = option(None, TEMPLATE_HELP, panel=MODEL)
    temperature: float = option(0.7, "Sampling temperature; 0 is greedy decoding.", least=0, panel="Sampling")
    top_p: float = option(1.0, "Nucleus sampling (top-p).", least=0, most=1, panel="Sampling")
    max_tokens: int = option(512, "Maximum length of an answer in tokens.", least=1, panel="Sampling")
    seed: int | None = option(None, "Random seed of sampling. [random]", panel="Sampling")
    dtype: str = option("auto", "Data type of the weights: auto, float32 or bfloat16.", choices=DTYPES, panel=MODEL)


@dataclass(frozen=True)
class CheckOptions:
    """Options of `datagen train check`."""

    trainer: str = option("sft", f"Trainer to check for: {', '.join(CHECKED)}.", choices=CHECKED)
    model: str = option("tiny", "Base model: a folder, a Hugging Face name, or tiny.", file=True)
    rows: int = option(2, "Number of sequences to print.", least=0)
    max_length: int = option(1024, "Maximum sequence length in tokens.", least=8)
    format: str | None = option(None, "Format of the data. [detected]")
    map: str | None = option(None, MAP_HELP)
    limit: int | None = option(None, "Read only the first N rows.", least=1)
    all_turns: bool = option(False, "Train on every assistant turn, as 'datagen train sft --all-turns' does.")
    reasoning: str = option("train", "Reasoning that rows hold: train on it or drop it.", choices=REASONING)
    template: str | None = option(None, TEMPLATE_NAME_HELP, file=True)
    chat_template_kwargs: str | None = option(None, TEMPLATE_HELP)


@dataclass(frozen=True)
class SweepOptions:
    """Options of `datagen train sweep` alone."""

    over: list[str] = option(
        [],
        "Option of the trainer with the values to try: learning-rate=1e-5,1e-4; epochs=1..3 for 1, 2 and 3. "
        "Repeat it for all combinations.",
        panel=SWEEP,
    )
    random: int | None = option(
        None,
        "Try N combinations, drawn at random; a range such as learning-rate=1e-5..1e-3 is then drawn from "
        "(uniform in the logarithm).",
        least=1,
        most=1000,
        panel=SWEEP,
    )


@dataclass(frozen=True)
class MedicalGptOptions:
    """The option of every trainer that is none of a run: it changes the command line before that is read."""

    from_medicalgpt: bool = option(
        False, "Translate the arguments of a script of MedicalGPT, which follow behind --.", panel=DATA
    )
