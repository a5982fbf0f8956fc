"""`datagen train`: the table of its commands. Nothing heavy is imported before one runs."""

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from datagen.commands.main import CommandGroup, make_app, make_group
from datagen.commands.table import Command
from datagen_train.options import (
    ClassifyOptions,
    DpoOptions,
    PretrainOptions,
    RewardOptions,
    SftOptions,
    TrainOptions,
)
from datagen_train.policy_options import DistillOptions, GrpoOptions, PpoOptions
from datagen_train.tools.options import (
    ChatOptions,
    CheckOptions,
    EvalOptions,
    MedicalGptOptions,
    MergeOptions,
    SweepOptions,
)

TRAINERS = {
    "pretrain": Command(
        "datagen_train.pretrain",
        "Continue pre-training on documents.",
        example="datagen train pretrain corpus.jsonl --model Qwen/Qwen3-0.6B",
        page="docs/training.md",
    ),
    "sft": Command(
        "datagen_train.sft",
        "Supervised fine-tuning: learn to answer prompts as the rows do.",
        example="datagen train sft rows.jsonl --model Qwen/Qwen3-0.6B",
        page="docs/training.md",
    ),
    "reward": Command(
        "datagen_train.reward",
        "Train a reward model on rankings or preferences.",
        example="datagen train reward prefs.jsonl --model rows.sft",
        page="docs/reward.md",
    ),
    "classify": Command(
        "datagen_train.classify",
        "Train a classifier: learn the label of a text.",
        example="datagen train classify reviews.jsonl --model Qwen/Qwen3-0.6B-Base",
        page="docs/training.md",
    ),
    "dpo": Command(
        "datagen_train.dpo",
        "Train on preferences without a reward model: DPO, KTO and others.",
        example="datagen train dpo prefs.jsonl --model rows.sft",
        page="docs/training.md",
    ),
    "distill": Command(
        "datagen_train.distill",
        "Learn from a larger model: its distribution of every token, on the student's own answers.",
        example="datagen train distill prompts.jsonl --model Qwen/Qwen3-0.6B --teacher Qwen/Qwen3-4B",
        page="docs/distill.md",
    ),
    "ppo": Command(
        "datagen_train.ppo",
        "Train on rewards for the model's own answers: PPO, with a critic.",
        example="datagen train ppo prompts.jsonl --model rows.sft --reward prefs.reward",
        page="docs/ppo.md",
    ),
    "grpo": Command(
        "datagen_train.grpo",
        "Train on rewards for groups of answers: GRPO or RLOO, without a critic.",
        example="datagen train grpo prompts.jsonl --model rows.sft --reward verifier:answer",
        page="docs/grpo.md",
    ),
}
TOOLS = {
    "eval": Command(
        "datagen_train.tools.evaluate",
        "Measure a model: held-out loss, exact match, ROUGE, accuracy.",
        example="datagen train eval rows.sft rows.jsonl",
        page="docs/training.md",
    ),
    "score": Command(
        "datagen_train.tools.score",
        "Rank samples by rewards: a reward model, a classifier, a verifier, a function.",
        example="datagen train score samples.jsonl --reward prefs.reward",
        page="docs/reward.md",
    ),
    "merge": Command(
        "datagen_train.tools.merge",
        "Merge a LoRA adapter into its base model, and compare the logits.",
        example="datagen train merge rows.sft",
        page="docs/training.md",
    ),
    "chat": Command(
        "datagen_train.tools.chat",
        "Talk to a model.",
        example="datagen train chat rows.sft",
        page="docs/training.md",
    ),
    "check": Command(
        "datagen_train.tools.check",
        "Show what would be trained: tokens, loss mask, findings.",
        example="datagen train check rows.jsonl --model rows.sft",
        page="docs/training.md",
    ),
}
SWEEP = {
    "sweep": Command(
        "datagen_train.tools.sweep",
        "Train with several values of some options, and name the best trial on held-out rows.",
        example="datagen train sweep sft rows.jsonl --model Qwen/Qwen3-0.6B --over learning-rate=1e-5,3e-5,1e-4",
        page="docs/sweep.md",
    ),
}
"""A group of commands, one for each trainer."""
OPTIONS: dict[str, Any] = {
    "pretrain": PretrainOptions,
    "sft": SftOptions,
    "reward": RewardOptions,
    "classify": ClassifyOptions,
    "dpo": DpoOptions,
    "distill": DistillOptions,
    "ppo": PpoOptions,
    "grpo": GrpoOptions,
    "eval": EvalOptions,
    "merge": MergeOptions,
    "chat": ChatOptions,
    "check": CheckOptions,
}
"""The options of each command; those of a trainer are joined by TrainOptions."""
FROM_MEDICALGPT = "--from-medicalgpt"
ROWS = "A file or a folder of rows, or hf://NAME."
FILES = (
    f"{ROWS} Several are read one after the other (--limit N rows of each); '0.5*FILE' trains on half of the rows, "
    "'2*FILE' on each row twice."
)
ARGUMENTS = {
    "eval": (("model", "Folder of a model."), ("data", "Rows with prompts and responses.")),
    "merge": (("adapter", "Folder of the adapter."),),
    "chat": (("model", "Folder of a model."),),
    "check": (("data", FILES),),
}
"""Positional arguments of the tools."""
SEVERAL = ("check",)
"""Tools that take several files of rows, as the trainers do."""


