"""The procedural teacher's chance, and how good it is."""

from collections.abc import Mapping
from random import Random


class Chance(Random):
    """A source of chance that depends on the request, the sample and the attempt alone."""

    def __init__(self, seed: str, rates: Mapping[str, float] | None = None) -> None:
        super().__init__(seed)
        told = rates or {}
        self.skill = told.get("skill", 1.0)
        """How often a chain of thought or a judgement comes out right."""
        self.position_bias = told.get("position_bias", 0.0)
        self.verbosity_bias = told.get("verbosity_bias", 0.0)

    def errs(self) -> bool:
        """Draw whether the next thing goes wrong."""
        return self.random() >= self.skill
