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


COMMANDS = {
    "self-instruct": Command("datagen.generators.self_instruct", "Think up new tasks in the manner of a few seeds."),
    "evolve": Command("datagen.generators.evolve", "Rewrite prompts into harder and rarer ones, and answer them."),
    "magpie": Command("datagen.generators.magpie", "Have an aligned local model make up prompts, and answer them."),
    "constraints": Command(
        "datagen.generators.constraints", "Add constraints that can be verified, and answers that meet them."
    ),
    "backtranslate": Command(
        "datagen.generators.backtranslate", "Write the instruction that each passage of a corpus would answer."
    ),
    "respond": Command(
        "datagen.generators.respond", "Answer prompts: directly, by chain of thought, by vote and more."
    ),
    "improve": Command("datagen.generators.improve", "Turn answers into better ones, each checked by a judge."),
    "judge": Command("datagen.generators.judge", "Score, compare and rank answers."),
    "filter": Command("datagen.select.filter", "Drop rows by rules, verifiers, likeness and benchmarks."),
    "pairs": Command("datagen.select.pairs", "Make preferences, chosen and rejected, of ranked or verified answers."),
    "review": Command("datagen.commands.review", "Put answers in order by hand, blind, on a local page."),
    "convert": Command("datagen.commands.convert", "Write rows in the shapes that other tools read."),
    "trace": Command("datagen.commands.trace", "Show how a row came about, from its seed on: prompts, replies, rules."),
    "train": Command(
        "datagen_train.cli",
        "Train a model on the rows: pretrain, sft, reward, dpo, ppo, grpo; eval, score, merge, chat, check.",
    ),
}
"""Adding a generator is one line here."""


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
    """Make a command of what its module holds: a method or several ways to go, a group of commands, or a tool."""
    command = COMMANDS[name]
    module = import_module(command.module)
    if hasattr(module, "app"):
        return typer.main.get_command(module.app)
    from datagen.commands.flags import make_command, method_parameters, tool_parameters

    if hasattr(module, "METHOD"):
        parameters = method_parameters([module.METHOD])
        return make_command(name, command.line, parameters, lambda given: run_method(module.METHOD, given))
    if hasattr(module, "METHODS"):
        ways: Mapping[str, Method] = module.METHODS
        parameters = method_parameters(list(ways.values()), module.CHOICE)
        return make_command(name, command.line, parameters, lambda given: choose(module.CHOICE, ways, given))
    parameters = tool_parameters(module.ARGUMENTS, module.Options)
    return make_command(name, command.line, parameters, lambda given: run_tool(module, given))


def choose(choice: str, ways: "Mapping[str, Method]", given: dict[str, Any]) -> int:
    """Run one of a command's ways."""
    from datagen.errors import InputError

    def act() -> int:
        if given[choice] not in ways:
            raise InputError(f"--{choice} {given[choice]}: expected one of {', '.join(ways)}")
        return run_method(ways[given[choice]], given)

    return guarded(act)


def run_method(method: "Method", given: dict[str, Any]) -> int:
    """Run a method."""
    from datagen.commands import run as command

    return guarded(lambda: command.run_method(method, given))


def run_tool(module: Any, given: dict[str, Any]) -> int:
    """Run a command that makes no rows; it returns its exit code."""
    from datagen.commands.flags import pick

    arguments = [given[name] for name, _ in module.ARGUMENTS]
    return guarded(lambda: int(module.run(*arguments, pick(module.Options, given))))


def guarded(act: Callable[[], int]) -> int:
    """Run a command; turn what went wrong into one line and an exit code."""
    from datagen.commands.terminal import shown

    try:
        return act()
    except DatagenError as error:
        print(f"error: {shown(error)}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # Whoever read our output has left; Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        print(f"error: {shown(told(error))}", file=sys.stderr)
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
