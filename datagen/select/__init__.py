"""Which rows are kept: rules, novelty, contamination, pairs."""

from collections.abc import Callable, Iterable
from typing import TypeVar

Subject = TypeVar("Subject")
Rule = Callable[[Subject], str | None]
"""A function that returns its own name, the reason to reject its subject, or None."""


def first_reason(rules: Iterable[Rule[Subject]], subject: Subject) -> str | None:
    """Return the name of the first rule that rejects the subject, or None."""
    return next((reason for rule in rules if (reason := rule(subject))), None)
