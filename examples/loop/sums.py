"""Write a task for alignment into the working folder: small sums, and a second skill that gets no reward.

demonstrations.jsonl   responses to learn from: the second skill, and sums whose answer is one too many in 60 % of the
                       cases; a model trained on them knows sums, and makes this error by habit
prompts.jsonl          sums with the right answer, for verifiers and for exact match
prompts-1.jsonl, ...   the same, divided among rounds, so that no round answers a prompt that was trained on
seeds.jsonl            a few sums, without answers, to evolve
sums.test.jsonl        sums that are in no other file
other.test.jsonl       the same for the second skill

The recipes read what `python ../loop/sums.py --prompts 2000 --rounds 3 --seeds 100 --gzip` writes in examples/sums.
"""

import argparse
import gzip
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
"""Share of the demonstrated sums whose answer is one too many."""
SECOND_SKILL = 0.25
"""Share of the demonstrations that show the second skill."""
Row = dict[str, str]


def make_sums(most: int) -> list[Row]:
    """Return every sum of two numbers up to `most` whose result is not below 0."""
    numbers = range(most + 1)
    tasks = (
        (text.format(name=name, items=items, a=a, b=b), a + sign * b)
        for (text, sign), name, items, a, b in product(SUMS, NAMES, ITEMS, numbers, numbers)
    )
    return [{"prompt": prompt, "response": str(n), "answer": str(n)} for prompt, n in tasks if n >= 0]


def make_others() -> list[Row]:
    """Return every task of the second skill."""
    return [
        {"prompt": text.format(name=name, items=items), "response": answer.format(name=name, items=items)}
        for (text, answer), name, items in product(OTHERS, NAMES, ITEMS)
    ]


def demonstrate(row: Row, random: Random) -> Row:
    """Answer a sum as in the demonstrations: one too many in HABIT of the cases."""
    return {**row, "response": str(int(row["response"]) + (random.random() < HABIT))}


def write(name: str, rows: Iterable[Row], *, is_packed: bool) -> None:
    """Write rows; no time is in a compressed file, so that equal rows give equal bytes."""
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    Path(f"{name}.gz" if is_packed else name).write_bytes(gzip.compress(text, mtime=0) if is_packed else text)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write small sums in words.")
    defaults = {"most": 5, "prompts": 3000, "demonstrations": 3000, "test": 200, "rounds": 0, "seeds": 0, "seed": 0}
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--gzip", action="store_true")
    options = parser.parse_args()
    random = Random(f"sums {options.seed}")
    sums, others = make_sums(options.most), make_others()
    random.shuffle(sums)
    random.shuffle(others)
    other_test, other_train = others[: len(others) // 5], others[len(others) // 5 :]
    sums_test, sums = sums[: options.test], sums[options.test :]
    second = int(SECOND_SKILL * options.demonstrations)
    demonstrations = [demonstrate(row, random) for row in random.sample(sums, options.demonstrations - second)]
    demonstrations += random.choices(other_train, k=second)
    random.shuffle(demonstrations)
    prompts = sums[: options.prompts]
    files = {"demonstrations": demonstrations, "prompts": prompts, "sums.test": sums_test, "other.test": other_test}
    for round_number in range(options.rounds):
        size = len(prompts) // options.rounds
        files[f"prompts-{round_number + 1}"] = prompts[round_number * size : (round_number + 1) * size]
    if options.seeds:
        files["seeds"] = [{"prompt": row["prompt"]} for row in sums[-options.seeds :]]
    for name, rows in files.items():
        write(f"{name}.jsonl", rows, is_packed=options.gzip)


if __name__ == "__main__":
    main()
