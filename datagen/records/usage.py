"""The account of answers: how many, their tokens, what they cost, and what they were for."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

USAGE_COUNTS = ("calls", "prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens", "estimated")
"""Fields of Usage that x.meta.json has as they are."""


class Purpose(NamedTuple):
    """What answers were for."""

    role: str
    model: str
    """Its identity."""
    template: str


@dataclass(frozen=True, slots=True)
class Usage:
    """Answers that were paid for, usable or not, their tokens, and what they cost."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    """Of the prompts: those that the server had read before."""
    reasoning_tokens: int = 0
    """Of the completions, where the server counts them."""
    estimated: int = 0
    """Answers whose tokens are estimated, since the server did not count them."""
    unpriced: int = 0
    """Answers of models whose price is unknown."""
    cost: Decimal = Decimal(0)
    """Dollars, of the answers with a price. An exact sum: it does not depend on the order."""

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            self.estimated + other.estimated,
            self.unpriced + other.unpriced,
            self.cost + other.cost,
        )

    def __sub__(self, other: "Usage") -> "Usage":
        return Usage(
            self.calls - other.calls,
            self.prompt_tokens - other.prompt_tokens,
            self.completion_tokens - other.completion_tokens,
            self.cached_tokens - other.cached_tokens,
            self.reasoning_tokens - other.reasoning_tokens,
            self.estimated - other.estimated,
            self.unpriced - other.unpriced,
            self.cost - other.cost,
        )

    @property
    def dollars(self) -> float | None:
        """What it cost; None if a price is unknown."""
        return None if self.unpriced else float(self.cost)

    def as_row(self) -> dict[str, Any]:
        """Return the numbers for x.meta.json."""
        counts = {name: getattr(self, name) for name in USAGE_COUNTS}
        return {**counts, "cost": self.dollars, "unpriced": self.unpriced}