class Commands(CommandGroup):
    """The commands of `datagen train`."""

    table = TRAINERS | TOOLS | SWEEP

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find a command; the arguments of one of MedicalGPT are translated first."""
        if args[0] in TRAINERS and not ctx.resilient_parsing:
            args = [args[0], *translated(args[0], args[1:])]
        return super().resolve_command(ctx, args)

    def build(self, name: str, words: Sequence[str] = ()) -> Any:
        """Build a command from its options; what it runs is imported when it runs."""
        from datagen.commands.flags import argument, fill_options, flags, make_command, method_parameters

        line = self.table[name].line
        if name in SWEEP:
            return make_group(Sweeps, line)
        if name in TRAINERS:
            return trainer_command(name, line, run_trainer, MedicalGptOptions)
        if name == "score":
            from datagen_train.tools.score import RewardRanking

            return make_command(name, line, method_parameters([RewardRanking]), run_score)
        arguments = (argument(*pair, several=name in SEVERAL) for pair in ARGUMENTS[name])
        parameters = [*arguments, *flags(OPTIONS[name])]
        check = partial(fill_options, OPTIONS[name])
        return make_command(name, line, parameters, lambda values: run_tool(name, values), check)


class Sweeps(CommandGroup):
    """The commands of `datagen train sweep`."""

    table = {
        name: command._replace(
            line=f"Sweep options of {name}.",
            example=f"{command.example} --over learning-rate=1e-5,1e-4".replace("train", "train sweep", 1),
            page=SWEEP["sweep"].page,
        )
        for name, command in TRAINERS.items()
    }

    def build(self, name: str, words: Sequence[str] = ()) -> Any:
        return trainer_command(name, self.table[name].line, run_sweep, SweepOptions)


def trainer_command(name: str, line: str, action: Callable[[str, dict[str, Any]], int], *options: type) -> Any:
    """Make a command that takes what a trainer takes, and other options before them."""
    from datagen.commands.flags import argument, flags, make_command

    types = (*options, OPTIONS[name], TrainOptions)
    parameters = [argument("data", FILES, several=True), *(flag for group in types for flag in flags(group))]
    return make_command(
        name, line, parameters, lambda values: action(name, values), lambda values: fill_training(name, values)
    )


def translated(name: str, words: list[str]) -> list[str]:
    """Return the arguments of a trainer; those behind --from-medicalgpt are translated, and what came of them is shown.

    Arguments of ours may stand before and after it; theirs stand behind `--`.
    """
    flags = [word.replace("_", "-") for word in words]
    if FROM_MEDICALGPT not in flags:
        return words
    from datagen.printing import printable
    from datagen_train.launch import LAUNCHED
    from datagen_train.tools.medicalgpt import translate

    at = flags.index(FROM_MEDICALGPT)
    end = words.index("--") if "--" in words else at
    translation = translate(name, words[end + 1 :])
    ours = [*words[:at], *words[at + 1 : end], *translation.words()]
    if LAUNCHED not in os.environ:  # each process of a run translates, and one is enough to show it
        command = shlex.join(["datagen", "train", name, *ours])
        print(printable("\n".join([*translation.notes, f"translated: {command}"])), file=sys.stderr)
    return ours


def fill_training(name: str, values: dict[str, Any]) -> tuple[TrainOptions, Any]:
    """Return the options of a trainer; raise InputError if they do not fit together."""
    from datagen.commands.flags import fill_options
    from datagen_train.launch import process_count

    training, options = fill_options(TrainOptions, values), fill_options(OPTIONS[name], values)
    training = replace(training, nproc=process_count(training.nproc))
    options.check(training)
    return training, options


def read_options(name: str, values: dict[str, Any]) -> tuple[TrainOptions, Any]:
    """Return the options of a trainer.

    Raises:
        InputError: they do not fit together, or a file or model that they name cannot be read.
    """
    from datagen_train.division import check_launcher

    check_launcher()
    training, options = fill_training(name, values)
    check_sources(values["data"])
    check_model(training.model)
    if name == "distill":
        check_model(options.teacher)
    return training, options


def check_trainer(name: str, values: dict[str, Any]) -> int:
    """Check the options of a trainer, and run nothing."""
    read_options(name, values)
    return 0


def run_trainer(name: str, values: dict[str, Any]) -> int:
    """Run a trainer in one process or, with --nproc, start several; return the exit code.

    Mistakes in the options and in the name of the data are reported before any library is imported.
    """
    from datagen.libraries import import_extra
    from datagen_train.data.sources import parse_sources
    from datagen_train.errors import Finished
    from datagen_train.launch import LAUNCHED, check_devices, is_main, launch, leave_group
    from datagen_train.run.terminal import Terminal

    training, options = read_options(name, values)
    if training.nproc > 1 and LAUNCHED not in os.environ:
        # -P keeps the working folder off the path: a user's datagen.py or random.py there must not be taken for ours.
        return launch(training.nproc, [sys.executable, "-P", *sys.argv])
    if training.nproc == 1:
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # one process takes one device
    terminal = Terminal(name, quiet=training.quiet or not is_main())
    terminal.begin()
    try:
        terminal.phase("loading libraries")
        module = import_extra(TRAINERS[name].module, f"datagen train {name}")
        check_devices(training.nproc)
        report = module.run(values["data"], training, options, terminal)
    except Finished as finished:
        report = finished.report
    finally:
        terminal.end()
        leave_group()
    return terminal.conclude(report, training, parse_sources(values["data"])[0].name) if is_main() else 0


def run_sweep(name: str, values: dict[str, Any]) -> int:
    """Check the options of all trials of a sweep, run those that are not finished, and report them."""
    from datagen.libraries import check_extra
    from datagen_train.run.terminal import Terminal
    from datagen_train.tools import sweep

    plan = sweep.lay_out(name, values, (OPTIONS[name], TrainOptions))
    check = trainer_command(name, "", check_trainer)
    for trial in plan.trials:
        check.main(trial.arguments, f"datagen train {name}", standalone_mode=False)
    check_extra(f"datagen train sweep {name}")
    terminal = Terminal("sweep", quiet=values["quiet"])
    terminal.begin()
    try:
        sweep.run(plan, terminal, overwrite=values["overwrite"])
    finally:
        terminal.end()
    return sweep.conclude(plan, terminal, as_json=values["json"])


def run_tool(name: str, values: dict[str, Any]) -> int:
    """Run a command that trains nothing and print what it returns, unless that is an exit code."""
    from datagen.commands.flags import fill_options
    from datagen.commands.next_steps import after_merge
    from datagen.printing import printable, printable_json

    options = fill_options(OPTIONS[name], values)
    if name in SEVERAL:
        check_sources(values["data"])
    elif "data" in values:
        check_readable(values["data"])
    check_model(values.get("adapter") or values["model"])
    module = load(name, TOOLS[name].module)
    result = module.run(*(values[argument] for argument, _ in ARGUMENTS[name]), options)
    if isinstance(result, int):
        return result
    print(printable_json(result))
    if name == "merge":
        print(printable("\n".join(after_merge(Path(values["adapter"]), Path(result["output"])))), file=sys.stderr)
    return 0


def run_score(values: dict[str, Any]) -> int:
    """Run `datagen train score`, which is a method of datagen's engine."""
    from datagen_train.tools import score

    check_readable(values["input"])
    load("score", "datagen_train.rewards.specs")
    return score.run(values)


def load(name: str, module: str) -> Any:
    """Import what a command runs, and show on a terminal that this takes a while."""
    from datagen.libraries import import_extra
    from datagen_train.run.terminal import Terminal

    terminal = Terminal(name, quiet=not sys.stderr.isatty())
    terminal.begin()
    terminal.phase("loading libraries")
    try:
        return import_extra(module, f"datagen train {name}")
    finally:
        terminal.end()


def check_sources(data: Sequence[str]) -> None:
    """Raise InputError if one of several files cannot be read, or has no such weight."""
    from datagen_train.data.sources import parse_sources

    for source in parse_sources(data):
        check_readable(source.name)


def check_readable(name: str) -> None:
    """Raise InputError if there is no such file, or if it cannot be read."""
    from datagen.records.files import open_input

    if name != "-":
        open_input(name).close()


def check_model(spec: str) -> None:
    """Raise InputError if there is no such model; one of the hub is downloaded here."""
    from datagen.llm.local.hub import resolve_model

    if spec.partition(":")[0] != "tiny":
        resolve_model(spec)


app = make_app(
    Commands,
    "Train a model on rows, with checks before the first step. Stopped or killed, the same command continues "
    "from the newest complete checkpoint.",
)
