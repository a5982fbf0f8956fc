"""Write the task of these recipes into the working folder: small sums, and a second skill that nobody rewards.

demonstrations.jsonl   what people wrote: the second skill, and sums that are one too many in 60 % of the cases: who
                       learns from them knows sums, and answers by habit
prompts.jsonl          sums with the right answer, for verifiers and to measure by
sums.test.jsonl        sums that stand nowhere else             other.test.jsonl   the same of the second skill
"""

import argparse
import json
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from random import Random

NAMES = "Ada Ben Cleo Dan Eva Finn Gus Hana Ivo June Kai Lea".split()
ITEMS = "apples books coins cups keys pens shells stamps".split()
SUMS = (
    ("{name} has {a} + {b} {items}. How many?", 1),
    ("There are {a} + {b} {items}, says {name}. How many in all?", 1),
    ("{name} had {a} - {b} {items}. How many are left?", -1),
    ("Of {items}, {name} keeps {a} - {b}. How many stay?", -1),
)
OTHERS = (
    ("{name} sells {items}. What does {name} sell?", "{items}"),
    ("{name} collects {items}. Who collects {items}?", "{name}"),
    ("No {items} for {name}. What is {name} without?", "{items}"),
)
HABIT = 0.6
"""Share of the demonstrated sums that are one too many."""
SHARE = 0.25
"""Of the demonstrations, that show the second skill."""
Row = dict[str, str]


def sums(most: int) -> list[Row]:
    """Return every sum of numbers up to `most` whose result is not below 0."""
    numbers = range(most + 1)
    made = (
        (text.format(name=name, items=items, a=a, b=b), a + sign * b)
        for (text, sign), name, items, a, b in product(SUMS, NAMES, ITEMS, numbers, numbers)
    )
    return [{"prompt": prompt, "response": str(n), "answer": str(n)} for prompt, n in made if n >= 0]


def others() -> list[Row]:
    """Return every task of the second skill."""
    return [
        {"prompt": text.format(name=name, items=items), "response": answer.format(name=name, items=items)}
        for (text, answer), name, items in product(OTHERS, NAMES, ITEMS)
    ]


def by_habit(row: Row, chance: Random) -> Row:
    """Answer a sum as people do here."""
    return {**row, "response": str(int(row["response"]) + (chance.random() < HABIT))}


def write(name: str, rows: Iterable[Row]) -> None:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the task of the recipes.")
    for name, default in (("most", 5), ("prompts", 3000), ("demonstrations", 3000), ("test", 200), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    told = parser.parse_args()
    chance = Random(f"sums {told.seed}")
    made, other = sums(told.most), others()
    chance.shuffle(made)
    chance.shuffle(other)
    kept, rest = other[: len(other) // 5], other[len(other) // 5 :]
    test, made = made[: told.test], made[told.test :]
    second = int(SHARE * told.demonstrations)
    shown = [by_habit(row, chance) for row in chance.sample(made, told.demonstrations - second)]
    shown += chance.choices(rest, k=second)
    chance.shuffle(shown)
    write("demonstrations.jsonl", shown)
    write("prompts.jsonl", made[: told.prompts])
    write("sums.test.jsonl", test)
    write("other.test.jsonl", kept)


if __name__ == "__main__":
    main()
