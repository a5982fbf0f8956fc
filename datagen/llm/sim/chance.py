"""The procedural teacher's chance, and how good it is."""

from random import Random


class Chance(Random):
    """A source of chance that depends on the request, the sample and the attempt alone."""

    def __init__(self, seed: str, skill: float = 1.0) -> None:
        """`skill` is how often a chain of thought comes to the right answer."""
        super().__init__(seed)
        self.skill = skill

    def errs(self) -> bool:
        """Draw whether the next thing goes wrong."""
        return self.random() >= self.skill
