"""Commands of MedicalGPT's scripts in the options of this program: `datagen train TRAINER --from-medicalgpt -- ARGS`.

Each of their arguments is translated; or ignored, where the result is the same or better without it; or refused, where
leaving it out would change the result. What is ignored is listed with the reason. Arguments that are not given keep the
defaults of this program. The tables are in medicalgpt_arguments.py.

ARGS may be the whole command, from `torchrun` or `python` on.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

from datagen.errors import InputError
from datagen.llm.local.weights import CONTRACT
from datagen_train.options import SCHEDULES
from datagen_train.tools.medicalgpt_arguments import COMBINED, FALSE, IGNORED, REFUSED, SWITCHES, TAKEN

TRUE = ("true", "yes", "1", "t", "y", "")
"""As in HfArgumentParser; an argument without a value is true."""
LORA = {"lora_rank", "lora_alpha", "lora_dropout", "target_modules"}
WITHOUT_DROPOUT = ("reward", "dpo", "ppo", "grpo")
BATCHES = {"dpo": ("4", "4")}
"""Their defaults of rows per device and of accumulated passes, where they are not those of transformers."""
DEFAULT_BATCH = ("8", "1")
TARGET_KL, ADAPTIVE_KL = "0.1", "6"
"""Their default, and that of the PPO of TRL."""
SCRIPT = re.compile(r".*\.py")
LAUNCHERS = ("python", "python3", "torchrun", "accelerate", "launch", "deepspeed")


@dataclass
class Translation:
    """The arguments of our command, and what is to be said about it."""

    trainer: str
    theirs: dict[str, str]
    """Values of their arguments that are not translated yet."""
    data: str | None = None
    options: dict[str, str | None] = field(default_factory=dict)
    """Our options with their values; None for a switch."""
    notes: list[str] = field(default_factory=list)

    def take(self, name: str) -> str | None:
        """Return the value of one of their arguments, and drop it; None if it is not given."""
        return self.theirs.pop(name, None)

    def ignore(self, name: str, reason: str) -> None:
        """Say that an argument has no effect."""
        self.notes.append(f"ignored: --{name}: {reason}")

    def words(self) -> list[str]:
        """Return the arguments of our command."""
        pairs = ([flag] if value is None else [flag, value] for flag, value in self.options.items())
        return [*([] if self.data is None else [self.data]), *(word for pair in pairs for word in pair)]


def translate(trainer: str, words: Sequence[str]) -> Translation:
    """Translate a command of MedicalGPT.

    Args:
        trainer: the trainer of this program.
        words: the arguments of a script of theirs, or the whole command.

    Raises:
        InputError: an argument is unknown, would change the result, or its value is wrong.
    """
    launcher, arguments = split_launcher(words)
    translation = Translation(trainer, parse(arguments))
    refuse(translation.theirs)
    processes(translation, launcher)
    for step in STEPS:
        step(translation)
    for name, value in translation.theirs.items():
        flag = TAKEN.get(name) or SWITCHES.get(name)
        if name in TAKEN and not (value.startswith("-") and flag in ("--limit", "--keep")):
            translation.options[str(flag)] = value
        elif name in SWITCHES and is_true(name, value):
            translation.options[str(flag)] = None
        elif name in IGNORED:
            translation.ignore(name, IGNORED[name])
        elif name in COMBINED:
            translation.ignore(name, f"{COMBINED[name]} is not set by it in {trainer}")
    return translation


def split_launcher(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split a command into what starts the script, and the arguments of the script."""
    script = next((at for at, word in enumerate(words) if SCRIPT.fullmatch(word)), None)
    if script is None or words[0].startswith("--"):
        return [], list(words)
    if "=" in words[0]:
        raise InputError(f"{words[0]}: set variables before 'datagen': {words[0]} datagen train ...")
    if Path(words[0]).name not in LAUNCHERS and script:
        raise InputError(f"{words[0]}: expected one of {', '.join(LAUNCHERS)}, or the arguments of the script alone")
    return list(words[:script]), list(words[script + 1 :])


def parse(words: Sequence[str]) -> dict[str, str]:
    """Read arguments as HfArgumentParser does: --name value, --name=value, or --name alone, which is true."""
    theirs: dict[str, str] = {}
    name = ""
    for word in words:
        if word.startswith("--"):
            name, _, value = word[2:].partition("=")
            name = name.replace("-", "_")
            theirs[name] = value
        elif not name or theirs[name]:
            raise InputError(f"{word}: no argument of MedicalGPT stands before it; ours go before '--'")
        else:
            theirs[name] = word
    return theirs


