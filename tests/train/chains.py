"""A task that a small model learns with a worked chain and hardly without: a long sum in a small ring of numbers.

    0341?        the sum modulo 5: 3        reasoning: 0323, the sum after each digit

A step of the chain is one of 25 small sums. Without it, the answer depends on all four digits at once.
"""

import json
from itertools import accumulate, product
from pathlib import Path
from random import Random

from datagen_train import sft
from datagen_train.options import SftOptions
from datagen_train.tools import evaluate
from datagen_train.tools.options import EvalOptions
from tests.train.runs import train

SIZE, DIGITS = 5, 4
ROWS, STEPS, RATE = 400, 300, 2e-3
"""At the default rate of a toy some seeds never leave the plateau that this task begins with."""
LONGEST = 64
"""Tokens of a generated chain with its answer."""


def chain(digits: tuple[int, ...]) -> dict[str, str]:
    """Return a row: the digits, their sum, and the sums on the way to it."""
    sums = [str(total % SIZE) for total in accumulate(digits)]
    return {"prompt": "".join(map(str, digits)) + "?", "response": sums[-1], "reasoning": "".join(sums)}


def write_chains(seed: int) -> tuple[Path, Path]:
    """Write the rows to train on, and those of all other sums."""
    rows = [chain(digits) for digits in product(range(SIZE), repeat=DIGITS)]
    Random(f"chains {seed}").shuffle(rows)
    paths = Path("chains.jsonl"), Path("others.jsonl")
    for path, part in zip(paths, (rows[:ROWS], rows[ROWS:]), strict=True):
        path.write_text("".join(json.dumps(row) + "\n" for row in part))
    return paths


def exact_match(seed: int, reasoning: str, steps: int = STEPS) -> float:
    """Train a `tiny` on the sums, with their reasoning or without; return the exact match on sums that it never saw."""
    data, others = write_chains(seed)
    folder = f"{reasoning}-{seed}"
    options = SftOptions(reasoning=reasoning)
    train(sft, data, options, output=folder, seed=seed, steps=steps, held_out=0.0, learning_rate=RATE, overwrite=True)
    return float(evaluate.run(folder, str(others), EvalOptions(max_tokens=LONGEST))["exact_match"])
