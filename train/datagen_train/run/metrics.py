"""Metrics of generated answers, as pure functions: exact match, ROUGE, accuracy and F1.

ROUGE is that of the `rouge-score` package without stemming, to which it adds Chinese and Japanese: there every
character is a token, where the package finds none.
"""

import re
from collections import Counter
from collections.abc import Sequence

from rapidfuzz.distance import LCSseq

from datagen.text import CJK

TOKEN = re.compile(rf"[a-z0-9]+|{CJK.pattern}")
MAX_LABELS = 20
"""With more different responses, they are not taken for labels."""
MIN_PER_LABEL = 2
"""Rows per label, on average; with fewer, the responses are short answers and no labels."""


def normalise(text: str, *, ignore_case: bool = False) -> str:
    """Strip a text and collapse its white space; fold its case if asked to."""
    collapsed = " ".join(text.split())
    return collapsed.casefold() if ignore_case else collapsed


def exact_match(predicted: Sequence[str], expected: Sequence[str], *, ignore_case: bool = False) -> float:
    """Return the share of answers that equal the expected ones, up to white space."""
    pairs = zip(predicted, expected, strict=True)
    return mean([normalise(a, ignore_case=ignore_case) == normalise(b, ignore_case=ignore_case) for a, b in pairs])


def mean(values: Sequence[float]) -> float:
    """Return the mean; 0 for no values."""
    return sum(values) / len(values) if values else 0.0


def words(text: str) -> list[str]:
    """Split a text into the tokens of ROUGE."""
    return TOKEN.findall(text.lower())


def rouge_n(predicted: str, expected: str, n: int) -> float:
    """Return ROUGE-n, the F1 of shared n-grams."""
    sides = words(predicted), words(expected)
    one, other = (Counter(zip(*(tokens[i:] for i in range(n)), strict=False)) for tokens in sides)
    return f1((one & other).total(), one.total(), other.total())


def rouge_l(predicted: str, expected: str) -> float:
    """Return ROUGE-L, the F1 of the longest common subsequence."""
    one, other = words(predicted), words(expected)
    return f1(LCSseq.similarity(one, other), len(one), len(other))


def rouge(predicted: Sequence[str], expected: Sequence[str]) -> dict[str, float]:
    """Return the means of ROUGE-1, ROUGE-2 and ROUGE-L."""
    pairs = list(zip(predicted, expected, strict=True))
    return {
        "rouge_1": mean([rouge_n(one, other, 1) for one, other in pairs]),
        "rouge_2": mean([rouge_n(one, other, 2) for one, other in pairs]),
        "rouge_l": mean([rouge_l(one, other) for one, other in pairs]),
    }


def f1(shared: int, predicted: int, expected: int) -> float:
    """Return the harmonic mean of precision and recall, from counts."""
    return 2 * shared / (predicted + expected) if shared else 0.0


def closed_labels(expected: Sequence[str]) -> list[str] | None:
    """Return the labels if the responses are a closed set: few different ones, each used several times."""
    labels = sorted({normalise(text, ignore_case=True) for text in expected})
    is_closed = 2 <= len(labels) <= MAX_LABELS and MIN_PER_LABEL * len(labels) <= len(expected)
    return labels if is_closed else None


def classification(predicted: Sequence[str], expected: Sequence[str], labels: Sequence[str]) -> dict[str, float]:
    """Return accuracy and macro F1 over the labels; an answer that is no label is wrong."""
    pairs = [
        (normalise(one, ignore_case=True), normalise(other, ignore_case=True))
        for one, other in zip(predicted, expected, strict=True)
    ]
    hits = Counter(other for one, other in pairs if one == other)
    predictions, truths = Counter(one for one, _ in pairs), Counter(other for _, other in pairs)
    return {
        "accuracy": mean([one == other for one, other in pairs]),
        "macro_f1": mean([f1(hits[label], predictions[label], truths[label]) for label in labels]),
    }
