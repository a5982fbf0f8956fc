"""`datagen train`: the table of its commands. Nothing heavy is imported before one runs."""

import json
import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import typer

from datagen.commands.main import HELP, Command, Lazy, guarded
from datagen.errors import InputError

TRAINERS = {
    "pretrain": Command("datagen_train.pretrain", "Learn to continue documents."),
    "sft": Command("datagen_train.sft", "Learn to answer prompts as the rows do."),
    "reward": Command("datagen_train.reward", "Learn to score answers from ranked ones, or from preferences."),
    "dpo": Command(
        "datagen_train.dpo", "Learn to prefer the chosen answers to the rejected ones (DPO, KTO and others)."
    ),
    "ppo": Command("datagen_train.ppo", "Learn from rewards for its own answers, by PPO with a critic."),
    "grpo": Command(
        "datagen_train.grpo", "Learn from rewards for groups of its own answers, by GRPO or RLOO, with no critic."
    ),
}
TOOLS = {
    "eval": Command("datagen_train.tools.evaluate", "Measure a model: held-out loss, exact match, ROUGE, accuracy."),
    "score": Command(
        "datagen_train.tools.score", "Rank samples by rewards: a reward model, a classifier, a verifier, a function."
    ),
    "merge": Command("datagen_train.tools.merge", "Merge adapters into their model, and compare."),
    "chat": Command("datagen_train.tools.chat", "Talk to a model."),
    "check": Command("datagen_train.tools.check", "Show what would be trained: tokens, loss mask, findings."),
}
ARGUMENTS = {
    "eval": (("model", "A model's folder."), ("data", "Rows with prompts and responses.")),
    "merge": (("adapter", "The folder of the adapters."),),
    "chat": (("model", "A model's folder."),),
    "check": (("data", "A file of rows."),),
}


def build_command(name: str) -> Any:
    """Make a command of `datagen train`."""
    from datagen.commands.flags import argument, flags, make_command, method_parameters
    from datagen_train.options import TrainOptions

    command = (TRAINERS | TOOLS)[name]
    try:
        module = import_module(command.module)
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "rapidfuzz"):
            raise
        missing = error.name
        raise SystemExit(guarded(lambda: needs_extra(missing))) from error
    if name in TRAINERS:
        parameters = [argument("data", "A file of rows."), *flags(module.Options), *flags(TrainOptions)]
        return make_command(name, command.line, parameters, lambda given: run_trainer(module, given))
    if name == "score":
        parameters = method_parameters([module.RewardRanking])
        return make_command(name, command.line, parameters, lambda given: guarded(lambda: int(module.run(given))))
    parameters = [*(argument(*each) for each in ARGUMENTS[name]), *flags(module.Options)]
    return make_command(name, command.line, parameters, lambda given: run_tool(name, module, given))


def needs_extra(missing: str) -> int:
    raise InputError(f"training needs {missing}: pip install 'datagen-train[train]'")


def run_trainer(module: Any, given: dict[str, Any]) -> int:
    """Run a trainer, in as many processes as were asked for."""
    from datagen.commands.flags import pick
    from datagen_train.launch import LAUNCHED, is_main, launch, leave_group
    from datagen_train.options import TrainOptions
    from datagen_train.run.terminal import Terminal

    options = pick(TrainOptions, given)
    if options.nproc > 1 and LAUNCHED not in os.environ:
        # -P keeps the working folder off the path: a user's datagen.py or random.py there must not be taken for ours.
        return guarded(lambda: launch(options.nproc, [sys.executable, "-P", "-m", "datagen", *sys.argv[1:]]))

    def act() -> int:
        terminal = Terminal(quiet=options.quiet or not is_main())
        try:
            report = module.run(given["data"], options, pick(module.Options, given), terminal)
        finally:
            terminal.end()  # or a terminal would be left without its cursor
            leave_group()
        return terminal.conclude(report, options) if report and is_main() else 0

    if options.nproc == 1:
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # one process takes one device
    return guarded(act)


def run_tool(name: str, module: Any, given: dict[str, Any]) -> int:
    """Run a command that trains nothing; print what it returns."""
    from datagen.commands.flags import pick

    arguments = [given[argument] for argument, _ in ARGUMENTS[name]]

    def act() -> int:
        result = module.run(*arguments, pick(module.Options, given))
        if isinstance(result, int):
            return result
        print(json.dumps(result, indent=2, ensure_ascii=False))
        return 0

    return guarded(act)


class Commands(Lazy):
    """The commands of `datagen train`."""

    table = TRAINERS | TOOLS
    build: Callable[[str], Any] = staticmethod(build_command)


app = typer.Typer(
    cls=Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, context_settings=HELP
)


@app.callback(
    help="Train a model on rows, with checks before the first step. Stopped or killed, the same command goes on from "
    "the newest complete checkpoint."
)
def train() -> None:
    """Hold what all commands share."""
