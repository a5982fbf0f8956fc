"""What a model learns from reasoning: more than from the answers alone."""

import pytest

from tests.once import SEEDS
from tests.train.chains import exact_match


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_a_model_that_learns_the_reasoning_answers_at_least_as_well(seed: int) -> None:
    """`python -m benchmarks.reasoning` prints the same numbers as a table."""
    with_reasoning, without = exact_match(seed, "train"), exact_match(seed, "drop")
    assert with_reasoning >= max(without, 0.8)
