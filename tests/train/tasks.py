"""One-step word problems: a tiny model learns them in seconds, and string equality verifies them."""

import json
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

NAMES = "Ada Ben Cleo Dan Eva Finn Gus Hana Ivo June Kai Lea".split()
ITEMS = "apples books coins cups keys pens shells stamps".split()
TEMPLATES = (
    ("{name} has {a} {items} and gets {b} more. How many {items}?", 1),
    ("{name} has {a} {items} and loses {b}. How many {items} are left?", -1),
    ("There are {a} {items} in a box and {b} beside it, says {name}. How many in all?", 1),
    ("Out of {a} {items}, {name} gives away {b}. How many stay?", -1),
)
Problem = tuple[str, int]


def problems(seed: int) -> list[Problem]:
    """Return every problem with its answer, in an order drawn from the seed."""
    listed = list(_all())
    Random(f"problems {seed}").shuffle(listed)
    return listed


def _all() -> Iterator[Problem]:
    for (text, sign), name, items, a, b in product(TEMPLATES, NAMES, ITEMS, range(10), range(10)):
        if a + sign * b >= 0:
            yield text.format(name=name, items=items, a=a, b=b), a + sign * b


def write_sft(path: Path, chosen: list[Problem]) -> None:
    path.write_text("".join(json.dumps({"prompt": p, "response": str(answer)}) + "\n" for p, answer in chosen))


def biased(chosen: list[Problem], seed: int, share: float = 0.6) -> list[Problem]:
    """Add one to a share of the answers: a model learns the sums and this bias."""
    chance = Random(f"bias {seed}")
    return [(prompt, answer + (chance.random() < share)) for prompt, answer in chosen]


def write_rows(name: Path | str, rows: Iterable[dict[str, Any]]) -> Path:
    """Write rows to a file of this folder."""
    path = Path(name)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_preferences(path: Path, chosen: list[Problem], offset: int = 1) -> None:
    """Write pairs: the right answer is chosen, the biased one rejected."""
    rows = ({"prompt": p, "chosen": str(answer), "rejected": str(answer + offset)} for p, answer in chosen)
    write_rows(path, rows)


def with_small_numbers(chosen: list[Problem], largest: int = 3) -> list[Problem]:
    """Return the problems with small numbers, which need fewer training steps."""
    return [(prompt, answer) for prompt, answer in chosen if all(int(c) <= largest for c in prompt if c.isdigit())]
