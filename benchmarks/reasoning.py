"""Exact match of a `tiny` that is trained with the reasoning of the rows, and of one that is trained without.

    python -m benchmarks.reasoning

The task (tests/train/chains.py): sums of four digits modulo 5, 400 of the 625 to train on, the others to measure on.
Both see the same prompts and answers, in the same number of steps.
"""

import os

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TQDM_DISABLE="1")  # before torch is imported

import sys
from tempfile import TemporaryDirectory

from tests.train.chains import STEPS, exact_match

SEEDS = (0, 1, 2)


def print_table() -> None:
    print(f"exact match, {STEPS} steps".ljust(30), *(f"seed {seed}" for seed in SEEDS))
    for reasoning, name in (("drop", "answers alone"), ("train", "reasoning and answers")):
        values = [f"{exact_match(seed, reasoning):.3f} " for seed in SEEDS]
        print(name.ljust(30), *values, flush=True)


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        sys.path.insert(0, os.getcwd())
        os.chdir(folder)
        print_table()
        os.chdir(sys.path[0])
