"""What a judge might have said instead: the probabilities of the tokens at one place of its reply.

A score is then an expected value (Deita, arXiv 2312.15685), a verdict a soft label (RLAIF, arXiv 2309.00267).
"""

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from datagen.llm.call import Completion

ASKED: dict[str, Any] = {"logprobs": True, "top_logprobs": 20}
"""Parameters that ask for probabilities; 20 is the most that the API gives."""


def alternatives(said: Completion, at: int) -> dict[str, float]:
    """Return the tokens that could have begun at a place of the text, without blanks, and their probabilities.

    The tokens are laid over the text from its end, since thinking may stand before it. Nothing is returned where they
    do not spell it, or none begins at that place.
    """
    rest, tail = said.text[at:], ""
    for token in reversed((said.logprobs or {}).get("content") or []):
        tail = token["token"] + tail
        if len(tail) >= len(rest):
            begins_here = tail.endswith(rest) and not tail[: len(tail) - len(rest)].strip()
            return _shares(token.get("top_logprobs") or []) if begins_here else {}
    return {}


def _shares(top: Sequence[Any]) -> dict[str, float]:
    shares = defaultdict[str, float](float)
    for each in top:
        shares[each["token"].strip()] += math.exp(each["logprob"])
    return dict(shares)


def expected_value(said: Completion, at: int, most: int) -> float | None:
    """Return the mean of the whole numbers from 0 to `most` that could have stood at a place; None if not known."""
    found = alternatives(said, at)
    whole = {int(token): share for token, share in found.items() if token.isdecimal() and int(token) <= most}
    total = sum(whole.values())
    return sum(value * share for value, share in whole.items()) / total if total else None


def soft_share(said: Completion, names: Sequence[str]) -> float | None:
    """Return how likely the first name was as the last verdict, against the second; a tie is half of each.

    A token counts for the one verdict that it can begin. None where the probabilities do not tell the names apart.
    """
    allowed = (*names, "tie")
    verdicts = [*re.finditer(rf"verdict[\s*_`]*[:：][\s*_`]*({'|'.join(allowed)})\b", said.text, re.IGNORECASE)]
    if not verdicts:
        return None
    of = dict.fromkeys(allowed, 0.0)
    for token, share in alternatives(said, verdicts[-1].start(1)).items():
        begun = [name for name in allowed if token and (name.startswith(token) or token.startswith(name))]
        if len(begun) == 1:
            of[begun[0]] += share
    first, second, tie = of.values()
    return (first + tie / 2) / (first + second + tie) if first + second else None
