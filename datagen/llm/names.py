"""Names of models as servers write them: which ones may be the same model, and which of those listed is meant.

A server often gives a model a longer name than it was asked for: a date (gpt-4o-mini-2024-07-18), a folder
(models/gemini-2.5-pro), a tag (qwen3:latest), a file of weights (Qwen3-8B-Q4_K_M.gguf). A word that tells two models of
a family apart, such as mini, is no such part.
"""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from functools import lru_cache

MOST_CHARACTERS = 300
"""Of a name that is looked at."""
WORD = re.compile(r"[^\W\d_]+(?:\d[\d.]*[a-z]?)?|\d[\d.]*[a-z]*")
SIZE = re.compile(r"\d[\d.]*b")
DATE_DIGITS = 4
"""The fewest digits of a date, such as 0613; fewer are another version."""
KINDS = frozenset(
    "latest preview exp beta stable default main online free instruct chat it turbo fast hf gguf safetensors awq gptq "
    "int fp bf nvfp mxfp q iq k s m l xs xl".split()
)
"""Words that say how a model is served or packed, and not which one it is."""


def words_of(name: str) -> list[str]:
    """Return the words and numbers of a name, without the folder or the provider before it."""
    return WORD.findall(name[:MOST_CHARACTERS].lower().rstrip("/").rpartition("/")[2])


@lru_cache(256)
def is_same_model(requested: str, named: str) -> bool:
    """Check that two names may be those of one model: one of them only adds a date, a size or KINDS to the other."""
    kept = [[word for word in words_of(name) if word.rstrip("0123456789.") not in KINDS] for name in (requested, named)]
    first, second = sorted(kept, key=len)
    added = [word for word in second[len(first) :] if not SIZE.fullmatch(word)]
    is_date = all(word.isdigit() for word in added) and len("".join(added)) >= DATE_DIGITS
    return second[: len(first)] == first != [] and (not added or is_date)


def listed_as(name: str, names: Iterable[str]) -> str | None:
    """Return the name by which a list of models holds one; None if it does not."""
    known = list(names)
    return next((one for one in (name, f"models/{name}", f"{name}:latest") if one in known), None)


def nearest_name(name: str, names: Iterable[str]) -> str | None:
    """Return the listed name that is most like another; None if none is."""
    return next(iter(get_close_matches(name[:MOST_CHARACTERS], [one[:MOST_CHARACTERS] for one in names], 1, 0.5)), None)
