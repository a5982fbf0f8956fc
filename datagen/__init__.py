"""Grow SFT and preference data with a large model.

`datagen --help` lists the commands. Each command that makes or selects rows is a function here, and one to await in
`datagen.aio`:

    from datagen import evolve
    rows = evolve(["How do I make a strong password?"], rounds=2, model="qwen3:8b@http://127.0.0.1:11434/v1")

docs/python.md explains them.
"""

from typing import Any

__version__ = "0.1.0"
FUNCTIONS = (
    *("self_instruct", "evolve", "magpie", "constraints", "backtranslate"),
    *("respond", "improve", "judge", "filter", "pairs"),
)
"""One for each command with methods."""
OTHERS = {
    "generator": "datagen.api.functions",
    "train": "datagen.api.training",
    "Rows": "datagen.api.rows",
    "Account": "datagen.api.rows",
    "Trained": "datagen.api.training",
    "Incomplete": "datagen.api.rows",
    "DatagenError": "datagen.errors",
    "InputError": "datagen.errors",
    "Outage": "datagen.errors",
}
"""The module of each: the functions for plug-ins and for training; what functions return, warn of and raise."""
__all__ = [*FUNCTIONS, *OTHERS, "__version__"]


def __getattr__(name: str) -> Any:
    """Import what is used: `datagen --help` needs none of it."""
    from importlib import import_module

    if name in FUNCTIONS:
        value = import_module("datagen.api.functions").make_function(name)
    elif name in OTHERS:
        value = getattr(import_module(OTHERS[name]), name)
    else:
        raise AttributeError(f"module 'datagen' has no attribute {name!r}")
    return globals().setdefault(name, value)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
