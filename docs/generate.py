"""Write docs/commands.md, docs/reasons.md and the stubs of the Python API from the program itself, or check that they
are up to date.

python docs/generate.py [--check]
"""

import inspect
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from textwrap import fill
from typing import Any, get_args

import typer

from datagen import FUNCTIONS
from datagen.api.functions import ONE_OR_MORE, command_name, parameters_of, reads_input
from datagen.commands.flags import flags
from datagen.commands.main import app
from datagen.commands.table import COMMANDS, Command, load_methods
from datagen.engine.method import Method
from datagen.engine.options import RunOptions
from datagen.engine.reasons import COMMON_REASONS
from datagen.engine.unobtained import COMMON_ASKS
from datagen_train.cli import SWEEP, TOOLS, TRAINERS
from datagen_train.options import TrainOptions
from datagen_train.tools.options import SweepOptions
from datagen_train.tools.score import RewardRanking

HEADING = """# Commands

Made by `make docs` from the command line; do not edit. `datagen COMMAND --help` says the same.

`datagen --version` shows the version. `datagen --install-completion` completes commands and options
in your shell. Underscores are hyphens: `self_instruct`, `--top_p`. Several forms of a name mean the
same: `-n 100`, `--rows 100`, `--rows=100`.
"""
REASONS_HEADING = """# Why a row was rejected

Made by `make docs` from the program; do not edit.

Every candidate that is not kept stands in `x.rejected.jsonl`: its `reason`, the `stage` of the
method, the whole row that it was made from under `record`, and the `reply` that shows why. The
funnel at the end of a run counts them by reason. `status` is `rejected` where a rule dropped the
candidate, and `failed` where a call got no good answer: the same command tries these again.

A line of the input that cannot be used stands there with `stage` `read`, what is wrong with it as
its reason, and the line itself as `record.raw`.
"""
UNOBTAINED_HEADING = """## What was asked for and not obtained

A row may be kept without something that was asked for beside it, such as a verdict. The funnel has a
line for each of these below its own, and `x.meta.json` the numbers under `result.funnel.unobtained`:
how much was asked for, and how much of it is missing. Where that is more than half, the command ends
with exit code 3."""
SHARED = {"run": ("Options of a run", RunOptions), "training": ("Options of training", TrainOptions)}
"""Options that many commands have, described once: the heading and the dataclass."""
STUB_HEADING = """# Made by `make docs` from the command line; do not edit.
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from datagen.api.rows import Rows as Rows

Model = str | Callable[..., Any]
Text = str | float | Path | Callable[..., Any]
Models = Model | Sequence[Model] | Mapping[str, Callable[..., Any]] | None
Texts = Text | Sequence[Text] | Mapping[str, Any] | None
"""
STUB_OF_PACKAGE = """from datagen.api.functions import generator as generator
from datagen.api.rows import Account as Account
from datagen.api.rows import Incomplete as Incomplete
from datagen.api.training import Trained as Trained
from datagen.api.training import train as train
from datagen.errors import DatagenError as DatagenError
from datagen.errors import InputError as InputError
from datagen.errors import Outage as Outage

__version__: str
FUNCTIONS: tuple[str, ...]
"""
OWN_TYPES = {
    "folder": "str | Path | None",
    "progress": "bool | None",
    "map": "str | Mapping[str, str] | None",
    "chat_template_kwargs": "str | Mapping[str, Any] | None",
    "concurrency": "str | int",
    "max_failed": "str | int",
    "output": "str | Path | None",
}
"""What a keyword takes where its option holds a text."""
KINDS = {"int": "N", "float": "X", "str": "TEXT", "Path": "PATH"}


def commands_page() -> str:
    """Return the page of all commands."""
    group: Any = typer.main.get_command(app)
    train = group.build("train")
    commands = [(f"datagen {name}", command, group) for name, command in COMMANDS.items() if name != "train"]
    commands += [(f"datagen train {name}", command, train) for name, command in (TRAINERS | TOOLS).items()]
    entries = [(title, command) for title, command, _ in commands] + [("datagen train sweep", SWEEP["sweep"])]
    index = "\n".join(wrapped(f"- [`{title}`](#{anchor(title)}): {command.line}") for title, command in entries)
    sections = [section(title, command, group.build(title.split()[-1])) for title, command, group in commands]
    sections.append(sweep_section(SWEEP["sweep"]))
    shared = [f"## {title}\n\n{option_list(flags(options))}" for title, options in SHARED.values()]
    return "\n\n".join([HEADING + "\n" + index, *sections, *shared]) + "\n"


