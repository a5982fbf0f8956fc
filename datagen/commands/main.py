"""The command line: the table of commands; errors as one line and an exit code.

A command's module is imported when the command runs, so that `datagen --help` imports nothing but this file.
"""

import errno
import os
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from datagen.errors import DatagenError

if TYPE_CHECKING:
    from datagen.engine.method import Method

HELP = {"help_option_names": ["-h", "--help"]}


class Command(NamedTuple):
    """One command of the table."""

    module: str
    line: str
    """The line in `datagen --help`."""
    methods: tuple[str, ...] = ()
    """The method classes, as NAME in `module` or as MODULE:NAME. None: a tool, or a group of commands."""
    selector: str = ""
    """The option that selects one of several methods by its variant."""


COMMANDS = {
    "self-instruct": Command(
        "datagen.generators.self_instruct",
        "Generate new tasks from a few seed tasks.",
        ("SelfInstruct", "SelfInstructAlpaca", "SelfInstructBelle"),
        "mode",
    ),
    "evolve": Command(
        "datagen.generators.evolve",
        "Rewrite prompts into harder and rarer ones, and answer them.",
        ("Evolve", "EvolveCode", "EvolveMath"),
        "style",
    ),
    "magpie": Command(
        "datagen.generators.magpie", "Sample prompts from an aligned local model, and answer them.", ("Magpie",)
    ),
    "constraints": Command(
        "datagen.generators.constraints",
        "Add verifiable constraints to prompts, and generate answers that meet them.",
        ("Constraints",),
    ),
    "backtranslate": Command(
        "datagen.generators.backtranslate",
        "Generate an instruction for each passage of a corpus (instruction backtranslation).",
        ("Backtranslate",),
    ),
    "respond": Command(
        "datagen.strategies",
        "Answer prompts: directly, by chain of thought, by vote and more.",
        (
            "direct:Direct",
            "cot:ChainOfThought",
            "vote:Vote",
            "rft:RejectionSampling",
            "star:Star",
            "tree.tree_of_thoughts:TreeOfThoughts",
            "mcr:MetaReasoning",
        ),
        "strategy",
    ),
    "improve": Command(
        "datagen.generators.improve",
        "Rewrite answers into better ones, each checked by a judge.",
        ("ImproveEdit", "ImproveCritique", "ImproveRewrite", "ImproveConstitution"),
        "by",
    ),
    "judge": Command(
        "datagen.judge",
        "Score, compare and rank answers.",
        ("score:Score", "compare:Compare", "rank:Rank", "verify:Verify", "human:Human"),
        "by",
    ),
    "filter": Command(
        "datagen.select.filter", "Filter rows by rules, verifiers, near-duplicates and benchmark overlap.", ("Filter",)
    ),
    "pairs": Command(
        "datagen.select.pairs",
        "Make preference pairs (chosen, rejected) from ranked or verified answers.",
        ("Pairs", "PairsBestRandom", "PairsAll", "PairsVerified", "PairsSpin"),
        "by",
    ),
    "review": Command("datagen.commands.review", "Rank answers by hand, blind, on a local page."),
    "convert": Command("datagen.commands.convert", "Convert rows to the formats that other tools read."),
    "trace": Command(
        "datagen.commands.trace", "Show how a row was made, from its seed on: prompts, replies and rules."
    ),
    "train": Command(
        "datagen_train.cli",
        "Train a model on the rows: pretrain, sft, reward, dpo, ppo, grpo; eval, score, merge, chat, check.",
    ),
}
"""A new generator, strategy or judge is one entry here. The first of several methods is the default."""


class CommandGroup(TyperGroup):
    """The commands of a table; each is built, and its module imported, when it runs. Errors become one line here.

    A subclass sets `table` and writes `build`.
    """

    table: Mapping[str, Command]

    def build(self, name: str) -> Any:
        """Build the command called `name`; raise InputError if something it needs is not installed."""
        raise NotImplementedError

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.table)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a stub, enough to list the commands."""
        return TyperCommand(cmd_name, help=self.table[cmd_name].line) if cmd_name in self.table else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return name, self.build(name) if name and name in self.table else command, rest

    def invoke(self, ctx: Any) -> Any:
        """Run the command; end with one line and an exit code for any error that a user can meet."""
        try:
            return super().invoke(ctx)
        except DatagenError as error:
            message, code = str(error), error.exit_code
        except BrokenPipeError:
            # The reader of our output has left; Python would complain again when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None
        except OSError as error:
            message, code = os_error_message(error), DatagenError.exit_code
        from datagen.commands.terminal import printable

        print(f"error: {printable(message)}", file=sys.stderr)
        raise typer.Exit(code)


def os_error_message(error: OSError) -> str:
    """One-line message for an OSError about a file; re-raises any other."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        full = f"the disk is full ({error.strerror})"
        return f"{full}: free some space and run the same command again; what was recorded is kept"
    if error.filename is None:
        raise error
    return f"{error.filename}: {error.strerror}"


class Commands(CommandGroup):
    """The commands of `datagen`."""

    table = COMMANDS

    def build(self, name: str) -> Any:
        """Build a command from its methods, or from its module: a group of commands, or a tool."""
        from datagen.commands.flags import argument, fill_options, flags, make_command, make_method_command

        command = COMMANDS[name]
        if command.methods:
            return make_method_command(name, command.line, load_methods(name), command.selector)
        module = import_module(command.module)
        if hasattr(module, "app"):
            return typer.main.get_command(module.app)

        def run(values: dict[str, Any]) -> int:
            arguments = [values[argument] for argument, _ in module.ARGUMENTS]
            return int(module.run(*arguments, fill_options(module.Options, values)))

        parameters = [*(argument(*pair) for pair in module.ARGUMENTS), *flags(module.Options)]
        return make_command(name, command.line, parameters, run)


def load_methods(name: str) -> "dict[str, type[Method]]":
    """Import the methods of a command; return them by variant ("" where there is only one)."""
    command = COMMANDS[name]
    methods: dict[str, type[Method]] = {}
    for path in command.methods:
        file, _, class_name = path.rpartition(":")
        method: type[Method] = getattr(import_module(f"{command.module}.{file}".rstrip(".")), class_name)
        methods[method.variant] = method
    return methods


def make_app(commands: type[CommandGroup], help: str) -> typer.Typer:
    """Make a group of commands: without one it prints its help; errors are ours to print."""
    return typer.Typer(
        cls=commands,
        help=help,
        callback=lambda: None,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings=HELP,
    )


app = make_app(
    Commands,
    "Grow SFT and preference data with a large model; every row and every call is accounted for.\n\n"
    "JSON lines are read and written; - is standard input or output. Answers are recorded beside the output: "
    "a command that is run again after a stop or a crash repeats no paid call.",
)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
