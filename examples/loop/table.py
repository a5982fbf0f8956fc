"""Print what the models of a recipe learned from and reached: python table.py sft:demonstrations.jsonl dpo:pairs.jsonl

For each NAME:FILE,... there are NAME.sums.json and NAME.other.json of `datagen train eval`. Exact match is on held-out
prompts: of the task, and of a second skill that nobody rewards, which shows what the rest was paid with.
"""

import json
import sys
from pathlib import Path

from datagen.commands.terminal import columns

HEADING = ["model", "learned from", "reward", "exact match", "other skill"]


def line(given: str) -> list[str]:
    """Return the cells of a model."""
    name, _, files = given.partition(":")
    task, other = (json.loads(Path(f"{name}.{side}.json").read_text()) for side in ("sums", "other"))
    made = ", ".join(f"{count(Path(file))} {kind(file)}" for file in files.split(","))
    reward = "" if task.get("reward") is None else f"{task['reward']:.2f}"
    return [name, made, reward, f"{task['exact_match']:.3f}", f"{other['exact_match']:.3f}"]


def count(file: Path) -> int:
    return file.read_bytes().count(b"\n")


def kind(file: str) -> str:
    """Name rows by their file: dpo-1.pairs.jsonl holds pairs."""
    return Path(file).stem.rpartition(".")[2]


if __name__ == "__main__":
    print("\n".join(columns([HEADING, *map(line, sys.argv[1:])])))
