"""What generated answers are measured by, as pure functions: exact match, ROUGE, accuracy and F1.

ROUGE is that of the `rouge-score` package without stemming, to which it adds Chinese and Japanese: there every
character is a token, where the package finds none.
"""

import re
from collections import Counter
from collections.abc import Sequence

from rapidfuzz.distance import LCSseq

from datagen.text import CJK

TOKEN = re.compile(rf"[a-z0-9]+|{CJK.pattern}")
MOST_LABELS = 20
"""Different responses up to which they are taken for labels."""
LEAST_PER_LABEL = 2
"""Rows for each label, on average; fewer are just short answers."""


def normalise(text: str, *, ignore_case: bool = False) -> str:
    """Strip a text and collapse its white space."""
    collapsed = " ".join(text.split())
    return collapsed.casefold() if ignore_case else collapsed


def exact_match(predicted: Sequence[str], expected: Sequence[str], *, ignore_case: bool = False) -> float:
    """Return the share of answers that are what was expected, but for white space."""
    pairs = zip(predicted, expected, strict=True)
    return mean([normalise(a, ignore_case=ignore_case) == normalise(b, ignore_case=ignore_case) for a, b in pairs])


def mean(values: Sequence[float]) -> float:
    """Return the mean; 0 of nothing."""
    return sum(values) / len(values) if values else 0.0


def words(text: str) -> list[str]:
    """Split a text as ROUGE counts it."""
    return TOKEN.findall(text.lower())


def rouge_n(predicted: str, expected: str, n: int) -> float:
    """Return ROUGE-n, the F1 of the n-grams that both hold."""
    one, other = _ngrams(words(predicted), n), _ngrams(words(expected), n)
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


def _ngrams(tokens: list[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(tokens[i:] for i in range(n)), strict=False))


def closed_labels(expected: Sequence[str]) -> list[str] | None:
    """Return the labels, where responses form a closed set: few different ones, each used again."""
    labels = sorted({normalise(text, ignore_case=True) for text in expected})
    few = 2 <= len(labels) <= MOST_LABELS and LEAST_PER_LABEL * len(labels) <= len(expected)
    return labels if few else None


def classification(predicted: Sequence[str], expected: Sequence[str], labels: Sequence[str]) -> dict[str, float]:
    """Return accuracy and macro F1 over the labels; an answer that is no label is wrong, whatever it says."""
    pairs = [
        (normalise(one, ignore_case=True), normalise(other, ignore_case=True))
        for one, other in zip(predicted, expected, strict=True)
    ]
    hits = Counter(other for one, other in pairs if one == other)
    said, true = Counter(one for one, _ in pairs), Counter(other for _, other in pairs)
    return {
        "accuracy": mean([one == other for one, other in pairs]),
        "macro_f1": mean([f1(hits[label], said[label], true[label]) for label in labels]),
    }
