"""The families of tasks that the procedural teacher can solve: each finds its own tasks by their words."""

from collections.abc import Callable
from typing import NamedTuple

from datagen.llm.sim import arithmetic


class Solved(NamedTuple):
    """A task worked out."""

    steps: tuple[str, ...]
    answer: str
    wrong: tuple[str, ...]
    """Answers that one could come to by mistake."""


def numbers_near(value: int) -> tuple[str, ...]:
    """Return wrong numbers: off by a little, by ten, doubled."""
    return tuple(str(near) for near in (value - 2, value - 1, value + 1, value + 10, 2 * value + 3))


def _arithmetic(prompt: str) -> Solved | None:
    steps, result = arithmetic.solve(prompt)
    return None if result is None else Solved(tuple(steps), str(result), numbers_near(result))


FAMILIES: tuple[Callable[[str], Solved | None], ...] = (_arithmetic,)


def solve(prompt: str) -> Solved | None:
    """Work a task out, if it is of a family; the first that knows it does."""
    return next((solved for family in FAMILIES if (solved := family(prompt))), None)
