"""What a run of `datagen judge` found: how the models compare, and how far the judge's verdicts can be used.

A judge without position bias gives half of its verdicts to the answer that it is shown first, and the same verdict in
both orders. Agreement with people is another matter: `judge --check` (agreement.py).
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from datagen.engine.method import Table
from datagen.judges.replies import TIE
from datagen.records.record import Candidate, Row
from datagen.text import count_of

UNKNOWN = "unknown"
"""Stands for the model of an answer whose row does not name it."""
PAIR_OUTCOMES = {"compared": "all", "tied": "tied", "unread": "unread"}
NO_BIAS, LARGE_BIAS = 0.5, 0.25
"""The share of verdicts for the answer shown first without position bias, and the distance from it that is told."""
Orders = Sequence[Sequence[float | None]]
"""For each judge: the share of the first answer where it is shown first, and where it is shown second; None: unread."""


@dataclass
class OrderCounts:
    """What comparisons in both orders say about a judge."""

    read: int = 0
    """Comparisons by one judge that were read in both orders."""
    agreed: int = 0
    """Those with the same winner, or a tie, in both."""
    verdicts: int = 0
    """Verdicts that were read, in either order."""
    unread: int = 0
    """Those that could not be read, in either order."""
    first_shown: float = 0.0
    """Those for the answer shown first; a tie is half of one."""

    def add(self, orders: Orders) -> None:
        """Count the verdicts of all judges on two answers."""
        for forward, backward in orders:
            shares = [forward, None if backward is None else 1 - backward]
            self.verdicts += sum(share is not None for share in shares)
            self.unread += shares.count(None)
            self.first_shown += sum(share for share in shares if share is not None)
            if forward is not None and backward is not None:
                self.read += 1
                self.agreed += (forward > TIE) - (forward < TIE) == (backward > TIE) - (backward < TIE)

    def warnings(self) -> list[str]:
        """Return a warning if the place of an answer decides most verdicts."""
        figures = self.as_dict()
        agree, first = figures["both_orders_agree"], figures["first_shown_preferred"]
        if agree is None or abs(first - NO_BIAS) < LARGE_BIAS:
            return []
        return [
            f"Position bias: {percent(first)} of the judge's {count_of(self.verdicts, 'verdict')} are for the answer "
            f"shown first, and both orders agree in {percent(agree)} of {count_of(self.read, 'comparison')}; where "
            "they do not, it is a tie. Another judge may tell the answers apart"
        ]

    def as_dict(self) -> Row:
        return {
            "both_orders_agree": round(self.agreed / self.read, 4) if self.read else None,
            "first_shown_preferred": round(self.first_shown / self.verdicts, 4) if self.verdicts else None,
        }


def percent(share: float | None) -> str:
    """Format a share for a table."""
    return "-" if share is None else f"{100 * share:.1f} %"


@dataclass
class JudgeTable(Table):
    """The outcome by model, and how many of the judge's replies could be used."""

    points: bool = False
    """Whether scores are points, whose means can be compared."""
    rows: int = 0
    ties: int = 0
    """Rows whose first rank is shared."""
    unjudged: int = 0
    """Rows without any score."""
    unscored: int = 0
    """Answers without a score, in rows that have one."""
    unread: int = 0
    """Replies that could not be read."""
    comparisons: Counter[str] = field(default_factory=Counter)
    """Pairs of answers: all, tied, and unread."""
    orders: OrderCounts = field(default_factory=OrderCounts)
    models: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    sums: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Of each model's scores."""

    def add(self, candidate: Candidate) -> None:
        row, meta = candidate.row, candidate.row["meta"]
        if candidate.status == "kept":
            self.rows += 1
            self.unscored += row["scores"].count(None)
            self._add_ranks(row)
        elif candidate.reason == "judge_unparsed":
            self.unjudged += 1
        else:
            return
        self.unread += meta.get("unread") or 0
        for comparison in meta.get("comparisons") or []:
            self._add_comparison(comparison, [name for name, _ in authors(meta)])

    def _add_ranks(self, row: Row) -> None:
        """Count whose answer is the best, and the points."""
        best = [place for place, rank in enumerate(row["ranks"]) if rank == 1]
        self.ties += len(best) > 1
        for name, place in authors(row["meta"]):
            counts, score = self.models[name], row["scores"][place]
            counts.update(answers=1, best=best == [place], scored=score is not None)
            self.sums[name] += score or 0.0

    def _add_comparison(self, comparison: Row, names: Sequence[str]) -> None:
        """Count a win and a loss, or a tie; answers of one model beat each other, too."""
        share = comparison["share"]
        first, second = names[comparison["first"]], names[comparison["second"]]
        self.orders.add(comparison["orders"])
        self.comparisons["all"] += 1
        if share is None:
            self.comparisons["unread"] += 1
        elif share == TIE:
            self.comparisons["tied"] += 1
            for name in (first, second):
                self.models[name]["tied"] += 1
        else:
            winner, loser = (first, second) if share > TIE else (second, first)
            self.models[winner]["won"] += 1
            self.models[loser]["lost"] += 1

    def warnings(self) -> list[str]:
        return self.orders.warnings()

    def as_dict(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "ties": self.ties,
            "unjudged": self.unjudged,
            "unscored_answers": self.unscored,
            "unread": self.unread,
            "comparisons": {name: self.comparisons[name] for name in PAIR_OUTCOMES.values()},
            **self.orders.as_dict(),
            "models": {name: self._model(name) for name in sorted(self.models)},
        }

    def _model(self, name: str) -> Row:
        counts = self.models[name]
        numbers = {key: counts[key] for key in ("answers", "best", "won", "tied", "lost")}
        mean = round(self.sums[name] / counts["scored"], 4) if self.points and counts["scored"] else None
        return numbers | {"mean_points": mean}

    def tables(self) -> list[list[list[str]]]:
        summary = self.as_dict()
        if not self.rows and not self.unjudged:
            return []
        compared = bool(self.comparisons)
        models = [["model", "answers", "best of its row", *(["won", "tied", "lost"] if compared else [])]]
        models[0] += ["mean points"] if self.points else []
        for name, numbers in summary["models"].items():
            mean = numbers.pop("mean_points")
            cells = [str(number) for number in numbers.values()][: 5 if compared else 2]
            points = ["-" if mean is None else f"{mean:.2f}"] if self.points else []
            models.append([name, *cells, *points])
        return [models, [["judging", ""], *map(list, self._judging().items())]]

    def _judging(self) -> dict[str, str]:
        """Return the numbers about the judge, by what they count."""
        numbers = {
            "rows judged": self.rows,
            "first rank shared": self.ties,
            "rows without a score": self.unjudged,
            "other answers without a score": self.unscored,
            "replies unread": self.unread,
        }
        if not self.comparisons:
            return {name: str(number) for name, number in numbers.items()}
        numbers |= {f"pairs {name}": self.comparisons[key] for name, key in PAIR_OUTCOMES.items()}
        shares = self.orders.as_dict()
        return {name: str(number) for name, number in numbers.items()} | {
            "both orders agree": percent(shares["both_orders_agree"]),
            "verdicts for the answer shown first": percent(shares["first_shown_preferred"]),
        }


def authors(meta: Row) -> Iterator[tuple[str, int]]:
    """Yield the model that wrote each answer of a row, with the place of the answer."""
    for place, entry in enumerate(meta["responses"]):
        yield str(entry.get("model") or UNKNOWN), place
