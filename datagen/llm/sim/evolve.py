"""How the procedural teacher plays Evol-Instruct: six operators that rewrite a prompt, and the equality question."""

import re
import unicodedata
from collections.abc import Callable
from functools import partial
from random import Random

from datagen.llm.sim import Fields, Handler, SimRandom
from datagen.llm.sim.answer import DEMANDS, EXPRESSION
from datagen.text import CJK

DEPTHS = (
    "Explain why the result holds.",
    "Name one case in which this goes wrong, and why.",
    "Compare two ways to get there.",
    "Say what would change if one number were doubled.",
)
PLACES = ("a night ferry", "a school kitchen", "a mountain hut", "a print shop", "a seed library")
THINGS = (("baker", "rolls", "tray"), ("gardener", "bulbs", "crate"), ("librarian", "books", "shelf"))
CHINESE = (
    "请在回答中举一个{}的例子。", "并说明在{}的情况下会怎样。", "请比较它与{}的异同。", "请分{}个步骤来写。",
)  # fmt: skip
CHINESE_VALUES = ("码头", "夜班渡轮", "山间小屋", "学校食堂", "种子图书馆")
POLITE = re.compile(r"\b(please|kindly)\b|[\W_]+", re.IGNORECASE)


def add_constraint(fields: Fields, rng: Random) -> str:
    """Add a demand of a kind that the prompt does not have yet. A closing and a shouted last line would conflict."""
    prompt = fields["prompt"]
    taken = {name for name, demand in DEMANDS.items() if demand.value_in(prompt)}
    taken |= {"closing", "shout"} if taken & {"closing", "shout"} else set()
    taken |= {"shout"} if "opening" in taken else {"opening"} if "shout" in taken else set()
    free = [demand for name, demand in DEMANDS.items() if name not in taken]
    if not free:
        return deepen(fields, rng)
    demand = rng.choice(free)
    return f"{prompt} {demand.text.format(rng.choice(demand.values))}"


def deepen(fields: Fields, rng: Random) -> str:
    """Add a question that needs more thought; after len(DEPTHS) times no new question is left."""
    free = [depth for depth in DEPTHS if depth not in fields["prompt"]]
    return f"{fields['prompt']} {rng.choice(free)}" if free else f"Please {fields['prompt']}"


def concretise(fields: Fields, rng: Random) -> str:
    """Name a place and a year, and the next time a reader; after that, deepen."""
    prompt = fields["prompt"]
    if "Set it in" not in prompt:
        return f"{prompt} Set it in {rng.choice(PLACES)} in {rng.randint(1900, 2020)}."
    if "Write for" not in prompt:
        return f"{prompt} Write for a {rng.choice(THINGS)[0]} of {rng.randint(20, 80)} years."
    return deepen(fields, rng)


def add_reasoning(fields: Fields, rng: Random) -> str:
    """Add a further step to a computation, or ask for numbered steps if there is none."""
    if not EXPRESSION.search(fields["prompt"]):
        return f"{fields['prompt']} Work it out in {rng.randint(3, 6)} numbered steps."
    verb = rng.choice(("multiply", "increase"))
    return f"{fields['prompt']} Then {verb} the result by {rng.randint(2, 9)}, and show each step."


def complicate_input(fields: Fields, rng: Random) -> str:
    names = rng.sample(("north", "south", "east", "west"), 3)
    data = ", ".join(f'"{name}": {rng.randint(10, 99)}' for name in names)
    return f"{fields['prompt']} Also add up the values in this data: {{{data}}}"


def breadth(fields: Fields, rng: Random) -> str:
    """Write a new arithmetic problem."""
    who, what, where = rng.choice(THINGS)
    a, b, c = rng.randint(3, 40), rng.randint(2, 30), rng.randint(1, 60)
    problem = f"A {who} has {b} {what} in each {where}, {a} times over, and {c} more."
    return f"{problem} How many {what}? Compute {a} * {b} + {c}."


OPERATORS: dict[str, Callable[[Fields, Random], str]] = {
    operator.__name__: operator
    for operator in (add_constraint, deepen, concretise, add_reasoning, complicate_input, breadth)
}


def rewrite(operator: Callable[[Fields, Random], str], fields: Fields, rng: SimRandom) -> str:
    """Rewrite a prompt in its own language: by the operator, or by a demand in Chinese."""
    if not CJK.search(fields["prompt"]):
        return operator(fields, rng)
    free = [(text, value) for text in CHINESE for value in CHINESE_VALUES if text.format(value) not in fields["prompt"]]
    text, value = rng.choice(free)
    prompt = fields["prompt"].rstrip()
    stop = "" if unicodedata.category(prompt[-1])[0] == "P" else "。"
    return f"{prompt}{stop}{text.format(str(rng.randint(3, 6)) if '步骤' in text else value)}"


def harder_code(fields: Fields, rng: SimRandom) -> str:
    """Make a programming task harder, by one of four operators."""
    return rng.choice((add_constraint, deepen, add_reasoning, complicate_input))(fields, rng)


def change_problem(fields: Fields, rng: SimRandom) -> str:
    """Replace a problem by an easier one, or make it harder, as the template's text says."""
    return breadth(fields, rng) if "easier" in fields["method"] else add_reasoning(fields, rng)


def equal(fields: Fields, rng: Random) -> str:
    """Compare two prompts by their words without polite phrases."""
    first, second = (POLITE.sub(" ", fields[name]).lower().split() for name in ("first", "second"))
    if first == second:
        return "Both ask for the same thing in the same depth.\nVerdict: equal"
    return "One of them asks for more.\nVerdict: not equal"


HANDLERS: dict[str, Handler] = {
    **{f"evolve/{name}": partial(rewrite, operator) for name, operator in OPERATORS.items()},
    "evolve/equal": equal,
    "evolve_code/harder": harder_code,
    "evolve_math/change": change_problem,
}
