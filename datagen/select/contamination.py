"""Does a row contain a benchmark's question? The 8-gram rule of Tülu 3 (arXiv 2411.15124, section 3.2).

A question is found in a row if more than half of its tokens lie in 8-grams that the row has too; only what the user
says is looked at, and all n-grams count towards that question alone. The paper tried embeddings and gave them up: they
cannot tell the similar from the copied. A benchmark is contaminated by a data set if more than 2 % of its questions
are found.

Departures: tokens are those of tokens.py instead of spaCy's, so case and punctuation do not hide a copy. A question
under eight tokens, which has no 8-gram, is found where a turn is equal to it. Where characters are the tokens
(Chinese), n is 13: a Chinese word has 1.6 characters, and eight characters in a row are often a mere phrase.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from datagen.records.record import Text, as_messages
from datagen.text import exact_key, is_unspaced, tokens

GRAM = 8
COVERAGE = 0.5
"""Share of a question's tokens that must be exceeded: section 3.2."""
LIMIT = 0.02
"""Share of a benchmark's questions above which it counts as contaminated: section 3.2."""
UNSPACED_GRAM = 13


class Benchmark(NamedTuple):
    """The questions of a test set, as a user would ask them."""

    name: str
    texts: Sequence[str]


class Hit(NamedTuple):
    """A question found in a row: its number in the benchmark, from 0, and the share of its tokens that was found."""

    benchmark: str
    item: int
    coverage: float


class _Question(NamedTuple):
    benchmark: str
    item: int
    size: int
    grams: list[int]

    def coverage(self, shared: set[int]) -> float:
        """Return the share of tokens that lie in shared n-grams."""
        covered = end = 0
        for start, gram in enumerate(self.grams):
            if gram in shared:
                covered += start + self.size - max(start, end)
                end = start + self.size
        return covered / (len(self.grams) + self.size - 1)


class Index:
    """All n-grams of all benchmarks; a row is looked up in it without looking at the questions one by one."""

    def __init__(self, benchmarks: Iterable[Benchmark]) -> None:
        self._questions: list[_Question] = []
        self._by_gram: dict[int, list[int]] = {}
        self._short: dict[str, list[Hit]] = {}
        for benchmark in benchmarks:
            for item, text in enumerate(benchmark.texts):
                self._add(benchmark.name, item, text)
        self._sizes = {question.size for question in self._questions}

    def hits(self, prompt: Text) -> list[Hit]:
        """Return the questions found in what the user says, in the order of the benchmarks."""
        turns = [message["content"] for message in as_messages(prompt) if message["role"] == "user"]
        shared = {gram for turn in turns for gram in self._grams(turn) if gram in self._by_gram}
        numbers = sorted({number for gram in shared for number in self._by_gram[gram]})
        found = [(question, question.coverage(shared)) for question in map(self._questions.__getitem__, numbers)]
        copied = [Hit(question.benchmark, question.item, share) for question, share in found if share > COVERAGE]
        return copied + [hit for key in sorted(set(map(exact_key, turns))) for hit in self._short.get(key, ())]

    def _add(self, name: str, item: int, text: str) -> None:
        found = tokens(text)
        size = UNSPACED_GRAM if is_unspaced(found) else GRAM
        if len(found) < size:
            self._short.setdefault(exact_key(text), []).append(Hit(name, item, 1.0))
            return
        question = _Question(name, item, size, _grams(found, size))
        for gram in set(question.grams):
            self._by_gram.setdefault(gram, []).append(len(self._questions))
        self._questions.append(question)

    def _grams(self, text: str) -> list[int]:
        found = tokens(text)
        return [gram for size in self._sizes for gram in _grams(found, size)]


class Tally:
    """What was found in a data set, benchmark by benchmark."""

    def __init__(self, benchmarks: Iterable[Benchmark]) -> None:
        self._sizes = {benchmark.name: len(benchmark.texts) for benchmark in benchmarks}
        self._rows = dict.fromkeys(self._sizes, 0)
        self._items: dict[str, set[int]] = {name: set() for name in self._sizes}

    def add(self, hits: Iterable[Hit]) -> None:
        """Count the hits of one row."""
        for name in {hit.benchmark for hit in hits}:
            self._rows[name] += 1
        for hit in hits:
            self._items[hit.benchmark].add(hit.item)

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """Return for each benchmark: rows with a hit, questions, those found, their share, is it over the limit."""
        return {
            name: {
                "rows": self._rows[name],
                "questions": size,
                "found": len(self._items[name]),
                "share": len(self._items[name]) / size if size else 0.0,
                "contaminated": len(self._items[name]) > LIMIT * size,
            }
            for name, size in self._sizes.items()
        }


def _grams(found: list[str], size: int) -> list[int]:
    """Hash all runs of so many tokens. Two equal hashes of 64 bits would have to fall together dozens of times."""
    return [hash(tuple(found[start : start + size])) for start in range(len(found) - size + 1)]
