"""How the procedural teacher plays Magpie: it speaks as the user, first with a task, then to what was answered."""

from collections.abc import Callable, Mapping

from datagen.llm.sim.chance import Chance
from datagen.llm.sim.self_instruct import new_task

FOLLOW_UPS = (
    "Which part of that is least certain, and why?",
    "Now say the same to somebody of twelve.",
    "Give an example of the last point.",
    "Why is that?",
    "What would somebody who disagrees reply to that?",
)


def speak(fields: Mapping[str, str], chance: Chance) -> str:
    """Ask for something; once there is an answer, ask on."""
    return chance.choice(FOLLOW_UPS) if fields["answered"] else new_task(chance)


ACTS: dict[str, Callable[[Mapping[str, str], Chance], str]] = {"magpie": speak}
