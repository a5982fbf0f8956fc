"""The command line: the table of commands, options from dataclasses, errors in one line, exit codes.

A command's module is imported when the command runs, so that `datagen --help` imports nothing but this.
"""

import inspect
import os
import sys
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from datagen.errors import DatagenError

if TYPE_CHECKING:
    from datagen.method import Method


class Command(NamedTuple):
    """One command: where it is, and what it does."""

    module: str
    line: str


COMMANDS = {
    "evolve": Command("datagen.generators.evolve", "Rewrite prompts into harder and rarer ones, and answer them."),
}
"""Adding a generator is one line here."""


class Commands(TyperGroup):
    """The commands of the table; a stub stands for each until it runs."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return TyperCommand(cmd_name, help=COMMANDS[cmd_name].line) if cmd_name in COMMANDS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return name, build_command(name) if name in COMMANDS else command, rest


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(
    help="Grow SFT and preference data with a large model; every row and every call is accounted for.\n\n"
    "JSON lines go in and come out; - is standard input or output. Answers are recorded beside the output: "
    "stopped, killed or run again, a command pays for nothing twice."
)
def datagen() -> None:
    """Hold what all commands share."""


def build_command(name: str) -> TyperCommand:
    """Make the command of a method: its own options, a model for each role, and what all commands share."""
    from datagen.options import MODELS, RunOptions, option

    command = COMMANDS[name]
    method: Method = import_module(command.module).METHOD
    parameters = [_input_parameter(), *_parameters(method.options), *_parameters(RunOptions)]
    after_model = 1 + [parameter.name for parameter in parameters].index("model")
    for role, does in reversed(list(method.roles.items())):
        told = option([], f"The model that {does}; in place of --model.", panel=MODELS).metadata
        parameters.insert(after_model, _parameter(role, list[str], None, told))

    def run(**given: Any) -> None:
        raise typer.Exit(guarded(method, given))

    run.__doc__ = command.line
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    single.command(name, context_settings={"help_option_names": ["-h", "--help"]})(run)
    built = typer.main.get_command(single)
    assert isinstance(built, TyperCommand)
    return built


def _input_parameter() -> inspect.Parameter:
    told = typer.Argument(help="A file of rows, or - for standard input.", metavar="INPUT", show_default=False)
    return inspect.Parameter("input", inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[str, told])


def _parameters(options: type) -> list[inspect.Parameter]:
    hints = get_type_hints(options)
    return [_parameter(f.name, hints[f.name], _default(f), f.metadata) for f in fields(options)]


def _default(field: Field[Any]) -> Any:
    return None if field.default is MISSING else field.default


def _parameter(name: str, kind: Any, default: Any, told: Mapping[str, Any]) -> inspect.Parameter:
    """Make one option of the command line. A switch has no `--no-` form: off is how it starts."""
    flag = "-n" if name == "n" else f"--{name.replace('_', '-')}"
    declared = [flag] if told["short"] in (None, flag) else [flag, told["short"]]
    made = typer.Option(
        *declared,
        help=told["help"].replace("[", r"\["),  # brackets are markup in help texts
        min=told["least"],
        max=told["most"],
        rich_help_panel=told["panel"],
        show_default=default not in (None, False),
    )
    kind = list[str] | None if kind == list[str] else kind
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, made])


def guarded(method: "Method", given: dict[str, Any]) -> int:
    """Run a command; turn what went wrong into one line and an exit code."""
    from datagen.command import run_method
    from datagen.progress import shown

    try:
        return run_method(method, given)
    except DatagenError as error:
        print(f"error: {shown(error)}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # Whoever read our output has left; Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def main() -> None:
    app()


if __name__ == "__main__":
    main()
