"""Print the data and the results of a recipe's models: python table.py sft:demonstrations.jsonl dpo:pairs.jsonl

For each NAME:FILE,... there are NAME.sums.json and NAME.other.json of `datagen train eval`. Exact match is on held-out
prompts: of the task, and of a second skill that gets no reward: if it gets worse, that is the alignment tax.
"""

import json
import sys
from pathlib import Path

from datagen.commands.terminal import columns

HEADING = ["model", "learned from", "reward", "exact match", "other skill"]


def table_row(argument: str) -> list[str]:
    """Return the cells of one model, from NAME:FILE,..."""
    name, _, files = argument.partition(":")
    task, other = (json.loads(Path(f"{name}.{side}.json").read_text()) for side in ("sums", "other"))
    data = ", ".join(f"{count_lines(Path(file))} {kind_of_rows(file)}" for file in files.split(","))
    reward = "" if task.get("reward") is None else f"{task['reward']:.2f}"
    return [name, data, reward, f"{task['exact_match']:.3f}", f"{other['exact_match']:.3f}"]


def count_lines(file: Path) -> int:
    return file.read_bytes().count(b"\n")


def kind_of_rows(file: str) -> str:
    """Return the kind of rows in a file, from its name: dpo-1.pairs.jsonl holds pairs."""
    return Path(file).stem.rpartition(".")[2]


if __name__ == "__main__":
    print("\n".join(columns([HEADING, *map(table_row, sys.argv[1:])])))
