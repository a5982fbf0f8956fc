"""Reading a judge's reply: the verdict on two answers, and token log-probabilities at a position.

The last line `Verdict: ...` counts, as models write it (parse.py), and a reply that is a label and nothing else. A
sentence that prefers an answer is not read, however plain: "Compared with B, A is better" and "I would not say that A
is better" differ in their grammar alone. A reply that breaks off has no verdict: the judge might have changed its mind.

With log-probabilities a score is an expected value (Deita, arXiv 2312.15685), and a verdict a soft label (RLAIF, arXiv
2309.00267).
"""

import math
import re
from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Any

from datagen.errors import ParseError
from datagen.llm.call import Completion
from datagen.parse import Verdict, find_verdict

FIRST, SECOND, TIE = 1.0, 0.0, 0.5
"""The share of a comparison that its first answer gets."""
NAME_ALONE = re.compile(r"(?:[\s*_`\"'“\[(]|(?i:answer\b))*([^\W_]+)[\s*_`\"'”\]).!]*")
"""A reply that is a name and nothing else."""
NUMBER = re.compile(r"[0-9]{1,4}")
"""A token that is a score; Python reads no number of more than 4,300 digits."""
TOP_LOGPROBS: dict[str, Any] = {"logprobs": True, "top_logprobs": 20}
"""Parameters that ask for log-probabilities; 20 is the most that the API gives."""


def read_verdict(text: str, names: Sequence[str]) -> float:
    """Return the share that the first of two named answers gets.

    Args:
        text: A judge's reply.
        names: The labels of the two answers.

    Returns:
        FIRST, SECOND or TIE.

    Raises:
        ParseError: No verdict is stated.
    """
    first, second = (name.lower() for name in names)
    return {first: FIRST, second: SECOND, "tie": TIE}[judge_verdict(text, names).name]


def judge_verdict(text: str, names: Sequence[str]) -> Verdict:
    """Find the verdict in a judge's reply: the last line that states one, or the whole reply, if it is a name alone.

    Raises:
        ParseError: No verdict is stated.
    """
    allowed = (*(name.lower() for name in names), "tie")
    whole = NAME_ALONE.fullmatch(text)
    if whole and whole[1].lower() in allowed:
        return Verdict(whole[1].lower(), whole.start(1))
    return find_verdict(text, allowed)


def token_probabilities(completion: Completion, position: int) -> dict[str, float]:
    """Return the tokens that could have begun at a position of the text, without blanks, and their probabilities.

    The tokens are laid over the text from its end, since thinking may stand before it. Nothing is returned where they
    do not spell it, or none begins at that position.
    """
    rest, pieces, length = completion.text[position:], deque[str](), 0
    for token, alternatives in reversed(completion.logprobs or []):
        pieces.appendleft(token)
        length += len(token)
        if length >= len(rest):
            tail = "".join(pieces)
            if not tail.endswith(rest) or tail[: len(tail) - len(rest)].strip():
                return {}
            probabilities = defaultdict[str, float](float)
            for alternative, logprob in alternatives:
                probabilities[alternative.strip()] += math.exp(logprob)
            return dict(probabilities)
    return {}


def expected_value(completion: Completion, position: int, most: int) -> float | None:
    """Return the mean of the whole numbers from 0 to `most` that could stand at a position; None if not known."""
    tokens = token_probabilities(completion, position).items()
    shares = {int(token): share for token, share in tokens if NUMBER.fullmatch(token)}
    numbers = {number: share for number, share in shares.items() if number <= most}
    total = sum(numbers.values())
    return sum(number * share for number, share in numbers.items()) / total if total else None


def soft_share(completion: Completion, names: Sequence[str]) -> float | None:
    """Return how likely the first name was as the last verdict, against the second; a tie is half of each.

    A token counts for the one verdict that it can begin. None where the probabilities do not tell the names apart.
    """
    allowed = (*names, "tie")
    try:
        start = judge_verdict(completion.text, names).start
    except ParseError:
        return None
    shares = dict.fromkeys(allowed, 0.0)
    for token, share in token_probabilities(completion, start).items():
        begun = [name for name in allowed if token and (name.startswith(token) or token.startswith(name))]
        if len(begun) == 1:
            shares[begun[0]] += share
    first, second, tie = shares.values()
    return (first + tie / 2) / (first + second + tie) if first + second else None
