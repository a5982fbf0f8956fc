"""The command line: the table of commands, errors in one line, exit codes.

A command's module is imported when the command runs, so that `datagen --help` imports nothing but this.
"""

import errno
import os
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from datagen.errors import DatagenError

if TYPE_CHECKING:
    from datagen.engine.method import Method

HELP = {"help_option_names": ["-h", "--help"]}


class Command(NamedTuple):
    """One command: where it is, and what it does."""

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
        "Add verifiable constraints to prompts, and answers that meet them.",
        ("Constraints",),
    ),
    "backtranslate": Command(
        "datagen.generators.backtranslate",
        "Write the instruction that each passage of a corpus would answer.",
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
        ("score:Score", "compare:Compare", "rank:Rank", "verified:Verify", "human:Human"),
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
"""Adding a generator, a strategy or a way to judge is one entry here. The first of several methods is the default."""


def load_methods(name: str) -> "dict[str, type[Method]]":
    """Import the methods of a command; return them by variant ("" where there is one alone)."""
    command = COMMANDS[name]
    methods: dict[str, type[Method]] = {}
    for path in command.methods:
        file, _, class_name = path.rpartition(":")
        method: type[Method] = getattr(import_module(f"{command.module}.{file}".rstrip(".")), class_name)
        methods[method.variant] = method
    return methods


class Lazy(TyperGroup):
    """Commands of a table; a stub stands for each until it runs."""

    table: Mapping[str, Command]
    build: Callable[[str], Any]

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.table)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return TyperCommand(cmd_name, help=self.table[cmd_name].line) if cmd_name in self.table else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return name, type(self).build(name) if name and name in self.table else command, rest


def build_command(name: str) -> Any:
    """Build a command from what its module holds: methods, a group of commands, or a tool."""
    from datagen.commands.flags import make_command, method_parameters, tool_parameters

    command = COMMANDS[name]
    if command.methods:
        methods = load_methods(name)
        parameters = method_parameters(list(methods.values()), command.selector)
        return make_command(name, command.line, parameters, lambda given: run_selected(name, methods, given))
    module = import_module(command.module)
    if hasattr(module, "app"):
        return typer.main.get_command(module.app)
    parameters = tool_parameters(module.ARGUMENTS, module.Options)
    return make_command(name, command.line, parameters, lambda given: run_tool(module, given))


def run_selected(name: str, methods: "Mapping[str, type[Method]]", given: dict[str, Any]) -> int:
    """Run the method that the command line selects; return the exit code."""
    from datagen.commands.run import run_method
    from datagen.errors import InputError

    selector = COMMANDS[name].selector

    def act() -> int:
        variant = given[selector] if selector else next(iter(methods))
        if variant not in methods:
            raise InputError(f"--{selector} {variant}: expected one of {', '.join(methods)}")
        return run_method(methods[variant], given)

    return guarded(act)


def run_tool(module: Any, given: dict[str, Any]) -> int:
    """Run a command that makes no rows; it returns its exit code."""
    from datagen.commands.flags import pick

    arguments = [given[name] for name, _ in module.ARGUMENTS]
    return guarded(lambda: int(module.run(*arguments, pick(module.Options, given))))


def guarded(act: Callable[[], int]) -> int:
    """Run a command; turn what went wrong into one line and an exit code."""
    from datagen.commands.terminal import printable

    try:
        return act()
    except DatagenError as error:
        print(f"error: {printable(error)}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # Whoever read our output has left; Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        print(f"error: {printable(told(error))}", file=sys.stderr)
        return DatagenError.exit_code


def told(error: OSError) -> str:
    """Say in one line what the system refuses; raise what is no matter of the user's files."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        full = f"the disk is full ({error.strerror})"
        return f"{full}: make room and run the same command again; what was recorded is kept"
    if error.filename is None:
        raise error
    return f"{error.filename}: {error.strerror}"


class Commands(Lazy):
    """The commands of `datagen`."""

    table = COMMANDS
    build = staticmethod(build_command)


app = typer.Typer(
    cls=Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, context_settings=HELP
)


@app.callback(
    help="Grow SFT and preference data with a large model; every row and every call is accounted for.\n\n"
    "JSON lines go in and come out; - is standard input or output. Answers are recorded beside the output: "
    "stopped, killed or run again, a command pays for nothing twice."
)
def datagen() -> None:
    """Hold what all commands share."""


def main() -> None:
    app()


if __name__ == "__main__":
    main()
