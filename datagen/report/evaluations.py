"""What `datagen train eval` has printed, in a page: a line for each file."""

from collections.abc import Sequence
from pathlib import Path

from datagen.report.tables import PageTable, table
from datagen.report.training import number, read_object

METRICS = {
    "loss": "loss",
    "exact_match": "exact match",
    "rouge_l": "ROUGE-L",
    "reward": "reward",
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
}
"""The metrics that are shown, where there are any, and their names."""
MOST_BYTES = 1_000_000
"""Bytes of an evaluation; a larger file is somebody's data."""


def is_evaluation(path: Path) -> bool:
    """Say whether a file holds what `datagen train eval` has measured."""
    is_small = path.suffix == ".json" and path.stat().st_size <= MOST_BYTES
    return is_small and "left_out_as_trained_on" in read_object(path)


def evaluation_table(paths: Sequence[Path]) -> PageTable:
    """Return what was measured, a line for each file."""
    measured = [(path.stem, read_object(path)) for path in paths]
    shown = [name for name in METRICS if any(name in one for _, one in measured)]
    lines = [[stem, *(number(one.get(name)) for name in ("rows", *shown))] for stem, one in measured]
    return table("", ["", "rows", *(METRICS[name] for name in shown)], lines)
