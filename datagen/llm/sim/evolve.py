"""How the procedural teacher plays Evol-Instruct: six operators that rewrite a prompt, and the equality question."""

import re
import unicodedata
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
OPERATORS = ("add_constraint", "deepen", "concretise", "add_reasoning", "complicate_input", "breadth")
PLACES = ("a night ferry", "a school kitchen", "a mountain hut", "a print shop", "a seed library")
THINGS = (("baker", "rolls", "tray"), ("gardener", "bulbs", "crate"), ("librarian", "books", "shelf"))
CHINESE = (
    "请在回答中举一个{}的例子。", "并说明在{}的情况下会怎样。", "请比较它与{}的异同。", "请分{}个步骤来写。",
)  # fmt: skip
CHINESE_VALUES = ("码头", "夜班渡轮", "山间小屋", "学校食堂", "种子图书馆")
POLITE = re.compile(r"\b(please|kindly)\b|[\W_]+", re.IGNORECASE)


def apply_operator(operator: str, prompt: str, rng: Random) -> str:
    """Rewrite a prompt by one of the OPERATORS. An operator that has nothing left to add deepens the prompt."""
    if operator == "add_constraint":
        # A demand of a kind that the prompt does not have yet. A closing and a shouted last line would conflict.
        kinds = {name for name, demand in DEMANDS.items() if demand.value_in(prompt)}
        kinds |= {"closing", "shout"} if kinds & {"closing", "shout"} else set()
        kinds |= {"shout"} if "opening" in kinds else {"opening"} if "shout" in kinds else set()
        demands = [demand for name, demand in DEMANDS.items() if name not in kinds]
        if demands:
            demand = rng.choice(demands)
            return f"{prompt} {demand.text.format(rng.choice(demand.values))}"
    if operator == "concretise":
        if "Set it in" not in prompt:
            return f"{prompt} Set it in {rng.choice(PLACES)} in {rng.randint(1900, 2020)}."
        if "Write for" not in prompt:
            return f"{prompt} Write for a {rng.choice(THINGS)[0]} of {rng.randint(20, 80)} years."
    if operator == "add_reasoning":
        if not EXPRESSION.search(prompt):
            return f"{prompt} Work it out in {rng.randint(3, 6)} numbered steps."
        verb = rng.choice(("multiply", "increase"))
        return f"{prompt} Then {verb} the result by {rng.randint(2, 9)}, and show each step."
    if operator == "complicate_input":
        names = rng.sample(("north", "south", "east", "west"), 3)
        data = ", ".join(f'"{name}": {rng.randint(10, 99)}' for name in names)
        return f"{prompt} Also add up the values in this data: {{{data}}}"
    if operator == "breadth":
        who, what, where = rng.choice(THINGS)
        a, b, c = rng.randint(3, 40), rng.randint(2, 30), rng.randint(1, 60)
        problem = f"A {who} has {b} {what} in each {where}, {a} times over, and {c} more."
        return f"{problem} How many {what}? Compute {a} * {b} + {c}."
    depths = [depth for depth in DEPTHS if depth not in prompt]
    return f"{prompt} {rng.choice(depths)}" if depths else f"Please {prompt}"


def rewrite(operator: str, fields: Fields, rng: SimRandom) -> str:
    """Evolve a prompt in its own language: by the operator, or by a demand in Chinese."""
    prompt = fields["prompt"]
    if not CJK.search(prompt):
        return apply_operator(operator, prompt, rng)
    free = [(text, value) for text in CHINESE for value in CHINESE_VALUES if text.format(value) not in prompt]
    text, value = rng.choice(free)
    prompt = prompt.rstrip()
    stop = "" if unicodedata.category(prompt[-1])[0] == "P" else "。"
    return f"{prompt}{stop}{text.format(str(rng.randint(3, 6)) if '步骤' in text else value)}"


def rewrite_code(fields: Fields, rng: SimRandom) -> str:
    """Make a programming task harder, by one of four operators."""
    operator = rng.choice(("add_constraint", "deepen", "add_reasoning", "complicate_input"))
    return apply_operator(operator, fields["prompt"], rng)


def rewrite_problem(fields: Fields, rng: SimRandom) -> str:
    """Replace a mathematical problem by an easier one, or make it harder, as the text of the template says."""
    operator = "breadth" if "easier" in fields["method"] else "add_reasoning"
    return apply_operator(operator, fields["prompt"], rng)


def equal(fields: Fields, rng: Random) -> str:
    """Compare two prompts by their words without polite phrases."""
    first, second = (POLITE.sub(" ", fields[name]).lower().split() for name in ("first", "second"))
    if first == second:
        return "Both ask for the same thing in the same depth.\nVerdict: equal"
    return "One of them asks for more.\nVerdict: not equal"


HANDLERS: dict[str, Handler] = {
    **{f"evolve/{operator}": partial(rewrite, operator) for operator in OPERATORS},
    "evolve/equal": equal,
    "evolve_code/harder": rewrite_code,
    "evolve_math/change": rewrite_problem,
}
