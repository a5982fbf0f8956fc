"""`datagen train`: the table of its commands. Nothing heavy is imported before one runs."""

import json
import os
import sys
from importlib import import_module
from typing import Any

from datagen.commands.main import Command, CommandGroup, make_app
from datagen.errors import InputError

TRAINERS = {
    "pretrain": Command("datagen_train.pretrain", "Continue pre-training on documents."),
    "sft": Command("datagen_train.sft", "Supervised fine-tuning: learn to answer prompts as the rows do."),
    "reward": Command("datagen_train.reward", "Train a reward model on rankings or preferences."),
    "dpo": Command("datagen_train.dpo", "Train on preferences without a reward model: DPO, KTO and others."),
    "ppo": Command("datagen_train.ppo", "Train on rewards for the model's own answers: PPO, with a critic."),
    "grpo": Command("datagen_train.grpo", "Train on rewards for groups of answers: GRPO or RLOO, without a critic."),
}
TOOLS = {
    "eval": Command("datagen_train.tools.evaluate", "Measure a model: held-out loss, exact match, ROUGE, accuracy."),
    "score": Command(
        "datagen_train.tools.score", "Rank samples by rewards: a reward model, a classifier, a verifier, a function."
    ),
    "merge": Command("datagen_train.tools.merge", "Merge a LoRA adapter into its base model, and compare the logits."),
    "chat": Command("datagen_train.tools.chat", "Talk to a model."),
    "check": Command("datagen_train.tools.check", "Show what would be trained: tokens, loss mask, findings."),
}
ARGUMENTS = {
    "eval": (("model", "Folder of a model."), ("data", "Rows with prompts and responses.")),
    "merge": (("adapter", "Folder of the adapter."),),
    "chat": (("model", "Folder of a model."),),
    "check": (("data", "A file of rows."),),
}
"""Positional arguments of the tools."""


class Commands(CommandGroup):
    """The commands of `datagen train`."""

    table = TRAINERS | TOOLS

    def build(self, name: str) -> Any:
        """Build a command from its module."""
        from datagen.commands.flags import argument, flags, make_command, method_parameters
        from datagen_train.options import TrainOptions

        command = self.table[name]
        try:
            module = import_module(command.module)
        except ModuleNotFoundError as error:
            if error.name not in ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "rapidfuzz"):
                raise
            raise InputError(f"training needs {error.name}: pip install 'datagen-train[train]'") from error
        if name in TRAINERS:
            parameters = [argument("data", "A file of rows."), *flags(module.Options), *flags(TrainOptions)]
            return make_command(name, command.line, parameters, lambda values: run_trainer(module, values))
        if name == "score":
            return make_command(name, command.line, method_parameters([module.RewardRanking], ""), module.run)
        parameters = [*(argument(*pair) for pair in ARGUMENTS[name]), *flags(module.Options)]
        return make_command(name, command.line, parameters, lambda values: run_tool(name, module, values))


def run_trainer(module: Any, values: dict[str, Any]) -> int:
    """Run a trainer in one process or, with --nproc, start several; return the exit code."""
    from datagen.commands.flags import fill_options
    from datagen_train.launch import LAUNCHED, is_main, launch, leave_group
    from datagen_train.options import TrainOptions
    from datagen_train.run.terminal import Terminal

    options = fill_options(TrainOptions, values)
    if options.nproc > 1 and LAUNCHED not in os.environ:
        # -P keeps the working folder off the path: a user's datagen.py or random.py there must not be taken for ours.
        return launch(options.nproc, [sys.executable, "-P", "-m", "datagen", *sys.argv[1:]])
    if options.nproc == 1:
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # one process takes one device
    terminal = Terminal(quiet=options.quiet or not is_main())
    try:
        report = module.run(values["data"], options, fill_options(module.Options, values), terminal)
    finally:
        terminal.end()  # or a terminal would be left without its cursor
        leave_group()
    return terminal.conclude(report, options) if report and is_main() else 0


def run_tool(name: str, module: Any, values: dict[str, Any]) -> int:
    """Run a command that trains nothing and print what it returns, unless that is an exit code."""
    from datagen.commands.flags import fill_options

    arguments = [values[argument] for argument, _ in ARGUMENTS[name]]
    result = module.run(*arguments, fill_options(module.Options, values))
    if isinstance(result, int):
        return result
    print(json.dumps(result, indent=2, ensure_ascii=False))
    return 0


app = make_app(
    Commands,
    "Train a model on rows, with checks before the first step. Stopped or killed, the same command continues "
    "from the newest complete checkpoint.",
)
