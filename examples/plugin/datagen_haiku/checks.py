"""`--verify haiku`: whether an answer has three lines of 5, 7 and 5 syllables."""

import re

from datagen.records.record import Record

SYLLABLE = re.compile(r"[aeiouy]+", re.IGNORECASE)


def is_haiku(record: Record, response: str) -> bool | None:
    """Return whether the answer is a haiku; None for a text in another script, whose syllables are not counted."""
    if not response.isascii():
        return None
    return [len(SYLLABLE.findall(line)) for line in response.strip().splitlines()] == [5, 7, 5]
