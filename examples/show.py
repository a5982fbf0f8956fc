"""Print what `datagen evolve` made of each seed: python examples/show.py seeds.jsonl seeds.evolve.jsonl

A seed stands above its rounds. Each shows the operator and the rewrite, then the first words of the answer or, for a
rewrite that was dropped, the rule.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from datagen.printing import printable
from datagen.records.layout import unpack_row
from datagen.records.reader import PROMPTS, Reader
from datagen.records.record import Record, request_text

WIDTH = 100
LABELS = 22
"""Columns of the terminal: in all, and for the names of operators."""
RULES = {
    "unchanged": "equals its parent",
    "leaked": "contains words of the template",
    "answered": "answers the prompt instead of rewriting it",
    "refused": "is a refusal",
    "overgrown": "is too long",
    "no_gain": "asks for nothing more, says the judge",
    "apology": "is answered with an apology",
    "stop_words": "is answered with nothing",
    "duplicate": "was kept before",
}


def show(seeds: Path, output: Path) -> None:
    """Print each seed, and its candidates in order."""
    candidates = defaultdict(list)
    for path in (output, output.with_suffix(".rejected.jsonl")):
        for row in map(unpack_row, map(json.loads, path.read_bytes().splitlines())):
            candidates[row["meta"].get("seed_id")].append(row)
    console = Console(highlight=False)
    console.width = min(console.width, WIDTH) if console.is_terminal else WIDTH
    text_width = console.width - LABELS
    with seeds.open("rb") as file:
        records = [record for record in Reader(str(seeds), file, PROMPTS).read() if isinstance(record, Record)]
    for record in records:
        console.print(shorten(request_text(record.prompt), 2 * text_width, "bold"))
        table = Table.grid()
        table.add_column(width=LABELS, style="cyan")
        table.add_column(width=text_width, overflow="fold")
        for row in sorted(candidates[record.id], key=lambda row: row["meta"]["round"]):
            rewrite, outcome = describe(row)
            table.add_row(f"  {row['meta']['round']} {row['meta']['op']}", shorten(rewrite, 3 * text_width))
            table.add_row("", shorten(outcome, text_width, "dim" if "response" in row else "red"))
        console.print(table)
        console.print()


def describe(row: dict[str, Any]) -> tuple[str, str]:
    """Return the rewrite of a round, and its answer or the rule that dropped it."""
    if "response" in row:
        return request_text(row["prompt"]), f"→\n{row['response']}"
    reason = row["reason"]
    return row["record"].get("child") or row["reply"] or "", f"✗ {reason}: {RULES.get(reason, row['status'])}"


def shorten(text: str, width: int, style: str = "") -> Text:
    """Return the beginning of a text on one line, `width` columns of the terminal wide at most."""
    lines = (line for line in text.splitlines() if not line.startswith("```"))
    line = Text(printable(" ".join(" ".join(lines).split())), style)
    line.truncate(width, overflow="ellipsis")
    return line


if __name__ == "__main__":
    show(Path(sys.argv[1]), Path(sys.argv[2]))