def refuse(theirs: dict[str, str]) -> None:
    """Raise InputError for an argument that is unknown or would change the result; drop those of this kind that do
    not."""
    known = {*TAKEN, *SWITCHES, *COMBINED, *IGNORED, *REFUSED}
    for name, value in list(theirs.items()):
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"; did you mean --{near[0]}?" if near else "; docs/medicalgpt.md lists those that are known"
            raise InputError(f"--{name}: is no argument of MedicalGPT{hint}")
        if name in REFUSED:
            harmless, way = REFUSED[name]
            if value.lower() not in harmless:
                raise InputError(f"--{name} {value}".rstrip() + f": {way}")
            del theirs[name]


def is_true(name: str, value: str) -> bool:
    """Read a truth value."""
    if value.lower() not in (*TRUE, *FALSE):
        raise InputError(f"--{name} {value}: expected True or False")
    return value.lower() in TRUE


def number(name: str, value: str) -> float:
    """Read a number."""
    try:
        return float(value)
    except ValueError:
        raise InputError(f"--{name} {value}: expected a number") from None


def processes(translation: Translation, launcher: Sequence[str]) -> None:
    """Translate the launcher: the number of its processes."""
    options = parse([word for word in launcher if Path(word).name not in LAUNCHERS])
    if options.pop("nnodes", "1") != "1":
        raise InputError("--nnodes: training runs on one machine; use --nproc")
    count = options.pop("nproc_per_node", None) or options.pop("num_processes", None)
    if count and count != "1":
        translation.options["--nproc"] = count
    for name in options:
        translation.ignore(name, "--nproc starts the processes")


def data(translation: Translation) -> None:
    """Rows to train on, and to measure on."""
    translation.data = translation.take("train_file_dir")
    if measured := translation.take("validation_file_dir"):
        translation.options["--eval-data"] = measured
        if translation.take("validation_split_percentage"):
            translation.ignore("validation_split_percentage", "--eval-data names the rows to measure on")
    if share := translation.take("validation_split_percentage"):
        translation.options["--held-out"] = f"{number('validation_split_percentage', share) / 100:g}"
    if (prompts := translation.take("max_eval_samples")) and not prompts.startswith("-"):
        if translation.trainer in ("ppo", "grpo"):
            translation.options["--generate"] = prompts
        else:
            translation.ignore("max_eval_samples", "all held-out rows are measured")


def adapters(translation: Translation) -> None:
    """LoRA. Theirs is on by default, so its options mean it where --use_peft is not given."""
    given = {name: value for name in sorted(LORA) if (value := translation.take(name))}
    wanted = translation.take("use_peft")
    if not (given if wanted is None else is_true("use_peft", wanted)):
        for name in given:
            translation.ignore(name, "--use_peft is not True, so there are no adapters")
        return
    translation.options["--lora"] = None
    for name, value in given.items():
        if name == "lora_dropout" and translation.trainer in WITHOUT_DROPOUT:
            translation.ignore(name, f"{translation.trainer} trains without dropout")
        else:
            value = "all-linear" if (name, value) == ("target_modules", "all") else value
            whole = name == "lora_alpha" and number(name, value).is_integer()
            translation.options[COMBINED[name]] = f"{float(value):g}" if whole else value


def data_type(translation: Translation) -> None:
    """Data types: only float32 throughout differs from the default."""
    mixed = [is_true(name, value) for name in ("bf16", "fp16") if (value := translation.take(name)) is not None]
    given = {name: value for name in ("torch_dtype", "dtype") if (value := translation.take(name)) is not None}
    if "float32" in given.values() and not any(mixed):
        translation.options["--dtype"] = "float32"
    elif given or any(mixed):
        name = next(iter(given), "fp16 or --bf16")
        translation.ignore(name, "weights are float32, computed in bfloat16 where the device can (--dtype auto)")