def section(title: str, command: Command, built: Any) -> str:
    """Return the section of one command: what it does, an example, its own options, and the names of shared
    ones."""
    parameters = list(inspect.signature(built.callback.__wrapped__).parameters.values())
    lists, own = [], parameters
    for heading, options in SHARED.values():
        names = {key(parameter) for parameter in flags(options)}
        common = [parameter for parameter in own if key(parameter) in names]
        own = [parameter for parameter in own if key(parameter) not in names]
        if common:
            text = f"[{heading}](#{anchor(heading)}): " + ", ".join(f"`{names_of(p)[0]}`" for p in common)
            lists.append(wrapped(text + ".", indent=""))
    return "\n\n".join([*opening(title, command), option_list(own), *lists])


def opening(title: str, command: Command) -> list[str]:
    """Return how the section of a command begins: its heading, what it does, an example."""
    page = "" if command.page == "docs/commands.md" else f" More: [{command.page}]({Path(command.page).name})."
    return [f"## {title}", wrapped(command.line + page, indent=""), f"Example: `{command.example}`"]


def sweep_section(command: Command) -> str:
    """Return the section of the sweep, which has a command for each trainer, with its options."""
    text = "`datagen train sweep TRAINER` takes the arguments and options of `datagen train TRAINER`, and these:"
    return "\n\n".join([*opening("datagen train sweep", command), text, option_list(flags(SweepOptions))])


def reasons_page() -> str:
    """Return the page of all reasons: those of all methods, then those of each command."""
    common = "\n".join(reason_item(name, text) for name, text in COMMON_REASONS.items())
    sections = [f"## All commands\n\n{common}\n\nA command that calls no model has `duplicate` alone."]
    groups: dict[str, Mapping[str, type[Method]]] = {
        name: load_methods(name) for name, command in COMMANDS.items() if command.methods
    }
    groups["train score"] = {RewardRanking.variant: RewardRanking}
    for name, methods in groups.items():
        sections.append(f"## {name}\n\n{reason_list(methods)}")
    return "\n\n".join([REASONS_HEADING.rstrip(), *sections, UNOBTAINED_HEADING, ask_list(groups)]) + "\n"


def reason_list(methods: Mapping[str, type[Method]]) -> str:
    """Return an item for each reason of a command, with the variants that have it where not all do."""
    variants: dict[tuple[str, str], list[str]] = {}
    for variant, method in methods.items():
        for reason in method.reasons.items():
            variants.setdefault(reason, []).append(variant)
    return "\n".join(
        reason_item(name, text, "" if len(names) == len(methods) else f" ({', '.join(names)})")
        for (name, text), names in variants.items()
    )


def ask_list(groups: Mapping[str, Mapping[str, type[Method]]]) -> str:
    """Return an item for each thing that some command asks for beside its rows, with the commands."""
    commands = {ask: ["with --reasoning only"] for ask in COMMON_ASKS.items()}
    for name, methods in groups.items():
        for variant, method in methods.items():
            for ask in method.asks.items():
                same = all(method.asks == other.asks for other in methods.values())
                commands.setdefault(ask, []).append(name if same else f"{name}: {variant}")
    return "\n".join(
        reason_item(name, text, f" ({', '.join(dict.fromkeys(names))})") for (name, text), names in commands.items()
    )


def reason_item(name: str, text: str, variants: str = "") -> str:
    return wrapped(f"- `{name}`{variants}: {text}")


def option_list(parameters: Iterable[inspect.Parameter]) -> str:
    """Return one item for each argument and option."""
    return "\n".join(wrapped(f"- {item(parameter)}") for parameter in parameters)


