"""The functions of `datagen` and `datagen.aio`: one for each command with methods, with its options as keywords."""

import inspect
import warnings
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar, get_args

from datagen.api.calls import LEFT_OUT, call, call_and_wait, command_of
from datagen.api.rows import Incomplete, Rows
from datagen.commands.table import COMMANDS

F = TypeVar("F", bound=Callable[..., Any])
OWN = {
    "folder": "Folder whose .datagen/ holds the journal and rows given from memory, where no output is named. [.]",
    "progress": "Whether to show the progress. [on a terminal and in a notebook]",
}
"""The keywords that no command has."""
HELP = {"output": "File (.jsonl) to write; the rows are returned in any case. [none]"}
"""What differs from the command line."""
ONE_OR_MORE = str | list[str] | None


def make_function(name: str) -> Callable[..., Rows]:
    """Return the function that runs a command and waits for it; `name` is a name in `datagen.FUNCTIONS`."""

    def function(rows: Any = None, /, **options: Any) -> Rows:
        return with_warnings(call_and_wait(command_name(name), rows, options))

    return described(function, name)


def generator(name: str) -> Callable[..., Rows]:
    """Return the function of a generator of others: `FILE.py:NAME`, or a name that a package registers.

    Raises:
        InputError: There is none, or it cannot be loaded.
    """

    def function(rows: Any = None, /, **options: Any) -> Rows:
        return with_warnings(call_and_wait(name, rows, options))

    function.__doc__ = command_of(name).help
    return function


def with_warnings(rows: Rows) -> Rows:
    """Warn of what was not obtained, at the line that has called the function; return the rows."""
    for message in rows.account.warnings:
        warnings.warn(message, Incomplete, stacklevel=3)
    return rows


def make_async_function(name: str) -> Callable[..., Awaitable[Rows]]:
    """Return the function that runs a command in the running event loop."""

    async def function(rows: Any = None, /, **options: Any) -> Rows:
        return with_warnings(await call(command_name(name), rows, options))

    return described(function, name)


def command_name(name: str) -> str:
    return name.replace("_", "-")


def described(function: F, name: str) -> F:
    """Give a function the name, the signature and the text that an editor or a notebook shows."""
    command, keywords = COMMANDS[command_name(name)], list(parameters_of(name))
    inputs = [inspect.Parameter("rows", inspect.Parameter.POSITIONAL_ONLY)] if reads_input(name) else []
    listed = [f"    {keyword.name}: {text}" for keyword, text in keywords]
    function.__name__ = function.__qualname__ = name
    function.__doc__ = "\n".join([command.line, "", f"More: {command.page} and docs/python.md", "", "Args:", *listed])
    function.__signature__ = inspect.Signature([*inputs, *(keyword for keyword, _ in keywords)], return_annotation=Rows)  # type: ignore[attr-defined]
    return function


def reads_input(name: str) -> bool:
    """Whether a function takes rows."""
    return any(parameter.name == "input" for parameter in command_of(command_name(name)).params)


def parameters_of(name: str) -> Iterator[tuple[inspect.Parameter, str]]:
    """Yield the keywords of a function, each with its help."""
    callback: Any = command_of(command_name(name)).callback
    for parameter in inspect.signature(inspect.unwrap(callback)).parameters.values():
        if parameter.name in LEFT_OUT:
            continue
        kind, info = get_args(parameter.annotation)
        text = HELP.get(parameter.name) or info.help.replace(r"\[", "[")
        yield parameter.replace(annotation=ONE_OR_MORE if kind == list[str] | None else kind), text
    for own, text in OWN.items():
        yield inspect.Parameter(own, inspect.Parameter.KEYWORD_ONLY, default=None), text
