"""From dataclasses of options to flags of a command: one place for name, type, default, bounds and help."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from typing import Annotated, Any, TypeVar, get_type_hints

import typer
from typer.core import TyperCommand

from datagen.engine.method import Method
from datagen.engine.options import FILES, MODELS, RunOptions, option

Options = TypeVar("Options")
ABOUT_INPUT = ("input", "format", "limit", "strict")


def argument(name: str, help: str) -> inspect.Parameter:
    """Make a positional argument."""
    told = typer.Argument(help=help, metavar=name.upper(), show_default=False)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[str, told])


def tool_parameters(arguments: Iterable[tuple[str, str]], options: type) -> list[inspect.Parameter]:
    """Make the parameters of a command that makes no rows."""
    return [*(argument(*each) for each in arguments), *flags(options)]


def method_parameters(methods: Sequence[type[Method]], choice: str | None = None) -> list[inspect.Parameter]:
    """Make the parameters of a command: which way to go, the options of every way, a model for each role, and what
    all methods share."""
    parameters = [argument("input", "A file of rows, or - for standard input.")]
    if choice:
        ways = [method.variant for method in methods]
        told = option(ways[0], f"How: {', '.join(ways)}.").metadata
        parameters.append(flag(choice, str, ways[0], told))
    own: dict[str, inspect.Parameter] = {}
    for made in (made for method in methods for made in flags(method.options_type)):
        same = own.setdefault(made.name, made)
        if same.default != made.default:  # each way has its own
            own[made.name] = same.replace(default=None)
    roles = {role: does for method in methods for role, does in method.roles.items()}
    found = [*parameters, *own.values(), *run_parameters(roles)]
    return [each for each in found if methods[0].reads or each.name not in ABOUT_INPUT]


def run_parameters(roles: Mapping[str, str]) -> list[inspect.Parameter]:
    """Make the parameters that all methods share; one that asks no model needs those about files alone."""
    if not roles:
        return [made for made, each in zip(flags(RunOptions), fields(RunOptions), strict=True) if _is_about_files(each)]
    shared = flags(RunOptions)
    after_model = 1 + [parameter.name for parameter in shared].index("model")
    told = {
        role: option([], f"The model that {does}; in place of --model.", panel=MODELS).metadata
        for role, does in roles.items()
    }
    return (
        shared[:after_model] + [flag(role, list[str], None, each) for role, each in told.items()] + shared[after_model:]
    )


def _is_about_files(field: Field[Any]) -> bool:
    return field.metadata["panel"] == FILES and field.name != "dry_run"


def flags(options: type) -> list[inspect.Parameter]:
    """Make a flag of every field."""
    hints = get_type_hints(options)
    return [flag(f.name, hints[f.name], _default(f), f.metadata) for f in fields(options)]


def _default(field: Field[Any]) -> Any:
    return None if field.default is MISSING else field.default


def flag(name: str, kind: Any, default: Any, told: Mapping[str, Any]) -> inspect.Parameter:
    """Make one flag. A switch has no `--no-` form: off is how it starts."""
    long = f"-{name}" if len(name) == 1 else f"--{name.replace('_', '-')}"
    declared = [long] if told["short"] in (None, long) else [long, told["short"]]
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


def pick(options: type[Options], given: Mapping[str, Any]) -> Options:
    """Fill a dataclass of options from what the command line gave; what was not given keeps its default."""
    names = [each.name for each in fields(options)]  # type: ignore[arg-type]
    return options(**{name: given[name] for name in names if given.get(name) is not None})


def make_command(
    name: str, line: str, parameters: list[inspect.Parameter], act: Callable[[dict[str, Any]], int]
) -> TyperCommand:
    """Make a command that hands what it was given to `act` and exits with what that returns."""

    def run(**given: Any) -> None:
        raise typer.Exit(act(given))

    run.__doc__ = line
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    single.command(name, context_settings={"help_option_names": ["-h", "--help"]})(run)
    built = typer.main.get_command(single)
    assert isinstance(built, TyperCommand)
    return built
