"""The procedural teacher: answers by rules, without a network or a neural net, behind the same stack as a server.

It serves the first run, the tests and load tests. It knows the truth, so what catches its faults can be measured:

    sim:skill=0.7,refuse=0.05,leak=0.05,noop=0.05,malformed=0.02

skill           probability that a chain of thought or a judgement is right; 1 by default

refuse          an answer is a short apology             leak       a rewrite repeats words of its template
noop            a rewrite changes nothing that counts    malformed  a verdict is missing, or an answer is empty

position_bias   probability that a judge prefers the first answer, whatever it says
verbosity_bias  probability that a judge prefers the longer answer

think           probability that a reply comes with reasoning, as a reasoning model sends it

Replies are deterministic in (request, sample, attempt). An injected fault is named in the raw reply, which methods
never see. `model.py` is the model; every other file answers the tasks of a method or of a few, listed in its HANDLERS.
"""

from collections.abc import Callable, Mapping
from random import Random

VERSION = 1
"""Part of the identity: a changed teacher is another model."""
Fields = Mapping[str, str]
"""The values in the template that asks."""


class SimRandom(Random):
    """Random numbers of one call, and the probabilities that the spec sets."""

    def __init__(self, seed: str, rates: Mapping[str, float] | None = None) -> None:
        super().__init__(seed)
        rates = rates or {}
        self.skill = rates.get("skill", 1.0)
        self.position_bias = rates.get("position_bias", 0.0)
        self.verbosity_bias = rates.get("verbosity_bias", 0.0)

    def errs(self) -> bool:
        """Draw whether the next step goes wrong."""
        return self.random() >= self.skill


Handler = Callable[[Fields, SimRandom], str]
"""Writes the reply to a task."""
