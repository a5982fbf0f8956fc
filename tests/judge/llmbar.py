"""The recorded replies of LLMBar (arXiv 2310.07641), whose prompts ask for another form than ours.

Its form is the sentence "Therefore, Output (a) is better.", or the name alone. `in_our_form` writes this one form as a
line `Verdict: ...`, and nothing else of a reply: a preference in other words stays prose, and is not read.
"""

import re

from datagen.errors import ParseError
from datagen.judges.replies import FIRST, SECOND, read_verdict
from datagen.records.record import Row

LABELS = {"Output (a)": "K7B", "Output (b)": "R3D"}
FORM = re.compile(
    r"(?:^|(?<=[.!?:]\s))(?:Therefore, |Thus, |So, |Overall, )?(Output \([ab]\)) is better\.?(?=\s|$)", re.MULTILINE
)


def in_our_form(completion: str) -> str:
    """Write the form of LLMBar as ours."""
    text = FORM.sub(r"\nVerdict: \1\n", completion.strip())
    for name, label in LABELS.items():
        text = text.replace(name, label)
    return text


def share(completion: str) -> float | None:
    """Return the share of the answer that was shown first; None if the reply states no verdict."""
    try:
        return read_verdict(in_our_form(completion), list(LABELS.values()))
    except ParseError:
        return None


def winner(row: Row) -> str | None:
    """Return the output that a recorded reply prefers, "1" or "2"; in order "ba" the second one was shown first."""
    preferred = {FIRST: 0, SECOND: 1}.get(share(row["completion"]))  # type: ignore[arg-type]
    return None if preferred is None else str("ab".index(row["order"][preferred]) + 1)
