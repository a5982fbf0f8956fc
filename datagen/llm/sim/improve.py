"""How the procedural teacher improves an answer: it works the task out anew and meets what the old answer missed."""

from collections.abc import Callable, Mapping

from datagen.llm.sim.arithmetic import answer, unmet
from datagen.llm.sim.chance import Chance
from datagen.llm.sim.families import solve
from datagen.llm.sim.judge import quality
from datagen.llm.sim.reason import write


def revise(fields: Mapping[str, str], chance: Chance) -> str:
    """Write a better answer; without skill, only a longer one."""
    prompt, old = fields["prompt"], fields["response"]
    if chance.errs():
        return f"{old}\nIn other words, and to say it once more at greater length: that is the answer."
    if quality(prompt, old) == 5:
        return old
    solved = solve(prompt)
    fresh = answer(fields, chance)
    return f"{fresh}\n{write(solved, chance).splitlines()[-1]}" if solved and not unmet(prompt, fresh) else fresh


def critique(fields: Mapping[str, str], chance: Chance) -> str:
    missed = unmet(fields["prompt"], fields["response"])
    return f"It misses: {', '.join(missed)}." if missed else "No weakness."


ACTS: dict[str, Callable[[Mapping[str, str], Chance], str]] = {
    "improve/edit": revise,
    "improve/revise": revise,
    "improve/rewrite": revise,
    "improve/critique": critique,
}
