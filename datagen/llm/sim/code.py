"""How the procedural teacher programs: functions of arithmetic, written in one of several ways.

It reads "Write a Python function scale(a, b) that returns a * b + 3." Without skill the value is off by one.
"""

import re
from collections.abc import Sequence

from datagen.llm.sim import SimRandom

TASK = re.compile(
    r"Write a Python function ([a-z_]{1,30})\(([a-z](?:, [a-z]){0,3})\) that returns ([-+*a-z0-9 ()]{1,60})\."
)
BODIES: Sequence[str] = (
    "def {name}({arguments}):\n    return {value}\n",
    "def {name}({arguments}):\n    result = {value}\n    return result\n",
    "def {name}({arguments}):\n    # All in one step.\n    total = {value}\n    return total\n",
    "{name} = lambda {arguments}: {value}\n",
)
"""The second and the third are the same program in other words."""
OPENINGS = ("", "Here it is:\n", "One function is enough.\n")


def write_function(prompt: str, rng: SimRandom) -> str | None:
    """Write the function that a prompt asks for; None for a prompt of another kind."""
    task = TASK.search(prompt)
    if task is None:
        return None
    name, arguments, value = task.groups()
    value = f"{value} + 1" if rng.errs() else value
    body = rng.choice(BODIES).format(name=name, arguments=arguments, value=value)
    return f"{rng.choice(OPENINGS)}```python\n{body}```"
