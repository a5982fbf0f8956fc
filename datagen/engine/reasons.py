"""What the reasons of rejected and failed rows mean. Each method declares its own (`Method.reasons`); here are those of
all methods."""

import re
from collections.abc import Mapping

from datagen.engine.method import Method
from datagen.errors import CUT_ANSWER

COMMON_REASONS: Mapping[str, str] = {
    "duplicate": "An earlier row of the output holds the same texts.",
    CUT_ANSWER: "The answer reached the length limit. Raise --max-tokens; with the same limit it is not asked again.",
    "empty answer": "The model wrote no answer in any attempt. One that reasons first may need a higher --max-tokens.",
    "filtered answer": "The server's content filter stopped the answer.",
    "unknown finish reason:NAME": "The server gave a reason for the end of the answer that is not known, so the "
    "answer may not be whole.",
    "broken answer": "The answer holds half a character in every attempt.",
    "unparsed answer": "The answer did not have the form that the prompt asks for in any attempt. Another model or a "
    "lower --temperature may follow it.",
    "parser error": "This program failed to read the answer of every attempt, which is a fault of its own: "
    "`record.error` has the words to report.",
    "refused (HTTP N)": "The server refused the request; its own words are in `record.error`. The same request is "
    "refused again.",
    "no_reasoning": "--reasoning only: an answer of the row came without reasoning. --reasoning keep takes every "
    "answer.",
    "timed out": "The server took longer than --timeout for one whole answer, twice. Raise --timeout.",
    "function error": "The Python function that is the model has raised an exception, or returned no answer: "
    "`record.error` has its words. The same command calls it again.",
    "no answer": "The server gave no answer in several tries. The same command tries again.",
}
"""The reasons that every method can have: of a duplicate, of a call without a good answer, and of an answer
without reasoning, where a command has --reasoning."""


def all_reasons(method: type[Method]) -> dict[str, str]:
    """Return every reason that a candidate of a method may have, with its sentence."""
    common = COMMON_REASONS if method.roles else {"duplicate": COMMON_REASONS["duplicate"]}
    return {**method.reasons, **{name: text for name, text in common.items() if name not in method.reasons}}


def reason_sentence(method: Method | type[Method], reason: str) -> str | None:
    """Return what a reason means, and the way out where there is one; None for a reason that is not declared.

    Args:
        method: The method whose candidate was dropped.
        reason: As it stands in the row; what varies in it (a status, the name of a file) is not looked at.
    """
    name = re.sub(r":.*", ":NAME", re.sub(r"\(HTTP \d+\)", "(HTTP N)", reason), flags=re.DOTALL)
    return {**COMMON_REASONS, **method.reasons}.get(name)
