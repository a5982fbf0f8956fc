"""The plug-ins that packages have installed, each loaded once to see whether it can be used: for `datagen doctor`."""

from collections.abc import Container, Iterator
from dataclasses import dataclass

from datagen.commands.plugin_methods import GENERATOR, load_method
from datagen.commands.table import COMMANDS, load_methods
from datagen.errors import InputError
from datagen.llm.functions import load_function
from datagen.llm.spec import Spec
from datagen.plugins import KINDS, all_registered, find_function, find_plugin, kind_of, package_of
from datagen.select.filter import ALL, NONE
from datagen.select.heuristics import FILTERS
from datagen.verify import VERIFIERS


@dataclass(frozen=True)
class Installed:
    """What a package registers."""

    kind: str
    name: str
    package: str
    """With its version; several where several registered the name."""
    problem: str = ""
    """Why it cannot be used."""


def installed_plugins() -> Iterator[Installed]:
    """Yield what the installed packages register, by kind and name."""
    for kind, names in sorted(all_registered().items()):
        for name, points in sorted(names.items()):
            problem = ""
            try:
                try_plugin(kind, name)
            except InputError as error:
                problem = str(error)
            yield Installed(kind, name, ", ".join(sorted(map(package_of, points))), problem)


def try_plugin(kind: str, name: str) -> None:
    """Load a plug-in as its command does; InputError if it cannot be used."""
    if kind not in KINDS:
        raise InputError(f"{kind}.{name}: a name begins with its kind, one of {', '.join(KINDS)}")
    if name in built_in(kind):
        raise InputError(f"{kind} {name}: is never used, since datagen has one of this name")
    if kind in ("verifier", "filter"):
        find_function(kind, name)
        return
    plugin = find_plugin(kind, name)
    assert plugin
    if kind == "model":
        load_function(Spec(plugin.identity, name, load=plugin.load))
    elif kind != "reward":
        load_method(plugin, kind)
    elif not callable(function := plugin.load()):
        raise InputError(f"reward {name}: is {kind_of(function)}, not a function")


def built_in(kind: str) -> Container[str]:
    """Return the names of a kind that datagen itself has."""
    fixed: dict[str, Container[str]] = {
        GENERATOR: COMMANDS,
        "verifier": VERIFIERS,
        "filter": (ALL, NONE, *FILTERS),
        "model": ("sim",),
        "reward": (),
    }
    if kind in fixed:
        return fixed[kind]
    return load_methods(next(name for name, command in COMMANDS.items() if kind == (command.kind or name)))
