"""Which models wrote or judged a row, as its `meta` says."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

MAKERS = ("model", "models", "evolver", "asker", "user", "backward", "judge", "judges", "responses")
"""Keys of `meta` that name the models that wrote or judged a row."""


def makers(meta: Mapping[str, Any]) -> Iterator[str]:
    """Yield the identities of the models that wrote or judged a row."""
    for name in MAKERS:
        value = meta.get(name)
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, str):
                yield item
            elif isinstance(item, dict):
                yield from makers(item)


def is_sim(name: str) -> bool:
    """Is this the built-in teacher, by its identity in a row or its spec on the command line?"""
    return bool(re.match(r"sim([/:]|$)", name))
