"""The functions of `datagen`, to be awaited: they run in the event loop of the caller.

A call that is cancelled ends at once, as after `kill -9`: what was recorded is used by the next one.
"""

from typing import Any

import datagen

__all__ = list(datagen.FUNCTIONS)


def __getattr__(name: str) -> Any:
    """Make the function that is used."""
    if name not in datagen.FUNCTIONS:
        raise AttributeError(f"module 'datagen.aio' has no attribute {name!r}")
    from datagen.api.functions import make_async_function

    return globals().setdefault(name, make_async_function(name))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
