"""Methods of others: a generator as a command, a strategy or a judge as a variant of one.

`datagen FILE.py:NAME`, `respond --strategy FILE.py:NAME`, or a name that a package registers. The class is loaded
before the command line is parsed, since its options are flags of the command.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from inspect import getfile
from re import fullmatch
from typing import Any

from datagen.commands.flags import make_method_command
from datagen.engine.method import Method
from datagen.engine.options import RunOptions
from datagen.errors import InputError
from datagen.plugins import Plugin, failures_explained, find_plugin, kind_of

GENERATOR = "generator"
NAME = r"[a-z0-9][a-z0-9_-]*"
"""The name of a generator, which becomes part of the names of its outputs."""


def plugin_command(name: str, taken: Mapping[str, object]) -> Any:
    """Build the command of a generator of others; None if the name is no FILE.py:NAME and not registered.

    Args:
        name: The first word of the command line.
        taken: The names of the commands.

    Raises:
        InputError: It cannot be loaded, or is no generator.
    """
    plugin = find_plugin(GENERATOR, name)
    if plugin is None:
        return None
    method = load_method(plugin, GENERATOR)
    if not fullmatch(NAME, method.name) or method.name in taken:
        problem = "is that of a command" if method.name in taken else "may have small letters, digits, - and _"
        raise InputError(f"generator {name}: its class names it {method.name!r}, which {problem}")
    with failures_explained(getfile(method)):
        line = (method.__doc__ or method.name).strip().splitlines()[0]
        return make_method_command(method.name, line, {method.variant: method})


def plugin_variants(
    kind: str, selector: str, words: Sequence[str], taken: Mapping[str, object]
) -> dict[str, type[Method]]:
    """Return the method of others that a command line selects, by the word that selects it; none if it selects none.

    Args:
        kind: What the variants of the command are, such as "strategy".
        selector: The option that selects one.
        words: What stands behind the name of the command.
        taken: The variants that the command has.
    """
    word = selected(selector, words)
    plugin = find_plugin(kind, word) if word and word not in taken else None
    return {word: load_method(plugin, kind)} if word and plugin else {}


def selected(selector: str, words: Sequence[str]) -> str | None:
    """Return the value of an option in the words of a command line, the last one, as the parser takes it."""
    flag, value = f"--{selector}", None
    words = words[: words.index("--")] if "--" in words else words
    for at, word in enumerate(words):
        if word.startswith(f"{flag}="):
            value = word.removeprefix(f"{flag}=")
        elif word == flag and at + 1 < len(words):
            value = words[at + 1]
    return value


def load_method(plugin: Plugin, kind: str) -> type[Method]:
    """Load a class, as a method that knows where it comes from, and whose variant is the name by which it is known.

    Raises:
        InputError: It cannot be loaded, or is no class of a method.
    """
    method, place = plugin.load(), f"{kind} {plugin.name}"
    if not (isinstance(method, type) and issubclass(method, Method)):
        raise InputError(f"{place}: is {kind_of(method)}, and no subclass of datagen.engine.method.Method")
    for name in ("name", "options_type"):
        if not hasattr(method, name):
            raise InputError(f"{place}: its class has no `{name}`")
    if not is_dataclass(method.options_type):
        raise InputError(f"{place}: its `options_type` is {kind_of(method.options_type)}, not a dataclass")
    if method.generate is Method.generate:
        raise InputError(f"{place}: its class has no `generate`")
    shared = {field.name for field in fields(RunOptions)} | method.roles.keys() | {"input"}
    for field in fields(method.options_type):
        if field.name in shared:
            raise InputError(f"{place}: its option `{field.name}` has the name of an option of every command")
        if "help" not in field.metadata:
            raise InputError(f"{place}: its option `{field.name}` is not made by `option(DEFAULT, HELP)`")
    about: dict[str, Any] = {"origin": plugin.identity, "__module__": method.__module__, "__doc__": method.__doc__}
    if kind != GENERATOR:
        about["variant"] = plugin.name.rpartition(":")[2].lower()
    known: type[Method] = type(method.__name__, (method,), about)
    return known