def wrapped(text: str, indent: str = "  ") -> str:
    return fill(text, 100, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def item(parameter: inspect.Parameter) -> str:
    """Return the names, the kind of value, the help, the default and the bounds of an argument or option."""
    info, kind = details(parameter)
    help = info.help.replace("\\[", "[")
    if isinstance(info, typer.models.ArgumentInfo):
        return f"`{parameter.name.upper()}`: {help}"
    value = "" if kind is bool else f" {KINDS[kind.__name__]}"
    names = ", ".join(f"`{name}{value}`" for name in names_of(parameter))
    facts = [f"at least {info.min:g}"] if info.min is not None else []
    facts += [f"at most {info.max:g}"] if info.max is not None else []
    facts += [f"default `{parameter.default}`"] if info.show_default and parameter.default is not None else []
    text = ", ".join(facts)
    return f"{names}: {help}" + (f" {text[0].upper()}{text[1:]}." if text else "")


def details(parameter: inspect.Parameter) -> tuple[Any, Any]:
    """Return what typer knows of a parameter, and the type of its value, or of one of its values."""
    kind, info = get_args(parameter.annotation)
    while args := [arg for arg in get_args(kind) if arg is not type(None)]:
        kind = args[0]
    return info, kind


def names_of(parameter: inspect.Parameter) -> list[str]:
    """Return the names of an option, the long one first (typer.Option keeps the first name apart)."""
    info = details(parameter)[0]
    return [info.default, *info.param_decls]


def key(parameter: inspect.Parameter) -> tuple[str, Any, str]:
    """Return what makes two options the same."""
    return parameter.name, parameter.default, str(details(parameter)[0].help)


def anchor(heading: str) -> str:
    """Return the anchor of a heading."""
    return heading.lower().replace(" ", "-")


def stub(*, is_async: bool) -> str:
    """Return the stub of `datagen` or of `datagen.aio`, by which editors know the keywords of each function."""
    functions = [function_stub(name, is_async=is_async) for name in FUNCTIONS]
    return "\n".join([STUB_HEADING, *([] if is_async else [STUB_OF_PACKAGE]), *functions])


def function_stub(name: str, *, is_async: bool) -> str:
    """Return the declaration of a function of the API."""
    roles = {"model", *(role for method in load_methods(command_name(name)).values() for role in method.roles)}
    inputs = ["rows: Any", "/"] if reads_input(name) else []
    selector = COMMANDS[command_name(name)].selector
    keywords = [keyword_stub(keyword, roles, selector) for keyword, _ in parameters_of(name)]
    keywords += ["**options: Any"] if selector else []  # those of a plug-in
    lines = "".join(f"    {parameter},\n" for parameter in [*inputs, "*", *keywords])
    return f"{'async ' if is_async else ''}def {name}(\n{lines}) -> Rows: ...\n"


def keyword_stub(keyword: inspect.Parameter, roles: Collection[str], selector: str) -> str:
    """Return a keyword with the type of what it takes: more than its option holds, which is text."""
    kind, name = keyword.annotation, keyword.name
    if name in roles:
        text = "Models"
    elif name == selector:
        text = "str | type"
    elif kind == ONE_OR_MORE:
        text = "Texts"
    elif name in OWN_TYPES:
        text = OWN_TYPES[name]
    else:
        text = " | ".join(dict.fromkeys(part.__name__ for part in get_args(kind) or (kind,)))
        text = text.replace("NoneType", "None").replace("Path", "str | Path")
        text += " | None" if keyword.default is None and "None" not in text else ""
    default = "..." if isinstance(keyword.default, Path) else repr(keyword.default)
    return f"{name}: {text} = {default}"


PAGES: dict[str, Callable[[], str]] = {
    "docs/commands.md": commands_page,
    "docs/reasons.md": reasons_page,
    "datagen/__init__.pyi": lambda: stub(is_async=False),
    "datagen/aio.pyi": lambda: stub(is_async=True),
}


if __name__ == "__main__":
    for name, write_page in PAGES.items():
        path = Path(__file__).parents[1] / name
        if "--check" not in sys.argv:
            path.write_text(write_page(), encoding="utf-8")
        elif path.read_text(encoding="utf-8") != write_page():
            sys.exit(f"{name} is out of date: make docs")
