"""The command line: groups of commands, built when they run; errors as one line and an exit code.

A command's module is imported when the command runs, so that `datagen --help` imports nothing but this file
and the table.
"""

import errno
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

import datagen
from datagen.commands.table import COMMANDS, Command, load_methods
from datagen.errors import DatagenError, InputError

HELP = {
    "help_option_names": ["-h", "--help"],
    "token_normalize_func": lambda name: name.replace("_", "-"),  # self_instruct and --top_p are understood
}


class CommandGroup(TyperGroup):
    """The commands of a table; each is built, and its module imported, when it runs. Errors become one line here.

    A subclass sets `table` and writes `build`.
    """

    table: Mapping[str, Command]

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = {name: TyperCommand(name, help=command.line) for name, command in self.table.items()}
        """Stubs, enough to list the commands and to suggest one."""

    def build(self, name: str, words: Sequence[str] = ()) -> Any:
        """Build the command called `name`; raise InputError if something it needs is not installed.

        Args:
            name: One of the table.
            words: What stands behind it: a plug-in that they select adds options to the command.
        """
        raise NotImplementedError

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        if name:
            command = self.build(name, () if ctx.resilient_parsing else rest)
            command.epilog = self.table[name].epilog
        return name, command, rest

    def main(self, *arguments: Any, **settings: Any) -> Any:
        """Run the command line and exit; a wrong one ends with one line too."""
        try:
            code = super().main(*arguments, **{**settings, "standalone_mode": False})
        except typer.TyperException as error:
            from datagen.commands.usage import usage_message

            code = 2
            if str(error):  # empty where no arguments were given: the help is printed then
                print_error(usage_message(error))
        sys.exit(code)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; end with one line and an exit code for any error that a user can meet."""
        try:
            check_working_folder()
            return super().invoke(ctx)
        except DatagenError as error:
            message, code = str(error), error.exit_code
        except BrokenPipeError:
            # The reader of our output has left; Python would complain again when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None
        except OSError as error:
            message, code = os_error_message(error), DatagenError.exit_code
        print_error(message)
        raise typer.Exit(code)


def check_working_folder() -> None:
    """Raise InputError if the working folder is gone: no relative name means anything then."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise InputError("the working folder was removed; change to another one (cd)") from None


def print_error(message: str) -> None:
    """Print the one line for an error."""
    from datagen.printing import printable

    print(f"error: {printable(message)}", file=sys.stderr)


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

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands, those of packages last."""
        from datagen.plugins import package_of, registered

        for name, points in registered("generator").items():
            if name not in self.table:
                self.commands[name] = TyperCommand(name, help=f"Added by {package_of(points[0])}.")
        return super().list_commands(ctx)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find a command, which may be a plug-in; one of `datagen train` that is called without its group is named."""
        if args[0] not in self.table and not ctx.resilient_parsing:
            from datagen.commands.plugin_methods import plugin_command

            if command := plugin_command(args[0], self.table):
                return args[0], command, args[1:]
            self.list_commands(ctx)  # a name that is nearly that of a package is suggested, too
        trainers = import_module(COMMANDS["train"].module).Commands.table if args[0] not in self.table else ()
        if args[0] in trainers and not ctx.resilient_parsing:
            ctx.fail(f"No such command {args[0]!r}. Did you mean 'train {args[0]}'?")
        return super().resolve_command(ctx, args)

    def build(self, name: str, words: Sequence[str] = ()) -> Any:
        """Build a command from its methods, or from its module: a group of commands, or a tool."""
        from datagen.commands.flags import argument, fill_options, flags, make_command, make_method_command
        from datagen.plugins import registered

        command = COMMANDS[name]
        if command.methods:
            methods, others = load_methods(name, words), registered(command.kind or name)
            return make_method_command(name, command.line, methods, command.selector, list(others))
        module = import_module(command.module)
        if hasattr(module, "app"):
            return typer.main.get_command(module.app)

        def run(values: dict[str, Any]) -> int:
            arguments = [values[argument[0]] for argument in module.ARGUMENTS]
            return int(module.run(*arguments, fill_options(module.Options, values)))

        parameters = [*(argument(*pair) for pair in module.ARGUMENTS), *flags(module.Options)]
        return make_command(name, command.line, parameters, run)


def make_app(commands: type[CommandGroup], help: str, *, is_program: bool = False) -> typer.Typer:
    """Make a group of commands: without one it prints its help; errors are ours to print.

    Args:
        commands: The class of the group.
        help: Its text in `--help`.
        is_program: Whether it is the program itself, which has a version and completes commands in a shell.
    """
    return typer.Typer(
        cls=commands,
        help=help,
        callback=program_options if is_program else lambda: None,
        no_args_is_help=True,
        add_completion=is_program,
        pretty_exceptions_enable=False,
        context_settings=HELP,
    )


def make_group(commands: type[CommandGroup], help: str) -> Any:
    """Make a group of commands that is a command of another group; for the arguments see `make_app`."""
    return typer.main.get_command(make_app(commands, help))


def show_version(requested: bool) -> None:
    if requested:
        print(f"datagen-train {datagen.__version__}")
        raise typer.Exit


def program_options(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """The options of `datagen` itself."""


app = make_app(
    Commands,
    "Grow SFT and preference data with a large model; every row and every call is accounted for.\n\n"
    "JSON, CSV, Parquet, Arrow and text are read, JSON lines are written; - is standard input or output. Answers are "
    "recorded beside the output: "
    "a command that is run again after a stop or a crash repeats no paid call.",
    is_program=True,
)


def main() -> None:
    """Run the command line; `datagen.__main__` catches what is caught nowhere else."""
    app()
