"""Paired differences of a few seeds: their mean, with an interval of 95 % by Student's t.

Both arms of a seed share what does not depend on the switch, so the seeds are pairs. The interval is

    mean(d) ± t(n - 1) s(d) / sqrt(n),    d = the differences of the n seeds, s = their standard deviation

with the t distribution's 97.5 % point at n - 1 degrees of freedom. It holds if the differences are about normal.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, pi, sin, sqrt, tan
from statistics import fmean, stdev

LEVEL = 0.95
MOST_SEEDS = 1000
"""Beyond this number it is not said how many seeds would show a difference."""


@dataclass(frozen=True)
class Difference:
    """The mean of paired differences and its interval."""

    mean: float
    low: float
    high: float
    deviation: float
    """Standard deviation of the differences."""
    needed: int | None
    """The least number of seeds whose interval would leave out 0, if mean and deviation stay; None: too many."""

    @property
    def is_shown(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def difference(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Return the mean of first - second with its interval; both have a number for each of at least two seeds."""
    differences = [x - y for x, y in zip(first, second, strict=True)]
    mean, deviation = fmean(differences), stdev(differences)
    reach = half_width(deviation, len(differences))
    return Difference(mean, mean - reach, mean + reach, deviation, seeds_needed(mean, deviation))


def half_width(deviation: float, seeds: int) -> float:
    """Return half of the width of an interval."""
    return t_point(seeds - 1) * deviation / sqrt(seeds)


def seeds_needed(mean: float, deviation: float) -> int | None:
    """Return the least number of seeds whose interval would leave out 0; None above MOST_SEEDS."""
    seeds = range(2, MOST_SEEDS + 1)
    at = bisect_left(seeds, True, key=lambda number: half_width(deviation, number) < abs(mean))
    return seeds[at] if at < len(seeds) else None


def t_point(freedom: int) -> float:
    """Return the 97.5 % point of Student's t with some degrees of freedom, by halving an interval of angles."""
    low, high = 0.0, pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if share_within(middle, freedom) < LEVEL else (low, middle)
    return sqrt(freedom) * tan(low)


def share_within(angle: float, freedom: int) -> float:
    """Return the probability that |t| is at most sqrt(freedom) tan(angle) (Abramowitz and Stegun, 26.7.3-4)."""
    is_odd = freedom % 2
    term = total = cos(angle) if is_odd else 1.0
    for k in range(2 + is_odd, freedom - 1, 2):
        term *= (k - 1) / k * cos(angle) ** 2
        total += term
    if not is_odd:
        return sin(angle) * total
    return 2 / pi * (angle + (sin(angle) * total if freedom > 1 else 0.0))
