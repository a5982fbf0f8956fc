"""Does a row contain a benchmark's question? The 8-gram rule of Tülu 3 (arXiv 2411.15124, section 3.2).

A row contains a question if more than half of the question's tokens lie in 8-grams that the row has too. N-grams of
different questions do not add up. The paper tried embeddings and gave them up: they cannot tell a similar question from
a copy. A benchmark is contaminated by a data set if more than 2 % of its questions are contained.

Departures: the paper compares the user's turns alone, here the answers are compared too. Tokens are those of text.py
instead of spaCy's, so case and punctuation do not hide a copy. A question under eight tokens, which has no 8-gram, is
contained where a turn is equal to it. Where characters are the tokens (Chinese), n is 13: a Chinese word has 1.6
characters, and eight characters in a row are often a mere phrase.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from datagen.engine.method import Table
from datagen.errors import InputError
from datagen.records.files import open_input, output_stem
from datagen.records.kinds import file_lines
from datagen.records.record import BadLine, Candidate, Text, as_messages, request_text
from datagen.select.subjects import read_any
from datagen.text import exact_key, is_unspaced, ngram_hashes, tokens

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
    """A question that a row contains: its number in the benchmark, from 0, and the share of its tokens in the row."""

    benchmark: str
    item: int
    coverage: float


class Question(NamedTuple):
    """A question of a benchmark, as the hashes of its n-grams."""

    benchmark: str
    item: int
    size: int
    grams: list[int]


class BenchmarkIndex:
    """All n-grams of all benchmarks, so that a row is not compared with the questions one by one.

    Equal hashes of different n-grams do no harm: it would take dozens of them in one row.
    """

    def __init__(self, benchmarks: Iterable[Benchmark]) -> None:
        self._questions: list[Question] = []
        self._by_gram: dict[int, list[int]] = {}
        self._short: dict[str, list[Hit]] = {}
        for benchmark in benchmarks:
            for item, text in enumerate(benchmark.texts):
                words = tokens(text)
                size = UNSPACED_GRAM if is_unspaced(words) else GRAM
                if len(words) < size:
                    self._short.setdefault(exact_key(text), []).append(Hit(benchmark.name, item, 1.0))
                    continue
                grams = ngram_hashes(words, size)
                for gram in set(grams):
                    self._by_gram.setdefault(gram, []).append(len(self._questions))
                self._questions.append(Question(benchmark.name, item, size, grams))
        self._sizes = {question.size for question in self._questions}

    def hits(self, prompt: Text, answers: Iterable[str] = ()) -> list[Hit]:
        """Return the questions that a row contains, in the order of the benchmarks.

        Args:
            prompt: The prompt, of which the user's turns are looked at.
            answers: Answers to it.
        """
        # 1. The n-grams that any turn shares with any question.
        turns = [message["content"] for message in as_messages(prompt) if message["role"] == "user"]
        turns += answers
        shared: set[int] = set()
        for words in map(tokens, turns):
            for size in self._sizes:
                shared.update(gram for gram in ngram_hashes(words, size) if gram in self._by_gram)

        # 2. The share of each question's tokens that lie in shared n-grams.
        hits = []
        for number in sorted({number for gram in shared for number in self._by_gram[gram]}):
            benchmark, item, size, grams = self._questions[number]
            covered = end = 0
            for start, gram in enumerate(grams):
                if gram in shared:
                    covered += start + size - max(start, end)
                    end = start + size
            coverage = covered / (len(grams) + size - 1)
            if coverage > COVERAGE:
                hits.append(Hit(benchmark, item, coverage))

        # 3. Questions too short for an n-gram, which a turn must equal.
        for key in sorted(set(map(exact_key, turns))):
            hits += self._short.get(key, ())
        return hits


def read_benchmarks(specs: Sequence[str]) -> list[Benchmark]:
    """Read benchmarks, FILE or FILE#FIELD,FIELD; each is named by its file, or by the whole path if two share a name.

    Raises:
        InputError: A file cannot be read, or not in full: a question that is left out would not be looked for.
    """
    paths = [spec.partition("#")[0] for spec in specs]
    stems = [output_stem(path) for path in paths]
    names = [path if stems.count(stem) > 1 else stem for path, stem in zip(paths, stems, strict=True)]
    return [Benchmark(name, read_questions(spec)) for name, spec in zip(names, specs, strict=True)]


def read_questions(spec: str) -> list[str]:
    """Read the questions of one benchmark: the named fields, joined by a space, or else the requests of its rows."""
    path, _, fields = spec.partition("#")
    advice = f"or name the fields that hold its questions: --against {path}#FIELD,FIELD"
    questions = []
    with open_input(path) as file:
        if fields:
            for line in file_lines(path, file, fields):
                values = [(line.row or {}).get(name) for name in fields.split(",")]
                if not all(isinstance(value, str) and value.strip() for value in values):
                    problem = line.problem or f"no text in {fields.replace(',', ', ')}"
                    raise InputError(f"{line.file or path}:{line.number}: {problem}")
                questions.append(" ".join(map(str, values)))
        else:
            try:
                reader = read_any(path, file)
            except InputError as error:
                raise InputError(f"{error}; {advice}") from error
            for row in reader.read():
                if isinstance(row, BadLine):
                    raise InputError(f"{row}; fix the line, {advice}")
                questions.append(row.answers[0] if row.is_document else request_text(row.prompt))
    if not questions:
        raise InputError(f"--against {spec}: no questions")
    return questions


class BenchmarkTable(Table):
    """How many rows contain questions of each benchmark, and how many of its questions are contained."""

    def __init__(self, benchmarks: Iterable[Benchmark], *, tagged: bool) -> None:
        self._tagged = tagged
        self._sizes = {benchmark.name: len(benchmark.texts) for benchmark in benchmarks}
        self._rows = dict.fromkeys(self._sizes, 0)
        self._items: dict[str, set[int]] = {name: set() for name in self._sizes}

    def add(self, candidate: Candidate) -> None:
        """Count the hits of one row. A kept row has them in its `meta`, if this filter tags: else they are older."""
        if candidate.status == "kept" and not self._tagged:
            return
        row = candidate.row["meta" if candidate.status == "kept" else "record"]
        hits = [Hit(**hit) for hit in row.get("hits") or []]
        for name in {hit.benchmark for hit in hits}:
            self._rows[name] += 1
        for hit in hits:
            self._items[hit.benchmark].add(hit.item)

    def as_dict(self) -> dict[str, dict[str, Any]]:
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

    def tables(self) -> list[list[list[str]]]:
        heading = ["benchmark", "rows with a question of it", "questions found", "of", ""]
        rows = []
        for name, counts in self.as_dict().items():
            verdict = "contaminated" if counts["contaminated"] else "clean"
            rows.append([name, str(counts["rows"]), str(counts["found"]), str(counts["questions"]), verdict])
        return [[heading, *rows]] if rows else []
