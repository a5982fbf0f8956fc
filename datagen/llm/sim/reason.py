"""How the procedural teacher reasons: step after step to a stated answer, right as often as its skill says.

A wrong chain slips at its last step, and half of the time in what it writes down, too, so that there is a wrong
equation to be found.
"""

from collections.abc import Callable, Mapping

from datagen.llm.sim import game24
from datagen.llm.sim.arithmetic import answer
from datagen.llm.sim.chance import Chance
from datagen.llm.sim.families import Solved, solve


def reason(fields: Mapping[str, str], chance: Chance) -> str:
    """Write a chain of thought that ends in a stated answer."""
    hand = game24.puzzle(fields["prompt"])
    if hand:
        return game24.chain(hand, chance)
    solved = solve(fields["prompt"])
    if solved is None:
        text = answer(fields, chance)
        return f"{text}\n\nAnswer: {text.splitlines()[-1]}"
    return write(slipped(solved, chance) if chance.errs() else solved, chance)


def slipped(solved: Solved, chance: Chance) -> Solved:
    """Come to a wrong answer."""
    wrong = chance.choice(solved.wrong)
    *steps, last = solved.steps
    head, found, tail = last.rpartition(solved.answer)
    return Solved((*steps, head + wrong + tail if found and chance.random() < 0.5 else last), wrong, solved.wrong)


def write(solved: Solved, chance: Chance) -> str:
    """Write the steps and the answer; the same steps are not always written alike."""
    start = chance.choice(("", "Let us see.", "One step after another."))
    return "\n".join([*filter(None, [start]), *solved.steps, f"Answer: {solved.answer}"])


def extract(fields: Mapping[str, str], chance: Chance) -> str:
    """State the answer of a chain: what its last line ends in."""
    return f"Answer: {fields['rationale'].split()[-1].rstrip('.')}"


def hinted(fields: Mapping[str, str], chance: Chance) -> str:
    """Reason to an answer that is given away; without skill, only to that, with no steps of one's own."""
    solved = solve(fields["prompt"])
    if solved is None or chance.errs():
        return f"As you said, the answer is {fields['answer']}.\nAnswer: {fields['answer']}"
    return write(solved, chance)


ACTS: dict[str, Callable[[Mapping[str, str], Chance], str]] = {
    "cot/reason": reason,
    "cot/extract": extract,
    "star/hint": hinted,
}
