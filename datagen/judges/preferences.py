"""The table of every command that writes preferences: whether chosen answers are simply the longer ones, and how good
their judges are.

A judge's check is that of `datagen judge --check`, kept in the working folder; a judge without one is named.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from datagen.engine.method import Table
from datagen.judges.agreement import describe_judge
from datagen.records.record import Candidate, Row


@dataclass
class PreferenceTable(Table):
    """The lengths of chosen and rejected answers, and the judges behind them (`meta.judging`, a `judge_key`)."""

    checks: Mapping[str, Row]
    """The judges' checks, by `judge_key`."""
    unscored: int | None = None
    """Answers that no judge gave a score, so that they are in no pair; None for a method without such answers."""
    pairs: int = 0
    longer: float = 0.0
    """Pairs whose chosen answer is the longer one; of two that are equally long, half a pair."""
    chosen: int = 0
    """Characters of all chosen answers."""
    rejected: int = 0
    judges: Counter[str] = field(default_factory=Counter)
    _parent: str = ""
    """The row whose answers without a score were counted last."""

    def add(self, candidate: Candidate) -> None:
        row, meta = candidate.row, candidate.row["meta"]
        if candidate.status == "kept":
            chosen, rejected = len(row["chosen"]), len(row["rejected"])
            self.pairs += 1
            self.longer += 0.5 if chosen == rejected else chosen > rejected
            self.chosen += chosen
            self.rejected += rejected
        if judging := meta.get("judging"):
            self.judges[judging] += 1
        if self.unscored is not None and self._parent != meta["parents"][0]:
            self._parent = meta["parents"][0]
            self.unscored += meta["unscored"]

    def as_dict(self) -> dict[str, Any]:
        unscored = {} if self.unscored is None else {"unscored_answers": self.unscored}
        if not self.pairs:
            return {"pairs": 0, **unscored}
        return {
            "pairs": self.pairs,
            **unscored,
            "chosen_longer": round(self.longer / self.pairs, 4),
            "chosen_length": round(self.chosen / self.pairs, 1),
            "rejected_length": round(self.rejected / self.pairs, 1),
            "judges": {judging: self.checks.get(judging) for judging in self.judges},
        }

    def tables(self) -> list[list[list[str]]]:
        figures, unscored = self.as_dict(), [] if self.unscored is None else [str(self.unscored)]
        heading = ["pairs", *["answers without a score" for _ in unscored]]
        if not self.pairs:
            return [[heading, ["0", *unscored]]] if self.unscored else []
        heading += ["chosen is the longer", "mean length chosen", "rejected"]
        numbers = [f"{100 * figures['chosen_longer']:.1f} %"]
        numbers += [f"{figures[key]:.0f}" for key in ("chosen_length", "rejected_length")]
        judges = [["judge", "accuracy against people"], *([*describe_judge(judging)] for judging in self.judges)]
        return [[heading, [str(figures["pairs"]), *unscored, *numbers]], *([judges] if self.judges else [])]
