"""The procedural teacher's one family of tasks: arithmetic, with demands on the answer that can be checked.

Any prompt can be answered: an expression in it is worked out step by step, and every demand that DEMANDS knows is
met. What is said about other topics is filler that repeats the prompt's own words.
"""

import re
from collections.abc import Mapping
from random import Random
from typing import NamedTuple

from datagen.verify.languages import is_chinese

EXPRESSION = re.compile(r"(?<![\w.-])(?!\d{4}-\d\d-\d\d)\d{1,6}(?: *[-+*] *\d{1,6}(?!\w|\.\d))+")
FURTHER = re.compile(r"Then (multiply|increase) the result by (\d{1,3})\b")
DATA = re.compile(r'\{("\w+": \d{1,4}(?:, "\w+": \d{1,4})*)\}')
WORD = re.compile(r"[A-Za-z]{5,}")
CHINESE_WORD = re.compile(r"[\u3400-\u9fff]{2,4}")


class Demand(NamedTuple):
    """Something that a prompt can ask of its answer, and that can be checked."""

    text: str
    """How it is asked; {} stands for the value."""
    values: tuple[str, ...]

    def asked(self, prompt: str) -> str | None:
        """Return the value that a prompt asks for, if it does."""
        return next((value for value in self.values if self.text.format(value) in prompt), None)


DEMANDS = {
    "word": Demand("Use the word '{}' in the answer.", ("harbor", "lantern", "orchard", "compass", "granite")),
    "opening": Demand("Begin the answer with '{}'.", ("In short:", "To start,", "First things first:")),
    "closing": Demand("End the answer with '{}'.", ("That is all.", "Checked twice.", "End of answer.")),
    "shout": Demand("Write the final line in {} letters.", ("capital",)),
}
COMPUTE = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}


def solve(prompt: str) -> tuple[list[str], int | None]:
    """Work out the expression in a prompt, products first, then what is to be done with the result."""
    found = EXPRESSION.search(prompt)
    if not found:
        return [], None
    terms: list[int | str] = [int(t) if t.isdigit() else t for t in re.findall(r"\d+|[-+*]", found[0])]
    steps: list[str] = []
    while len(terms) > 1:
        at = terms.index("*") if "*" in terms else 1
        left, operator, right = terms[at - 1 : at + 2]
        assert isinstance(left, int) and isinstance(right, int)
        value = COMPUTE[str(operator)](left, right)
        steps.append(f"{left} {operator} {right} = {value}.")
        terms[at - 1 : at + 2] = [value]
    result = int(terms[0])
    for verb, number in FURTHER.findall(prompt):
        before, by = result, int(number)
        result = before * by if verb == "multiply" else before + by
        steps.append(f"{before} {'*' if verb == 'multiply' else '+'} {by} = {result}.")
    return steps, result


def answer(fields: Mapping[str, str], chance: Random) -> str:
    """Answer a prompt so that every demand in it holds."""
    prompt = fields["prompt"]
    steps, result = solve(prompt)
    lines = [*steps, f"The result is {result}."] if steps else [filler(prompt, chance)]
    for data in DATA.findall(prompt):
        total = sum(map(int, re.findall(r": (\d+)", data)))
        lines.append(f"The values in the data add up to {total}.")
    return _meet_demands(prompt, lines)


def filler(prompt: str, chance: Random) -> str:
    """Say something in the language of a prompt, with its own words."""
    chinese = is_chinese(prompt)
    words = CHINESE_WORD.findall(prompt) if chinese else [word.lower() for word in WORD.findall(prompt)]
    topic = list(dict.fromkeys(words))[:6]
    chance.shuffle(topic)
    return f"这里要谈的是{'、'.join(topic)}。" if chinese else f"This concerns {', '.join(topic) or 'the request'}."


def _meet_demands(prompt: str, lines: list[str]) -> str:
    asked = {name: demand.asked(prompt) for name, demand in DEMANDS.items()}
    if asked["word"]:
        lines.append(f"One word to remember is {asked['word']}.")
    text = "\n".join([*lines, asked["closing"]] if asked["closing"] else lines)
    text = f"{asked['opening']} {text}" if asked["opening"] else text
    if asked["shout"] and not asked["closing"]:
        head, newline, last = text.rpartition("\n")
        text = head + newline + (last if not head and asked["opening"] else last.upper())
    return text


def unmet(prompt: str, text: str) -> list[str]:
    """Name what a prompt demands and its answer does not meet."""
    asked = {name: value for name, demand in DEMANDS.items() if (value := demand.asked(prompt))}
    holds = {
        "word": asked.get("word", "").lower() in text.lower(),
        "opening": text.startswith(asked.get("opening", "")),
        "closing": text.endswith(asked.get("closing", "")),
        "shout": text.rpartition("\n")[2].isupper(),
    }
    result = solve(prompt)[1]
    wrong = ["result"] if result is not None and str(result) not in text else []
    return [name for name in asked if not holds[name]] + wrong
