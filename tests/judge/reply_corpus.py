"""Replies of judges in the manner of 16 model families, with the right reading of each: tests/data/judge_replies.jsonl.

All are invented, in the form that `judge/compare` or `judge/score` asks for, or near it. `reading` is a label, "tie",
the points, or null where nothing is stated. The rules of the reader were written with the families that are not held
out.
"""

import json
from collections import Counter
from pathlib import Path

from datagen.errors import ParseError
from datagen.judges.points import read_points
from datagen.judges.replies import read_verdict
from datagen.records.record import Row

PATH = Path(__file__).parents[1] / "data" / "judge_replies.jsonl"
LABELS = ("K2B", "M3C")
MOST = 5
"""Points under each aspect."""
OUTCOMES = ("read right", "read wrong", "unread though stated")


def read_corpus() -> list[Row]:
    return [json.loads(line) for line in PATH.read_text(encoding="utf-8").splitlines()]


def reading(row: Row) -> object:
    """Read a reply; None if it states nothing."""
    try:
        if row["form"] == "verdict":
            return {1.0: "K2B", 0.0: "M3C", 0.5: "tie"}[read_verdict(row["reply"], LABELS)]
        points = read_points(row["reply"], LABELS, dict.fromkeys(row["aspects"], MOST))
    except ParseError:
        return None
    return {f"{label} {aspect}": value for (label, aspect), value in points.items()}


def outcome(row: Row) -> str:
    """Return which of OUTCOMES a reply is; one that states nothing and is unread is read right."""
    read = reading(row)
    if read == row["reading"]:
        return OUTCOMES[0]
    return OUTCOMES[2] if read is None else OUTCOMES[1]


def outcomes_by_family(*, held_out: bool) -> dict[str, Counter[str]]:
    """Count the outcomes of each family, of those that are held out or of the others."""
    counts: dict[str, Counter[str]] = {}
    for row in read_corpus():
        if row["held_out"] == held_out:
            counts.setdefault(row["family"], Counter())[outcome(row)] += 1
    return counts
