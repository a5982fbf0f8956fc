"""Tree of Thoughts, self-consistency and chain of thought on the Game of 24, at equal calls.

    python -m benchmarks.strategies [--quick]

The procedural teacher plays at skill 0.7, with the same two abilities for every strategy (datagen/llm/sim/game24.py).
For each seed the tree is searched first; the other strategies then get its mean number of calls for each puzzle. The
score is the share of verified final answers; for chain of thought, the mean over its chains.
"""

import sys
from fractions import Fraction
from pathlib import Path
from random import Random
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

from datagen.records.files import dump_line
from datagen.strategies.tree.tasks import is_solvable
from tests.jobs import respond, rows

MODEL = "sim:skill=0.7"
SEEDS = (0, 1, 2)


def write_puzzles(folder: Path, count: int, seed: int) -> Path:
    """Write `count` random solvable puzzles."""
    random = Random(seed)
    puzzles: list[list[int]] = []
    while len(puzzles) < count:
        numbers = sorted(random.randint(1, 13) for _ in range(4))
        if numbers not in puzzles and is_solvable(tuple(map(Fraction, numbers))):
            puzzles.append(numbers)
    lines = (
        {"prompt": f"Make 24 of the numbers {' '.join(map(str, puzzle))}.", "numbers": puzzle} for puzzle in puzzles
    )
    path = folder / "puzzles.jsonl"
    path.write_bytes(b"".join(map(dump_line, lines)))
    return path


def read_verdicts(path: Path) -> list[bool]:
    """Return for every answer whether it is right."""
    verdicts: list[bool] = []
    for row in [*rows(path), *rows(path.with_suffix(".rejected.jsonl"))]:
        verdicts += [answer["verified"] is True for answer in row["meta"].get("responses") or [row["meta"]]]
    return verdicts


def measure(count: int, seed: int) -> tuple[float, dict[str, float]]:
    """Return the calls a puzzle, and the share of right answers by strategy."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        puzzles = write_puzzles(folder, count, seed)

        def run(strategy: str, output: str, **options: Any) -> Path:
            settings: dict[str, Any] = {"seed": seed, "concurrency": "64", **options}
            respond(puzzles, MODEL, str(folder / output), strategy=strategy, **settings)
            return folder / output

        tree = run("tree", "tree.jsonl")
        calls = mean(row["meta"]["calls"] for row in [*rows(tree), *rows(tree.with_suffix(".rejected.jsonl"))])
        k = round(calls)
        vote = run("vote", "vote.jsonl", k=k, least_share=0.0, verify=["game24"])
        cot = run("cot", "cot.jsonl", k=k, verify=["game24"])
        outputs = {"tree": tree, "vote": vote, "cot": cot}
        return calls, {strategy: mean(read_verdicts(path)) for strategy, path in outputs.items()}


def main() -> None:
    count = 10 if "--quick" in sys.argv else 60
    measured = [measure(count, seed) for seed in SEEDS]
    calls = mean(calls for calls, _ in measured)
    print(f"{count} puzzles, seeds {', '.join(map(str, SEEDS))}, {calls:.0f} calls a puzzle\n")
    print("| strategy | verified first answer | by seed |\n|---|---|---|")
    for strategy in ("tree", "vote", "cot"):
        shares = [100 * shares[strategy] for _, shares in measured]
        print(f"| {strategy} | {mean(shares):.1f} % | {', '.join(f'{share:.1f}' for share in shares)} |")


if __name__ == "__main__":
    main()
