"""Replies that no model should write and some do: `hostile`."""

from random import Random

from tests.growth import UNITS

BEGINNINGS = (
    *("", "a", "1", "\n", "I", "[", "<", "{", "# ", "1. ", "yes", "No", "#### ", "\\boxed{", "<<1+1=", "```python\n"),
    *("Verdict: tie\n", "Verdict: ", "Verdict: not equal\n", "Score: 3\n", "Order: ", "Answer: ", "The answer is "),
    *("Follow-up: Where?\n", "Final answer: ", "Intermediate answer: ", "2 + 8 = 10\n", "So A is better", "As an AI "),
    *("<think>", "<think>a</think>", "I'm sorry, but", '{"instruction": "Name a cat.", "input": "'),
    *('{"input": "a", "output": "', '[{"instruction": '),
)
"""What a reader looks for, before the rest."""
NUMBERS = (
    "9" * 5000,
    "-" + "9" * 5000,
    "1e400",
    "10**400",
    "1" + "0" * 400,
    "0." + "0" * 400 + "1",
    "1/0",
    "९" * 300,
    "²",
)
"""More digits than int() takes, more than a float holds, digits of other scripts."""
STRUCTURES = (
    "[" * 5000, "{" * 5000, '{"a":' * 3000, "(" * 3000, "\\boxed{" * 2000 + "}" * 2000, "<div>" * 3000, "> " * 3000,
    '{"instruction": ' + "[" * 3000 + "]" * 3000 + "}", '{"instruction": "a", "instruction": 1e999}', "[[[]]]", "null",
    '{"instruction": null, "input": 1, "output": []}', '{"instruction": ' + "9" * 5000 + "}", "NaN", "\ufeff{}", "{}",
)  # fmt: skip
"""Deep nesting and values of the wrong kind."""
SIGNS = (
    "\x00",
    "\x1b]52;c;eA==\x07",
    "\u202e\u2066",
    "\ud800",
    "\udfff\ud83d",
    "\u2028",
    "\r",
    "\x85",
    "\u200b",
    "e\u0301" * 50,
)
"""NUL, a command to the terminal, direction marks, halves of characters, other ends of lines."""
USUAL, LONG = 2_000, 1_000_000
"""Characters of a run."""


def hostile(random: Random) -> str:
    """Draw a reply: a beginning that a reader knows, runs, numbers, structures and signs in any order."""
    length = LONG if random.random() < 0.002 else random.randint(1, USUAL)
    unit = random.choice(UNITS)
    parts = [
        unit * max(1, length // len(unit)),
        random.choice(NUMBERS) if random.random() < 0.2 else "",
        random.choice(STRUCTURES) if random.random() < 0.1 else "",
        random.choice(SIGNS) if random.random() < 0.2 else "",
        random.choice(UNITS) * random.randint(0, 300),
    ]
    random.shuffle(parts)
    return random.choice(BEGINNINGS) + "".join(parts) + random.choice(("", "\n", random.choice(BEGINNINGS)))
