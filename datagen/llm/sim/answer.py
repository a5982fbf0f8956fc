"""How the procedural teacher answers a prompt directly: arithmetic, and demands on the answer that can be checked.

Any prompt can be answered. An expression in it is worked out step by step, and every demand in DEMANDS is met. For
other topics the answer is filler that repeats the prompt's own words. The verifiable constraints of `datagen
constraints` are met as well, each as often as the skill says.
"""

import re
from random import Random
from typing import NamedTuple

from datagen.llm.sim import Fields, Handler, SimRandom
from datagen.llm.sim.code import write_function
from datagen.verify.languages import is_chinese

EXPRESSION = re.compile(r"(?<![\w.-])(?!\d{4}-\d\d-\d\d)\d{1,6}(?: *[-+*] *\d{1,6}(?!\w|\.\d))+")
MAX_TERMS = 200
"""Numbers, signs and further steps of an expression; a longer one is not computed."""
FURTHER_STEP = re.compile(r"Then (multiply|increase) the result by (\d{1,3})\b")
DATA = re.compile(r'\{("\w+": \d{1,4}(?:, "\w+": \d{1,4})*)\}')
WORD = re.compile(r"[A-Za-z]{5,}")
CHINESE_WORD = re.compile(r"[\u3400-\u9fff]{2,4}")
COMPUTE = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}


class Demand(NamedTuple):
    """A demand that a prompt can make on its answer, and that can be checked."""

    text: str
    """The sentence in the prompt; {} stands for the value."""
    values: tuple[str, ...]

    def value_in(self, prompt: str) -> str | None:
        """Return the value that a prompt demands, if any."""
        return next((value for value in self.values if self.text.format(value) in prompt), None)


DEMANDS = {
    "word": Demand("Use the word '{}' in the answer.", ("harbor", "lantern", "orchard", "compass", "granite")),
    "opening": Demand("Begin the answer with '{}'.", ("In short:", "To start,", "First things first:")),
    "closing": Demand("End the answer with '{}'.", ("That is all.", "Checked twice.", "End of answer.")),
    "shout": Demand("Write the final line in {} letters.", ("capital",)),
}
CONSTRAINTS = {
    "words": re.compile(r"Use each of these words: [^.]{1,400}\."),
    "repeated word": re.compile(r'Use the word "[^"]+" at least \d+ times?\.'),
    "bullets": re.compile(r"Use exactly \d+ Markdown bullet points"),
    "title": re.compile(r"Give your answer a title in double angle brackets"),
    "no comma": re.compile(r"Do not use a single comma\."),
    "small letters": re.compile(r"in small letters only"),
    "capital letters": re.compile(r"Answer in English, in capital letters only"),
    "postscript": re.compile(r"add a postscript on a line that starts with (P\.P\.S|P\.S\.)"),
    "end": re.compile(r"End with exactly this, and nothing after it: ([^\n]+)"),
    "quotation": re.compile(r"Put your whole answer between double quotation marks"),
}
"""The verifiable constraints that it knows, in the order in which all of them can be met."""


def answer_with_constraints(fields: Fields, rng: SimRandom) -> str:
    """Answer a prompt, and change the answer to meet each verifiable constraint, except those that the skill misses."""
    text = write_function(fields["prompt"], rng) or answer(fields, rng)
    for name, pattern in CONSTRAINTS.items():
        match = pattern.search(fields["prompt"])
        if not match or rng.errs():
            continue
        request = match[0]
        if name == "words":
            words = re.findall(r'"([^"]+)"', request)
            text = f"{text} That brings to mind: {' '.join(words)}."
        elif name == "repeated word":
            word, times = re.findall(r'"([^"]+)" (?:at least|exactly)? ?(\d+)', request)[0]
            text = f"{text} {' '.join([word] * int(times))}."
        elif name == "bullets":
            count = int(re.findall(r"exactly (\d+)", request)[0])
            text = f"{text}\n\n" + "\n".join(f"* Point {number}." for number in range(1, count + 1))
        elif name == "title":
            text = f"<<an answer>>\n{text}"
        elif name == "no comma":
            text = text.replace(",", "")
        elif name == "small letters":
            text = text.lower()
        elif name == "capital letters":
            text = text.upper()
        elif name == "postscript":
            text = f"{text}\n{request.split()[-1]} So it is"
        elif name == "end":
            text = f"{text}\n{request.partition(': ')[2]}"
        else:
            text = '"' + text.replace('"', "'") + '"'
    return text


