"""Print an output of `datagen evolve` for reading: python examples/show.py seeds.evolve.jsonl"""

import json
import sys
from pathlib import Path
from textwrap import indent

from datagen.commands.terminal import printable


def show(path: Path) -> None:
    """Print each row: its id and origin, the prompt, the response."""
    for line in path.read_bytes().splitlines():
        row = json.loads(line)
        meta = row["meta"]
        print(f"── {row['id']}  round {meta['round']}  {meta['op']}  from {meta['parents'][0]}")
        print(indent(printable(row["prompt"]), "   "))
        print(indent(printable(row["response"]), "   │ "))


if __name__ == "__main__":
    show(Path(sys.argv[1]))