def batches(translation: Translation) -> None:
    """Rows per step: theirs counts those of one forward pass, ours those of an optimiser step."""
    rows, parts = translation.take("per_device_train_batch_size"), translation.take("gradient_accumulation_steps")
    whole, mini = translation.take("batch_size"), translation.take("mini_batch_size")
    if rows or parts:
        defaults = BATCHES.get(translation.trainer, DEFAULT_BATCH)
        accumulate = int(number("gradient_accumulation_steps", parts or defaults[1]))
        per_pass = int(number("per_device_train_batch_size", rows or defaults[0]))
        translation.options["--batch-size"] = str(per_pass * accumulate)
        translation.options["--accumulate"] = str(accumulate)
    if whole:
        translation.options["--batch-size"] = whole
    if mini and translation.trainer == "ppo":
        size = int(number("batch_size", whole or DEFAULT_BATCH[0]))
        minibatches, rest = divmod(size, int(number("mini_batch_size", mini)) or 1)
        if rest:
            raise InputError(f"--mini_batch_size {mini}: does not divide --batch_size {size}; say --minibatches")
        translation.options["--minibatches"] = str(minibatches)


def steps(translation: Translation) -> None:
    """Length of the run, and the schedule of the learning rate."""
    count, epochs = translation.take("max_steps"), translation.take("num_train_epochs")
    if count and not count.startswith("-"):
        translation.options["--steps"] = count
        if epochs:
            translation.ignore("num_train_epochs", "--max_steps says how long the run is")
    elif epochs:
        translation.options["--epochs"] = epochs
    if warmup := translation.take("warmup_steps"):
        if number("warmup_steps", warmup) and "--steps" not in translation.options:
            raise InputError("--warmup_steps: warm-up is a share of the steps here: say --warmup_ratio, or --max_steps")
        share = number("warmup_steps", warmup) / (number("max_steps", count or "1") or 1)
        translation.options["--warmup"] = f"{min(share, 0.9):g}"
    if schedule := translation.take("lr_scheduler_type"):
        if schedule not in SCHEDULES:
            raise InputError(f"--lr_scheduler_type {schedule}: say --schedule, one of {', '.join(SCHEDULES)}")
        translation.options["--schedule"] = schedule


def lengths(translation: Translation) -> None:
    """Tokens of prompt and answer: theirs are cut apart, ours as one sequence."""
    source, target = translation.take("max_source_length"), translation.take("max_target_length")
    answer = translation.take("max_completion_length") or translation.take("response_length")
    target = target or answer
    if translation.trainer in ("ppo", "grpo") and target:
        translation.options["--max-tokens"] = target
    if bool(source) != bool(target) and source:
        raise InputError("--max_source_length: without --max_target_length; say --max-length, of the whole sequence")
    if source and target:
        total = number("max_source_length", source) + number("max_target_length", target)
        translation.options["--max-length"] = f"{total:.0f}"


def rewards(translation: Translation) -> None:
    """The reward: a reward model of this program, or a public one, which is a classifier with one output."""
    names = ("reward_model_name_or_path", "reward_model_path")
    given = [value for name in names if (value := translation.take(name))]
    if given and translation.trainer in ("ppo", "grpo"):
        model = given[0]
        is_ours = (Path(model) / CONTRACT).exists()
        translation.options["--reward"] = model if is_ours else f"classifier:{model}#,chat"
    if (beta := translation.take("beta")) and translation.trainer in ("dpo", "grpo"):
        translation.options["--beta" if translation.trainer == "dpo" else "--kl-coef"] = beta


def kl_control(translation: Translation) -> None:
    """KL control of their PPO of 2023."""
    stopping, target = translation.take("early_stopping"), translation.take("target_kl")
    if translation.trainer != "ppo":
        if stopping and is_true("early_stopping", stopping):
            raise InputError(
                "--early_stopping: say how many measurements without an improvement end the run: --patience N"
            )
        return
    if stopping is not None and is_true("early_stopping", stopping):
        translation.options["--target-kl"] = target or TARGET_KL
    elif target:
        translation.ignore("target_kl", "it acts with --early_stopping True alone")
    adaptive = translation.take("adap_kl_ctrl")
    if adaptive is not None and is_true("adap_kl_ctrl", adaptive):
        translation.options["--adaptive-kl"] = ADAPTIVE_KL


def reports(translation: Translation) -> None:
    """Where metrics go: to a library that is installed."""
    name = translation.take("report_to")
    if name and name != "none":
        if find_spec(name):
            translation.options["--report-to"] = name
        else:
            translation.ignore("report_to", f"{name} is not installed; the curves are in run/curves.svg")


STEPS: tuple[Callable[[Translation], None], ...] = (
    *(data, adapters, data_type, batches, steps, lengths, rewards, kl_control, reports),
)
"""What translates the arguments of COMBINED."""
