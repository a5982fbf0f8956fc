"""Objects in memory by a name, so that a function or a class is accepted where `FILE.py:NAME` is (docs/python.md)."""

import inspect
from functools import partial
from hashlib import sha256
from typing import Any

from datagen.plugins import DIGEST_LENGTH, IN_MEMORY, Plugin
from datagen.records.record import canonical


def remember(value: Any, name: str | None = None) -> str:
    """Return the word that names an object from now on, on a command line of this process.

    Args:
        value: A function, a class, or an object that can be called.
        name: How rows and messages call it; without it, its module and its own name.
    """
    name = name or own_name(value)
    word = f"{name}/{source_digest(value)}"
    IN_MEMORY[word] = Plugin(name, word, lambda: value)
    return word


def own_name(value: Any) -> str:
    """Return the module and the name of an object; of one that has no name, those of its class."""
    value = value.func if isinstance(value, partial) else value
    named = value if hasattr(value, "__name__") else type(value)
    return f"{named.__module__}:{named.__name__}"


def source_digest(function: Any) -> str:
    """Return a digest of the source code of a callable, and of the plain values that it closes over."""
    values: list[Any] = []
    if isinstance(function, partial):
        values, function = [function.args, *sorted(function.keywords.items())], function.func
    named = function if hasattr(function, "__qualname__") else type(function)
    try:
        source = inspect.getsource(named)
    except (OSError, TypeError):
        source = ""
    plain = inspect.unwrap(named)
    cells = tuple(cell.cell_contents for cell in getattr(plain, "__closure__", None) or ())
    code = getattr(plain, "__code__", None)  # its constants and names tell two lambdas of one line apart
    keywords = sorted((getattr(plain, "__kwdefaults__", None) or {}).items())
    values += [cells, getattr(plain, "__defaults__", None), *keywords]
    values += [code.co_consts, code.co_names] if code else []
    return sha256(canonical([source, list(map(plain_value, values))])).hexdigest()[:DIGEST_LENGTH]


def plain_value(value: Any) -> Any:
    """Return a text, a number or a tuple of them as it is, and of anything else its type.

    A list may be a state that changes while the model works; the text of an object changes from run to run.
    """
    if isinstance(value, tuple):
        return list(map(plain_value, value))
    return value if value is None or isinstance(value, str | int | float | bool) else type(value).__qualname__
