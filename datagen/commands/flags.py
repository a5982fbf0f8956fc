"""Builds commands from dataclasses of options: one place for the name, type, default, bounds and help of a flag."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar, get_type_hints

import typer
from typer.core import TyperCommand

from datagen.engine.method import Method
from datagen.engine.options import FILES, MODELS, RunOptions, check_choices
from datagen.errors import InputError, unknown_value
from datagen.plugins import FILE_NAME

Options = TypeVar("Options")
Parameters = list[inspect.Parameter]
TEXT_OPTIONS = (
    *(
        "model",
        "temperature",
        "top_p",
        "max_tokens",
        "judge_param",
        "chat_template_kwargs",
        "prompts",
        "seed",
        "n",
        "shard",
        "ray",
    ),
)
"""Options of a run that mean nothing where models give vectors: those of answers, and of rows made anew."""
INPUT_FLAGS = ("input", "format", "map", "limit", "strict")
"""Parameters of commands that read an input."""


class CheckedCommand(TyperCommand):
    """A command that can check its words without running."""

    only_checks = False
    checked: object = None
    """What `check` has returned."""

    def check_words(self, words: Sequence[str], name: str) -> object:
        """Check a command line without running it; files that it reads need not be there yet.

        Args:
            words: What stands behind the name.
            name: The words before, for messages.

        Returns:
            What the check of `make_command` returns: of a method a MethodCall.

        Raises:
            InputError: The command does not take these words.
        """
        from datagen.commands.usage import usage_message

        self.only_checks = True
        try:
            self.main(list(words), name, standalone_mode=False)
        except typer.TyperException as error:
            raise InputError(usage_message(error)) from None
        return self.checked


def make_command(
    name: str,
    help: str,
    parameters: Parameters,
    action: Callable[[dict[str, Any]], int],
    check: Callable[[dict[str, Any]], object] = lambda values: None,
) -> CheckedCommand:
    """Make a command that passes the values of its parameters to `action` and exits with the code that it returns.

    `check` gets the values where they are only checked: it raises InputError for those that do not fit together.
    """

    def run(**values: Any) -> None:
        assert isinstance(command, CheckedCommand)
        if command.only_checks:
            command.checked = check(values)
        else:
            raise typer.Exit(action(values))

    run.__doc__ = help
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    single.command(name, cls=CheckedCommand, context_settings={"help_option_names": ["-h", "--help"]})(run)
    command = typer.main.get_command(single)
    assert isinstance(command, CheckedCommand)
    return command


class MethodCall(NamedTuple):
    """A method with all that a command line says, as `run_method` takes it."""

    method: type[Method]
    input: str | None
    options: Any
    run: RunOptions
    role_models: Mapping[str, Sequence[str]]


def make_method_command(
    name: str, help: str, methods: Mapping[str, type[Method]], selector: str = "", others: Sequence[str] = ()
) -> TyperCommand:
    """Make a command that runs one of several methods.

    Args:
        name: The name of the command.
        help: Its line in `--help`.
        methods: The method classes by variant; the first is the default.
        selector: The option that selects one by its variant; empty where there is only one.
        others: The names of methods that packages register; one that is selected is among `methods`.
    """

    first = next(iter(methods))

    def choose(values: dict[str, Any]) -> MethodCall:
        variant = values[selector] if selector else first
        if variant not in methods:
            raise unknown_value(f"--{selector}", variant, [*methods, *others, FILE_NAME])
        refuse_options_of_others(values, methods, variant, f"{name} --{selector} {variant}")
        method = methods[variant]
        role_models = {role: values[role] for other in methods.values() for role in other.roles if values[role]}
        options: Any = fill_options(method.options_type, values)
        return MethodCall(method, values.get("input"), options, fill_options(RunOptions, values), role_models)

    def run(values: dict[str, Any]) -> int:
        from datagen.commands.run import run_method

        call, given = choose(values), {"name": name, "values": given_values(parameters, values)}
        return run_method(*call, name if call.method.variant == first else f"{name}-{call.method.variant}", given)

    variants = list(dict.fromkeys((*methods, *others)))
    parameters = method_parameters(list(methods.values()), selector, variants)
    return make_command(name, help, parameters, run, choose)


def given_values(parameters: Parameters, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that differ from the defaults, as JSON holds them."""
    return {
        parameter.name: str(value) if isinstance(value, Path) else value
        for parameter in parameters
        if (value := values[parameter.name]) not in (None, parameter.default)
    }


def refuse_options_of_others(
    values: Mapping[str, Any], methods: Mapping[str, type[Method]], variant: str, command: str
) -> None:
    """Raise InputError for an option that other variants of a command take, and this one does not."""
    known = {field.name for field in fields(methods[variant].options_type)}
    takers: dict[str, list[str]] = {}
    for other, method in methods.items():
        for parameter in flags(method.options_type):
            if parameter.name not in known and values.get(parameter.name) not in (None, parameter.default):
                takers.setdefault(parameter.name, []).append(other)
    for option, variants in takers.items():
        long = f"-{option}" if len(option) == 1 else f"--{option.replace('_', '-')}"
        raise InputError(f"{long}: {command} does not take it; only {', '.join(variants)} can")


