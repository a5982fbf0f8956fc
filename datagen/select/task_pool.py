"""The tasks of Self-Instruct: what was kept so far, as a draw sees it, and how varied it is."""

from collections import Counter
from dataclasses import dataclass
from statistics import fmean, quantiles
from typing import Any, NamedTuple

from datagen.records.record import Candidate, Record, Row
from datagen.select.instructions import not_english
from datagen.select.novelty import Pool
from datagen.text import tokens


class Shown(NamedTuple):
    """A task as it is shown, and the row that it comes from."""

    id: str
    instruction: str


class Tasks:
    """All tasks so far: those of people, then those of the machine, in the order in which they were kept."""

    def __init__(self, threshold: float) -> None:
        self.pool = Pool(threshold)
        self.shown: list[Shown] = []
        self.humans = 0
        self.english = True
        """Do all tasks of people pass for English?"""
        self._last = ""

    def __len__(self) -> int:
        return len(self.shown)

    def add_seed(self, name: str, instruction: str) -> None:
        self._add(name, instruction)
        self.humans += 1
        self.english = self.english and not_english(instruction) is None

    def _add(self, name: str, instruction: str) -> None:
        self.pool.add(instruction)
        self.shown.append(Shown(name, instruction))

    def view(self, length: int) -> "View":
        return View(self, length)

    def drops(self, row: Row) -> str | None:
        """Compare a task with those that came since its draw was opened; its further instances come along."""
        meta = row["meta"]
        if meta["task"] == self._last:
            return None
        if not self.pool.is_novel(meta["instruction"], start=meta["seen"]):
            return "similar"
        self._last = meta["task"]
        self._add(row["id"], meta["instruction"])
        return None


@dataclass(frozen=True, slots=True)
class View:
    """The tasks as they stood when there were `length` of them."""

    tasks: Tasks
    length: int

    def human(self) -> list[Shown]:
        return self.tasks.shown[: self.tasks.humans]

    def machine(self) -> list[Shown]:
        return self.tasks.shown[self.tasks.humans : self.length]

    @property
    def english(self) -> bool:
        return self.tasks.english

    def is_novel(self, instruction: str) -> bool:
        return self.tasks.pool.is_novel(instruction, stop=self.length)

    def nearest_seed(self, instruction: str) -> tuple[str | None, float]:
        """Return the task of people that is most like this one, None if none shares a word, and its ROUGE-L F."""
        match = self.tasks.pool.nearest(instruction, stop=self.tasks.humans, above=0.0)
        return (self.tasks.shown[match.place].id, round(match.score, 4)) if match else (None, 0.0)


def choose(record: Record, human: int, machine: int) -> list[Shown]:
    """Draw the tasks to show: people fill up where the machine has too few yet; shuffled (section 2.2)."""
    view: View = record.view
    random = record.random("tasks shown")
    made = view.machine()
    of_machine = random.sample(made, min(machine, len(made)))
    people = view.human()
    of_people = random.sample(people, min(human + machine - len(of_machine), len(people)))
    tasks = of_people + of_machine
    random.shuffle(tasks)
    return tasks


class YieldTable:
    """How many rows a thousand calls give as the pool grows, and how varied the tasks are."""

    def __init__(self) -> None:
        self.calls = self.rows = 0
        self.curve: list[int] = []
        self.words: Counter[str] = Counter()
        self.grams: dict[int, tuple[set[int], int]] = {n: (set(), 0) for n in (1, 2)}
        self.likeness: list[float] = []
        self._last = ""

    def add(self, candidate: Candidate) -> None:
        self.calls += candidate.usage.calls
        while len(self.curve) < self.calls // 1_000:
            self.curve.append(self.rows)
        if candidate.status != "kept":
            return
        self.rows += 1
        meta = candidate.row["meta"]
        if meta["task"] != self._last:
            self._last = meta["task"]
            self._count(tokens(meta["instruction"]))
            self.likeness.append(meta["seed_similarity"])

    def _count(self, words: list[str]) -> None:
        self.words.update(words[:1])
        for n, (seen, total) in self.grams.items():
            grams = [hash(tuple(words[at : at + n])) for at in range(len(words) - n + 1)]
            seen.update(grams)
            self.grams[n] = (seen, total + len(grams))

    def as_dict(self) -> dict[str, Any]:
        distinct = {
            f"distinct_{n}": round(len(seen) / total, 4) if total else None for n, (seen, total) in self.grams.items()
        }
        words = sorted(self.words.items(), key=lambda each: (-each[1], each[0]))[:10]
        return {
            "rows_per_1000_calls": self.curve,
            "leading_words": dict(words),
            **distinct,
            "seed_similarity": spread(self.likeness),
        }

    def tables(self) -> list[list[list[str]]]:
        told = self.as_dict()
        words = ", ".join(f"{word} {number}" for word, number in told["leading_words"].items())
        shares = [[f"distinct {n}-grams", f"{told[f'distinct_{n}'] or 0:.2f}"] for n in (1, 2)]
        likeness = "   ".join(f"{name} {value:.2f}" for name, value in (told["seed_similarity"] or {}).items())
        curve = [[["calls", "rows"], *([str(1_000 * n), str(rows)] for n, rows in enumerate(self.curve, 1))]]
        diversity = [["leading words", words], *shares, ["ROUGE-L with the nearest seed", likeness]]
        return [*curve, [["diversity", ""], *diversity]] if self.rows else []


def spread(values: list[float]) -> dict[str, float] | None:
    """Return mean, median and 90th percentile; None without a value."""
    if not values:
        return None
    deciles = quantiles(values, n=10, method="inclusive") if len(values) > 1 else values * 9
    return {"mean": round(fmean(values), 4), "median": round(deciles[4], 4), "p90": round(deciles[8], 4)}
