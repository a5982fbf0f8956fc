"""How long a run with `--tokens` is: rows pass after pass, in drawn orders, up to a number of tokens with a loss.

So runs on files of different sizes, or on rows of different lengths, can learn from equally many tokens. The row that
would lead above the number is left out, and all after it: a run is short of it by less than one row.
"""

from random import Random
from typing import Any

import numpy as np

from datagen.errors import InputError
from datagen_train.data.table import Chosen, TableExamples


def fill(examples: Chosen[Any], tokens: int, seed: int) -> tuple[Chosen[Any], dict[str, int]]:
    """Return examples with at most so many tokens with a loss: some of the given ones, or all of them several times.

    Returns:
        The examples; and for the report how many tokens with a loss and how many sequences they are.

    Raises:
        InputError: The first one has more.
    """
    assert isinstance(examples.source, TableExamples)
    sizes = examples.source.table.column("trained").to_numpy()[examples.numbers].astype(np.int64)
    passes, rest = divmod(tokens, int(sizes.sum()))
    numbers: list[int] = []
    for number in range(passes + 1):
        order = Random(f"{seed}: rows of pass {number}").sample(range(len(sizes)), len(sizes))
        ends = np.cumsum(sizes[order])
        numbers += order if number < passes else order[: np.searchsorted(ends, rest, side="right")]
    if not numbers:
        raise InputError(f"--tokens {tokens}: the first row has more; raise it")
    length = {"tokens": int(sizes[numbers].sum()), "sequences": len(numbers)}
    return Chosen(examples.source, examples.numbers[numbers]), length
