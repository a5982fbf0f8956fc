"""The task pool of Self-Instruct: the tasks kept so far, the pool as a draw sees it, and how varied the tasks are."""

from collections import Counter
from dataclasses import dataclass
from random import Random
from statistics import fmean, quantiles
from typing import Any, NamedTuple

from datagen.engine.method import Table
from datagen.records.record import Candidate, Row
from datagen.select.instructions import not_english
from datagen.select.novelty import Pool
from datagen.select.topics import Coverage
from datagen.text import ngram_hashes, tokens


class Task(NamedTuple):
    """The instruction of a task, and the id of the row that it comes from."""

    id: str
    instruction: str


class TaskPool:
    """All tasks so far: the human-written seeds, then the generated ones in the order in which they were kept."""

    def __init__(self, threshold: float) -> None:
        self.pool = Pool(threshold)
        self.tasks: list[Task] = []
        self.seeds = 0
        self.english = True
        """Whether all seeds pass for English."""
        self._last = ""

    def __len__(self) -> int:
        return len(self.tasks)

    def view(self, length: int) -> "TaskView":
        return TaskView(self, length)

    def add(self, task: Task, *, seed: bool = False) -> None:
        """Append a task. Seeds are added before any generated task."""
        self.pool.add(task.instruction)
        self.tasks.append(task)
        if seed:
            self.seeds += 1
            self.english = self.english and not_english(task.instruction) is None

    def drops(self, row: Row) -> str | None:
        """Compare a task with those added since its draw was opened; further instances of a kept task are kept."""
        meta = row["meta"]
        if meta["task"] == self._last:
            return None
        if not self.pool.is_novel(meta["instruction"], start=meta["seen"]):
            return "similar"
        self._last = meta["task"]
        self.add(Task(row["id"], meta["instruction"]))
        return None


@dataclass(frozen=True, slots=True)
class TaskView:
    """The pool as it stood when it held `length` tasks."""

    pool: TaskPool
    length: int

    def draw_examples(self, random: Random, human: int, generated: int) -> list[Task]:
        """Draw the example tasks, shuffled; seeds fill up where too few tasks are generated yet (section 2.2)."""
        seeds, new = self.pool.tasks[: self.pool.seeds], self.pool.tasks[self.pool.seeds : self.length]
        new = random.sample(new, min(generated, len(new)))
        tasks = random.sample(seeds, min(human + generated - len(new), len(seeds))) + new
        random.shuffle(tasks)
        return tasks

    def is_novel(self, instruction: str) -> bool:
        return self.pool.pool.is_novel(instruction, stop=self.length)

    def nearest_seed(self, instruction: str) -> tuple[str | None, float]:
        """Return the id of the most similar seed and its ROUGE-L F1; None and 0.0 if no seed shares a word."""
        match = self.pool.pool.nearest(instruction, stop=self.pool.seeds, above=0.0)
        return (self.pool.tasks[match.place].id, round(match.score, 4)) if match else (None, 0.0)


class YieldTable(Table):
    """Rows per thousand calls as the pool grows, the diversity of the tasks, and the topics covered.

    Args:
        leaves: The number of topics; 0 without any.
    """

    def __init__(self, leaves: int = 0) -> None:
        self.calls = self.rows = 0
        self.coverage = Coverage(leaves) if leaves else None
        self.curve: list[int] = []
        self.words: Counter[str] = Counter()
        self.grams: dict[int, set[int]] = {1: set(), 2: set()}
        self.totals: Counter[int] = Counter()
        self.similarities: list[float] = []
        self._last = ""

    def add(self, candidate: Candidate) -> None:
        self.calls += candidate.usage.calls
        while len(self.curve) < self.calls // 1_000:
            self.curve.append(self.rows)
        if candidate.status != "kept":
            return
        self.rows += 1
        meta = candidate.row["meta"]
        if self.coverage:
            self.coverage.rows[meta["leaf"]] += 1
        if meta["task"] == self._last:
            return
        self._last = meta["task"]
        self.similarities.append(meta["seed_similarity"])
        words = tokens(meta["instruction"])
        self.words.update(words[:1])
        for n, distinct in self.grams.items():
            grams = ngram_hashes(words, n)
            distinct.update(grams)
            self.totals[n] += len(grams)

    def as_dict(self) -> dict[str, Any]:
        words = sorted(self.words.items(), key=lambda item: (-item[1], item[0]))[:10]
        values = self.similarities
        deciles = quantiles(values, n=10, method="inclusive") if len(values) > 1 else 9 * values
        statistics = {"mean": fmean(values), "median": deciles[4], "p90": deciles[8]} if values else {}
        return {
            "rows_per_1000_calls": self.curve,
            "leading_words": dict(words),
            **{
                f"distinct_{n}": round(len(distinct) / self.totals[n], 4) if self.totals[n] else None
                for n, distinct in self.grams.items()
            },
            "seed_similarity": {name: round(value, 4) for name, value in statistics.items()} or None,
            **({"topics": self.coverage.as_dict()} if self.coverage else {}),
        }

    def tables(self) -> list[list[list[str]]]:
        if not self.rows:
            return []
        summary = self.as_dict()
        words = ", ".join(f"{word} {number}" for word, number in summary["leading_words"].items())
        shares = [[f"distinct {n}-grams", f"{summary[f'distinct_{n}'] or 0:.2f}"] for n in self.grams]
        similarity = "   ".join(f"{name} {value:.2f}" for name, value in (summary["seed_similarity"] or {}).items())
        curve = [[str(1_000 * n), str(rows)] for n, rows in enumerate(self.curve, 1)]
        diversity = [["leading words", words], *shares, ["ROUGE-L with the nearest seed", similarity]]
        diversity += [["topics with a row", self.coverage.in_words()]] if self.coverage else []
        return [[["calls", "rows"], *curve], [["diversity", ""], *diversity]]
