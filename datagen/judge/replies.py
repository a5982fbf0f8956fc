"""Reading a judge's reply: the verdict on two answers, and token log-probabilities at a position.

The last line `Verdict: ...` counts. If a judge does not follow this format, its last sentence that states a preference
counts ("Therefore, B is better."), since small models often reason well and forget the format. A sentence about one
side only ("A is more detailed", "A is better in terms of length, but...") states no preference. A truncated reply has
no verdict: the judge might have changed its mind.

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
from datagen.parse import parse_verdict

FIRST, SECOND, TIE = 1.0, 0.0, 0.5
"""The share of a comparison that its first answer gets."""
SHARES = (FIRST, SECOND)
BETTER = r"(?:better|best|superior|preferable|preferred|stronger)"
WORSE = r"(?:worse|worst|inferior|weaker)"
SENTENCE_END = re.compile(r"(?<=[.!?。！？])[\s)]+|\n+")
COMPLETE = re.compile(r"""[.!?。！？][)"'”*\s]*\Z""")
CONDITION = re.compile(rf"\b{BETTER} (?:only )?(?:if|when|unless)\b", re.IGNORECASE)
IN_TERMS = re.compile(rf"\b{BETTER} in terms of\b[^.]*?(?:(\bbut\b)|\.|\Z)", re.IGNORECASE)
"""The group is "but". A match without one runs to the end of the sentence, so that no part of it is searched again."""
EVEN = re.compile(r"\b(?:equally|neither|both|either|tie|same)\b", re.IGNORECASE)
CONTRAST = re.compile(r"\b(?:but|however|although|though|while)\b", re.IGNORECASE)
NUMBER = re.compile(r"[0-9]{1,4}")
"""A token that is a score; Python reads no number of more than 4,300 digits."""
LEAD = r"(?:therefore|so|thus|hence|overall|verdict|answer|winner|the|better|best|final|output|choice|is)"
ALONE = rf"[\W_]*(?:{LEAD}(?:[,:\s]*{LEAD})*[\W_]*)?(?:{{name}})[\W_]*"
"""A name alone, or after such words. No two repeats that share a character stand side by side."""
VERB = r"(?:is|are|was|would be|may be|might be|can be considered|seems|appears|performs|being|as)"
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
        ParseError: No verdict can be read.
    """
    first, second = (name.lower() for name in names)
    try:
        verdict = parse_verdict(text, allowed=(first, second, "tie"))
    except ParseError:
        return stated_preference(text, (first, second))
    return {first: FIRST, second: SECOND, "tie": TIE}[verdict]


def stated_preference(text: str, names: tuple[str, str]) -> float:
    """Return the preference of the last sentence of a reply that states one."""
    sentences = [part for part in SENTENCE_END.split(text.strip()) if part and part.strip()]
    last = len(sentences) - 1
    for number in range(last, -1, -1):
        share = sentence_preference(sentences[number].strip(), names)
        if share is not None:
            return share
        if number == last and not COMPLETE.search(text.strip()):
            break
    raise ParseError(f"no line 'Verdict: {' | '.join(names)} | tie', and no sentence that prefers one")


def sentence_preference(sentence: str, names: tuple[str, str]) -> float | None:
    """Return the preference that a sentence states, if it does."""
    lower = sentence.lower()
    name = "|".join(map(re.escape, names))
    mentions = [names.index(match[1]) for match in re.finditer(rf"(?<!\w)({name})(?!\w)", lower)]
    if not mentions or is_limited(sentence):
        return None

    # "Therefore: A."
    if not sentence.startswith("#") and re.fullmatch(ALONE.format(name=name), lower):
        return SHARES[mentions[0]]

    # "A and B are equally good."
    if len(set(mentions)) == 2 and EVEN.search(sentence) and not CONTRAST.search(sentence):
        return TIE

    # "A is (clearly not) better", or worse.
    match = re.search(
        rf"({name})\W+(?:\w+\W+){{0,4}}?{VERB}\s+(not\s+)?(?:\w+\s+){{0,3}}?(?:({BETTER})|{WORSE})\b", lower
    )
    if match is None:
        return None
    place = names.index(match[1])
    is_better = bool(match[3]) != bool(match[2])
    return SHARES[place] if is_better else SHARES[1 - place]


def is_limited(sentence: str) -> bool:
    """Return whether a sentence says when, or in what, an answer would be better; it is not counted."""
    return bool(CONDITION.search(sentence) or any(match[1] for match in IN_TERMS.finditer(sentence)))


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
    verdict = rf"verdict[\s*_`]*[:：][\s*_`]*({'|'.join(allowed)})\b"
    verdicts = list(re.finditer(verdict, completion.text, re.IGNORECASE))
    if not verdicts:
        return None
    shares = dict.fromkeys(allowed, 0.0)
    for token, share in token_probabilities(completion, verdicts[-1].start(1)).items():
        begun = [name for name in allowed if token and (name.startswith(token) or token.startswith(name))]
        if len(begun) == 1:
            shares[begun[0]] += share
    first, second, tie = shares.values()
    return (first + tie / 2) / (first + second + tie) if first + second else None
