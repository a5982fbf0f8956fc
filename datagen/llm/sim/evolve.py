"""How the procedural teacher plays Evol-Instruct: six ways to rewrite a prompt, and the question if it changed."""

import re
import unicodedata
from collections.abc import Callable, Mapping
from random import Random

from datagen.llm.sim.arithmetic import DEMANDS, EXPRESSION
from datagen.llm.sim.chance import Chance
from datagen.text import CJK

DEPTHS = (
    "Explain why the result holds.",
    "Name one case in which this goes wrong, and why.",
    "Compare two ways to get there.",
    "Say what would change if one number were doubled.",
)
PLACES = ("a night ferry", "a school kitchen", "a mountain hut", "a print shop", "a seed library")
THINGS = (("baker", "rolls", "tray"), ("gardener", "bulbs", "crate"), ("librarian", "books", "shelf"))
POLITE = re.compile(r"\b(please|kindly)\b|[\W_]+", re.IGNORECASE)


def add_constraint(fields: Mapping[str, str], chance: Random) -> str:
    """Add a demand of a kind that the prompt does not have yet (a closing and shouted last line would collide)."""
    prompt = fields["prompt"]
    taken = {name for name, demand in DEMANDS.items() if demand.asked(prompt)}
    taken |= {"closing", "shout"} if taken & {"closing", "shout"} else set()
    taken |= {"shout"} if "opening" in taken else {"opening"} if "shout" in taken else set()
    free = [demand for name, demand in DEMANDS.items() if name not in taken]
    if not free:
        return deepen(fields, chance)
    demand = chance.choice(free)
    return f"{prompt} {demand.text.format(chance.choice(demand.values))}"


def deepen(fields: Mapping[str, str], chance: Random) -> str:
    """Ask for something that needs more thought; nothing is left to ask after len(DEPTHS) times."""
    free = [depth for depth in DEPTHS if depth not in fields["prompt"]]
    return f"{fields['prompt']} {chance.choice(free)}" if free else f"Please {fields['prompt']}"


def concretise(fields: Mapping[str, str], chance: Random) -> str:
    """Name a place and a year, then a reader; there is nothing more to be made concrete."""
    prompt = fields["prompt"]
    if "Set it in" not in prompt:
        return f"{prompt} Set it in {chance.choice(PLACES)} in {chance.randint(1900, 2020)}."
    if "Write for" not in prompt:
        return f"{prompt} Write for a {chance.choice(THINGS)[0]} of {chance.randint(20, 80)} years."
    return deepen(fields, chance)


def add_reasoning(fields: Mapping[str, str], chance: Random) -> str:
    """Make the result the start of a further step, if there is a result."""
    if not EXPRESSION.search(fields["prompt"]):
        return f"{fields['prompt']} Work it out in {chance.randint(3, 6)} numbered steps."
    verb = chance.choice(("multiply", "increase"))
    return f"{fields['prompt']} Then {verb} the result by {chance.randint(2, 9)}, and show each step."


def complicate_input(fields: Mapping[str, str], chance: Random) -> str:
    names = chance.sample(("north", "south", "east", "west"), 3)
    data = ", ".join(f'"{name}": {chance.randint(10, 99)}' for name in names)
    return f"{fields['prompt']} Also add up the values in this data: {{{data}}}"


def breadth(fields: Mapping[str, str], chance: Random) -> str:
    """A new problem of the one family."""
    who, what, where = chance.choice(THINGS)
    a, b, c = chance.randint(3, 40), chance.randint(2, 30), chance.randint(1, 60)
    told = f"A {who} has {b} {what} in each {where}, {a} times over, and {c} more."
    return f"{told} How many {what}? Compute {a} * {b} + {c}."


OPERATORS: dict[str, Callable[[Mapping[str, str], Random], str]] = {
    act.__name__: act for act in (add_constraint, deepen, concretise, add_reasoning, complicate_input, breadth)
}


def rewrite(name: str) -> Callable[[Mapping[str, str], Chance], str]:
    """Return an operator that keeps to the language of the prompt."""

    def act(fields: Mapping[str, str], chance: Chance) -> str:
        return in_chinese(fields, chance) if CJK.search(fields["prompt"]) else OPERATORS[name](fields, chance)

    return act


def harder_code(fields: Mapping[str, str], chance: Chance) -> str:
    """Make a programming task harder, in one of the ways that are told here, too."""
    return chance.choice((add_constraint, deepen, add_reasoning, complicate_input))(fields, chance)


def change_problem(fields: Mapping[str, str], chance: Chance) -> str:
    """Change a problem downward, to another and smaller one, or upward."""
    return breadth(fields, chance) if "easier" in fields["method"] else add_reasoning(fields, chance)


CHINESE = (
    "请在回答中举一个{}的例子。", "并说明在{}的情况下会怎样。", "请比较它与{}的异同。", "请分{}个步骤来写。",
)  # fmt: skip
CHINESE_VALUES = ("码头", "夜班渡轮", "山间小屋", "学校食堂", "种子图书馆")


def in_chinese(fields: Mapping[str, str], chance: Chance) -> str:
    """Ask for something more, in Chinese; a numbered demand never repeats."""
    free = [(ask, value) for ask in CHINESE for value in CHINESE_VALUES if ask.format(value) not in fields["prompt"]]
    ask, value = chance.choice(free)
    prompt = fields["prompt"].rstrip()
    stop = "" if unicodedata.category(prompt[-1])[0] == "P" else "。"
    return f"{prompt}{stop}{ask.format(str(chance.randint(3, 6)) if '步骤' in ask else value)}"


def equal(fields: Mapping[str, str], chance: Random) -> str:
    """Say whether two prompts ask the same, by their words without politeness."""
    first, second = (POLITE.sub(" ", fields[name]).lower().split() for name in ("first", "second"))
    if first == second:
        return "Both ask for the same thing in the same depth.\nVerdict: equal"
    return "One of them asks for more.\nVerdict: not equal"


ACTS: dict[str, Callable[[Mapping[str, str], Chance], str]] = {
    **{f"evolve/{name}": rewrite(name) for name in OPERATORS},
    "evolve/equal": equal,
    "evolve_code/harder": harder_code,
    "evolve_math/change": change_problem,
}
