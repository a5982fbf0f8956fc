"""What a run learns about a server, kept in the journal for the next runs.

It belongs to a place: a model at an address, or an address alone. It is no part of a call's key nor of a row: it
decides how a request is sent, never what is asked for. What proves wrong is forgotten, and everything after a week.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

KEPT_SECONDS = 7 * 24 * 3600
"""How long facts are used: a server may have changed without a sign."""
MOST_CHARACTERS = 10_000
"""Of the facts of one place."""


class Facts(NamedTuple):
    """What is known of a place."""

    values: Mapping[str, Any]
    """JSON values by name; empty if nothing is known."""
    learned: float
    """When, in seconds since 1970."""

    def are_fresh(self, now: float) -> bool:
        """Check that they may be used; a time in the future is that of a wrong clock."""
        return 0 <= now - self.learned < KEPT_SECONDS


class Learner(Protocol):
    """What learns facts about a place, and uses them."""

    @property
    def facts(self) -> Facts:
        """What is known now."""
        ...

    def recall(self, facts: Facts) -> None:
        """Begin with what an earlier run has learned. It comes from a file: what is not understood is left out."""
        ...


def decode(text: object) -> Mapping[str, Any]:
    """Read the values of facts; empty if they cannot be read."""
    try:
        values = json.loads(text) if isinstance(text, bytes) and len(text) <= MOST_CHARACTERS else None
    except (ValueError, RecursionError):
        values = None
    return values if isinstance(values, dict) else {}


def number_from(value: Any, least: float, most: float) -> float | None:
    """Return a value that is a number within bounds; None if it is anything else."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and least <= value <= most else None
