"""Builds commands from dataclasses of options: one place for the name, type, default, bounds and help of a flag."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Annotated, Any, TypeVar, get_type_hints

import typer
from typer.core import TyperCommand

from datagen.engine.method import Method
from datagen.engine.options import FILES, MODELS, RunOptions
from datagen.errors import InputError

Options = TypeVar("Options")
Parameters = list[inspect.Parameter]
INPUT_FLAGS = ("input", "format", "limit", "strict")
"""Parameters of commands that read an input."""


def make_command(name: str, help: str, parameters: Parameters, action: Callable[[dict[str, Any]], int]) -> TyperCommand:
    """Make a command that passes the values of its parameters to `action` and exits with the code that it returns."""

    def run(**values: Any) -> None:
        raise typer.Exit(action(values))

    run.__doc__ = help
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    single.command(name, context_settings={"help_option_names": ["-h", "--help"]})(run)
    command = typer.main.get_command(single)
    assert isinstance(command, TyperCommand)
    return command


def make_method_command(name: str, help: str, methods: Mapping[str, type[Method]], selector: str = "") -> TyperCommand:
    """Make a command that runs one of several methods.

    Args:
        name: The name of the command.
        help: Its line in `--help`.
        methods: The method classes by variant; the first is the default.
        selector: The option that selects one by its variant; empty where there is only one.
    """

    def run(values: dict[str, Any]) -> int:
        from datagen.commands.run import run_method

        variant = values[selector] if selector else next(iter(methods))
        if variant not in methods:
            raise InputError(f"--{selector} {variant}: expected one of {', '.join(methods)}")
        method = methods[variant]
        options: Any = fill_options(method.options_type, values)
        role_models = {role: values[role] for role in method.roles if values[role]}
        return run_method(method, values.get("input"), options, fill_options(RunOptions, values), role_models)

    return make_command(name, help, method_parameters(list(methods.values()), selector), run)


def method_parameters(methods: Sequence[type[Method]], selector: str) -> Parameters:
    """Return the parameters of a command: input, selector, options of all its methods, models of the roles, and what
    all methods share. A method that calls no model has only those about files; one that reads nothing, no input."""
    parameters = [argument("input", "A file of rows, or - for standard input.")]
    if selector:
        variants = [method.variant for method in methods]
        parameters.append(flag(selector, str, variants[0], help=f"One of: {', '.join(variants)}."))
    by_name: dict[str, inspect.Parameter] = {}
    for parameter in (parameter for method in methods for parameter in flags(method.options_type)):
        first = by_name.setdefault(parameter.name, parameter)
        if first.default != parameter.default:  # each variant has another default
            by_name[parameter.name] = first.replace(default=None)
    parameters += by_name.values()
    roles = {role: work for method in methods for role, work in method.roles.items()}
    for parameter, option in zip(flags(RunOptions), fields(RunOptions), strict=True):
        if roles or (option.metadata["panel"] == FILES and option.name != "dry_run"):
            parameters.append(parameter)
        if roles and option.name == "model":
            for role, work in roles.items():
                help = f"Model that {work}; replaces --model."
                parameters.append(flag(role, list[str], None, help=help, panel=MODELS))
    return [parameter for parameter in parameters if methods[0].reads_input or parameter.name not in INPUT_FLAGS]


def flags(options_type: type) -> Parameters:
    """Return a flag for each field of a dataclass of options."""
    hints = get_type_hints(options_type)
    return [
        flag(field.name, hints[field.name], None if field.default is MISSING else field.default, **field.metadata)
        for field in fields(options_type)
    ]


def flag(
    name: str,
    kind: Any,
    default: Any,
    *,
    help: str,
    short: str | None = None,
    least: float | None = None,
    most: float | None = None,
    panel: str = "Method",
) -> inspect.Parameter:
    """Return one flag. A switch has no `--no-` form, since it is off by default."""
    long = f"-{name}" if len(name) == 1 else f"--{name.replace('_', '-')}"
    annotation = typer.Option(
        *([long] if short in (None, long) else [long, short]),
        help=help.replace("[", r"\["),  # brackets are markup in help texts
        min=least,
        max=most,
        rich_help_panel=panel,
        show_default=default not in (None, False),
    )
    kind = list[str] | None if kind == list[str] else kind
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, annotation]
    )


def argument(name: str, help: str) -> inspect.Parameter:
    """Return a positional argument."""
    annotation = Annotated[str, typer.Argument(help=help, metavar=name.upper(), show_default=False)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation)


def fill_options(options_type: type[Options], values: Mapping[str, Any]) -> Options:
    """Fill a dataclass of options from the values of flags; a value of None keeps the default."""
    names = [field.name for field in fields(options_type)]  # type: ignore[arg-type]
    return options_type(**{name: values[name] for name in names if values.get(name) is not None})