def answer(fields: Fields, rng: Random) -> str:
    """Answer a prompt so that every demand in it is met."""
    prompt = fields["prompt"]
    steps, result = compute(prompt)
    lines = [*steps, f"The result is {result}."] if steps else [filler(prompt, rng)]
    for data in DATA.findall(prompt):
        total = sum(map(int, re.findall(r": (\d+)", data)))
        lines.append(f"The values in the data add up to {total}.")

    values = {name: demand.value_in(prompt) for name, demand in DEMANDS.items()}
    if values["word"]:
        lines.append(f"One word to remember is {values['word']}.")
    text = "\n".join([*lines, values["closing"]] if values["closing"] else lines)
    text = f"{values['opening']} {text}" if values["opening"] else text
    if values["shout"] and not values["closing"]:
        head, newline, last = text.rpartition("\n")
        text = head + newline + (last if not head and values["opening"] else last.upper())
    return text


def compute(prompt: str) -> tuple[list[str], int | None]:
    """Evaluate the expression in a prompt, products first, and then its further steps; return (steps, result)."""
    match = EXPRESSION.search(prompt)
    if not match:
        return [], None
    terms: list[int | str] = [int(t) if t.isdigit() else t for t in re.findall(r"\d+|[-+*]", match[0])]
    further = FURTHER_STEP.findall(prompt)
    if len(terms) + len(further) > MAX_TERMS:
        return [], None
    steps: list[str] = []
    while len(terms) > 1:
        at = terms.index("*") if "*" in terms else 1
        left, operator, right = terms[at - 1 : at + 2]
        assert isinstance(left, int) and isinstance(right, int)
        value = COMPUTE[str(operator)](left, right)
        steps.append(f"{left} {operator} {right} = {value}.")
        terms[at - 1 : at + 2] = [value]
    result = int(terms[0])
    for verb, number in further:
        before, by = result, int(number)
        result = before * by if verb == "multiply" else before + by
        steps.append(f"{before} {'*' if verb == 'multiply' else '+'} {by} = {result}.")
    return steps, result


def filler(prompt: str, rng: Random) -> str:
    """Write a sentence in the language of a prompt, with the prompt's own words."""
    chinese = is_chinese(prompt)
    words = CHINESE_WORD.findall(prompt) if chinese else [word.lower() for word in WORD.findall(prompt)]
    topic = list(dict.fromkeys(words))[:6]
    rng.shuffle(topic)
    return f"这里要谈的是{'、'.join(topic)}。" if chinese else f"This concerns {', '.join(topic) or 'the request'}."


def unmet(prompt: str, text: str) -> list[str]:
    """Return the names of the demands that an answer does not meet, and "result" for a wrong result."""
    values = {name: value for name, demand in DEMANDS.items() if (value := demand.value_in(prompt))}
    holds = {
        "word": values.get("word", "").lower() in text.lower(),
        "opening": text.startswith(values.get("opening", "")),
        "closing": text.endswith(values.get("closing", "")),
        "shout": text.rpartition("\n")[2].isupper(),
    }
    result = compute(prompt)[1]
    wrong = ["result"] if result is not None and str(result) not in text else []
    return [name for name in values if not holds[name]] + wrong


HANDLERS: dict[str, Handler] = {"answer": answer_with_constraints}
