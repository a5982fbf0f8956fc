"""How the procedural teacher meets verifiable constraints: it knows some, and forgets them as its skill says."""

import re
from collections.abc import Callable

from datagen.llm.sim.chance import Chance

Meet = Callable[[str, str], str]
"""From (text, what was asked for) to the text that has it."""


def _words(text: str, asked: str) -> str:
    words = re.findall(r'"([^"]+)"', asked)
    return f"{text} That brings to mind: {' '.join(words)}."


def _repeat(text: str, asked: str) -> str:
    word, count = re.findall(r'"([^"]+)" (?:at least|exactly)? ?(\d+)', asked)[0]
    return f"{text} {' '.join([word] * int(count))}."


def _bullets(text: str, asked: str) -> str:
    count = int(re.findall(r"exactly (\d+)", asked)[0])
    return f"{text}\n\n" + "\n".join(f"* Point {number}." for number in range(1, count + 1))


def _postscript(text: str, asked: str) -> str:
    return f"{text}\n{asked.split()[-1]} So it is"


def _end(text: str, asked: str) -> str:
    return f"{text}\n{asked.partition(': ')[2]}"


def _quoted(text: str, asked: str) -> str:
    return '"' + text.replace('"', "'") + '"'


MEETS: tuple[tuple[re.Pattern[str], Meet], ...] = (
    (re.compile(r"Use each of these words: [^.]+\."), _words),
    (re.compile(r'Use the word "[^"]+" at least \d+ times?\.'), _repeat),
    (re.compile(r"Use exactly \d+ Markdown bullet points"), _bullets),
    (re.compile(r"Give your answer a title in double angle brackets"), lambda text, asked: f"<<an answer>>\n{text}"),
    (re.compile(r"Do not use a single comma\."), lambda text, asked: text.replace(",", "")),
    (re.compile(r"in small letters only"), lambda text, asked: text.lower()),
    (re.compile(r"Answer in English, in capital letters only"), lambda text, asked: text.upper()),
    (re.compile(r"add a postscript on a line that starts with (P\.P\.S|P\.S\.)"), _postscript),
    (re.compile(r"End with exactly this, and nothing after it: ([^\n]+)"), _end),
    (re.compile(r"Put your whole answer between double quotation marks"), _quoted),
)
"""In the order in which they can all be met."""


def meet(prompt: str, text: str, chance: Chance) -> str:
    """Change an answer so that it meets what the prompt asks for, but for what is forgotten."""
    for pattern, change in MEETS:
        found = pattern.search(prompt)
        if found and not chance.errs():
            text = change(text, found[0])
    return text
