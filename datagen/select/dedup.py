"""The values of `filter --dedup`: what near-duplicates are near in, and from where on."""

from collections.abc import Iterable
from typing import NamedTuple

from datagen.errors import InputError
from datagen.select.meaning import THRESHOLD

SEMANTIC = "semantic"
EXACT = 1.0
"""The threshold for words at which only equal texts are duplicates."""


class Dedup(NamedTuple):
    """Above which similarity of words, and from which of meaning, rows are near-duplicates; None: not compared."""

    words: float | None
    meaning: float | None


NO_DEDUP = Dedup(None, None)


def read_dedup(texts: Iterable[str]) -> Dedup:
    """Read the values of `--dedup`; the last one of a kind counts.

    Raises:
        InputError: One is neither a number from 0 to 1 nor semantic[:X].
    """
    dedup = NO_DEDUP
    for text in texts:
        name, colon, number = text.partition(":") if text.startswith(SEMANTIC) else ("", ":", text)
        value = read_share(number) if colon else THRESHOLD
        if name not in ("", SEMANTIC) or value is None:
            raise InputError(f"--dedup {text}: expected a number from 0 to 1, {SEMANTIC}, or such as {SEMANTIC}:0.92")
        dedup = dedup._replace(meaning=value) if name else dedup._replace(words=value)
    return dedup


def read_share(text: str) -> float | None:
    """Return the number that a text is; None if it is none from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value <= 1 else None