def method_parameters(methods: Sequence[type[Method]], selector: str = "", variants: Sequence[str] = ()) -> Parameters:
    """Return the parameters of a command: input, selector, options of all its methods, models of the roles, and what
    all methods share. A method that calls no model has only those about files; one that reads nothing, no input."""
    parameters = [argument("input", "A file or a folder of rows, hf://NAME, or - for standard input.")]
    if selector:
        help = f"One of: {', '.join(variants)}; or {FILE_NAME}."
        parameters.append(flag(selector, str, variants[0], help=help, choices=variants))
    by_name: dict[str, inspect.Parameter] = {}
    for parameter in (parameter for method in methods for parameter in flags(method.options_type)):
        first = by_name.setdefault(parameter.name, parameter)
        if first.default != parameter.default:  # each variant has another default
            by_name[parameter.name] = first.replace(default=None)
    parameters += by_name.values()
    roles = {role: work for method in methods for role, work in method.roles.items()}
    stand_ins = {role: other for method in methods for role, other in method.stand_ins.items()}
    for parameter, option in zip(flags(RunOptions), fields(RunOptions), strict=True):
        if option.name == "judge_param" and "judge" not in roles:
            continue
        is_for_text = methods[0].embeds and option.name in TEXT_OPTIONS
        is_used = bool(roles) or (option.metadata["panel"] == FILES and option.name != "dry_run")
        if is_used and not is_for_text:
            parameters.append(parameter)
        if roles and option.name == "model":
            for role, work in roles.items():
                instead = f"; replaces --{stand_ins.get(role, 'model')}" if not methods[0].embeds else ""
                parameters.append(flag(role, list[str], None, help=f"Model that {work}{instead}.", panel=MODELS))
    return [parameter for parameter in parameters if methods[0].reads_input or parameter.name not in INPUT_FLAGS]


def flags(options_type: type) -> Parameters:
    """Return a flag for each field of a dataclass of options."""
    hints = get_type_hints(options_type)

    def declared(field: Any) -> inspect.Parameter:
        metadata = {name: value for name, value in field.metadata.items() if name != "file"}
        return flag(field.name, hints[field.name], None if field.default is MISSING else field.default, **metadata)

    return [declared(field) for field in fields(options_type)]


def flag(
    name: str,
    kind: Any,
    default: Any,
    *,
    help: str,
    long: str | None = None,
    short: str | None = None,
    least: float | None = None,
    most: float | None = None,
    choices: Sequence[str] = (),
    panel: str = "Method",
) -> inspect.Parameter:
    """Return one flag. A switch has no `--no-` form, since it is off by default; a shell completes `choices`."""
    long = long or (f"-{name}" if len(name) == 1 else f"--{name.replace('_', '-')}")
    annotation = typer.Option(
        *([long] if short is None else [long, short]),
        help=help.replace("[", r"\["),  # brackets are markup in help texts
        min=least,
        max=most,
        rich_help_panel=panel,
        autocompletion=lambda: list(choices),
        show_default=default is not None and default is not False,
    )
    kind = list[str] | None if kind == list[str] else kind
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, annotation]
    )


def argument(name: str, help: str, several: bool = False, optional: bool = False) -> inspect.Parameter:
    """Return a positional argument; its value is a list if it takes several, and None if it may be left out and is."""
    kind: Any = list[str] if several else str
    kind = kind | None if optional else kind
    help = help.replace("[", r"\[")
    annotation = Annotated[kind, typer.Argument(help=help, metavar=name.upper(), show_default=False)]
    default = None if optional else inspect.Parameter.empty
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def fill_options(options_type: type[Options], values: Mapping[str, Any]) -> Options:
    """Fill a dataclass of options from the values of flags; a value of None keeps the default.

    Raises:
        InputError: A value is none of its option's choices.
    """
    names = [field.name for field in fields(options_type)]  # type: ignore[arg-type]
    options = options_type(**{name: values[name] for name in names if values.get(name) is not None})
    check_choices(options)
    return options


def names_of(parameter: Any) -> Iterator[str]:
    """Yield the names of a parameter: its own, and those of its flags."""
    yield parameter.name
    for flag in parameter.opts:
        yield flag.lstrip("-").replace("-", "_")


def value_words(command: Any, values: Mapping[str, Any]) -> list[str]:
    """Return the words for the values of a command: its arguments first, then its options in their order."""
    arguments, options = [], []
    for parameter in command.params:
        value = values.get(parameter.name)
        items = [str(item) for item in (value if isinstance(value, list) else [value])]
        flag = max(parameter.opts, key=len)
        if value is None or value is False:
            continue
        if parameter.param_type_name == "argument":
            arguments += items
        elif value is True:
            options.append(flag)
        else:
            options += [word for item in items for word in (flag, item)]
    return [*arguments, *options]
