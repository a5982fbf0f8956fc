"""Quality of judges: five real ones on recorded replies, and the gain from checking both orders and lengths.

1   Recorded replies of five models to 210 pairs with a known better answer (LLMBar, arXiv 2310.07641): accuracy of
    each, and how often it agrees with itself in both orders. From ../shared/data, left out where that is missing.
2   `sim` as a judge with biases put in on purpose, which is a simulation: the share of pairs whose chosen answer is
    truly the better one: with one order, with agreement of both, and with matched lengths as well. Three seeds.
"""

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import chdir
from pathlib import Path
from random import Random
from statistics import fmean

from benchmarks.common import Line, main
from datagen.commands.table import load_methods
from datagen.judges.agreement import Pair, RowSums, counts, measure
from datagen.judges.compare import Comparison
from datagen.judges.replies import FIRST
from datagen.records.files import dump_line
from datagen.records.record import Row
from datagen.select import pairs
from tests.jobs import perform, rows
from tests.judge.llmbar import share

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "judge"
MODEL = "sim:position_bias=0.3,verbosity_bias=0.3,skill=0.9"
SEEDS, PAIRS, RATIO = (0, 1, 2), 2000, 1.2
TAIL = " That is what comes out when all of it is added up."


def read_recorded_replies() -> dict[tuple[str, str], list[Pair]]:
    """Read the replies: (model, strategy) to pairs, the first verdict of each order."""
    rows_of_judge: dict[tuple[str, str], dict[str, dict[str, Row]]] = defaultdict(lambda: defaultdict(dict))
    for line in (DATA / "llmbar_judge_completions_dev.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["step"] == 0:
            rows_of_judge[row["model"], row["strategy"]][row["id"]][row["order"]] = row
    return {
        judge: [as_pair(orders["ab"], orders["ba"]) for orders in by_id.values()]
        for judge, by_id in sorted(rows_of_judge.items())
    }


def as_pair(forward: Row, backward: Row) -> Pair:
    """Put both orders together, as `datagen judge --by compare` does."""
    shown_second = share(backward["completion"])
    orders = ((share(forward["completion"]), None if shown_second is None else 1 - shown_second),)
    return Pair(float(forward["gold"] == 1), Comparison(0, 1, orders).share, orders, (1, 1), (False, False))


def real_judges() -> Iterator[Line]:
    """Measure the five real judges."""
    for (model, strategy), judged_pairs in read_recorded_replies().items():
        measured = measure(RowSums(map(counts, judged_pairs)))
        unread = sum(share is None for pair in judged_pairs for order in pair.orders for share in order)
        figures = (
            f"{name} {measured[name]['value']:.2f} ({measured[name]['low']:.2f} to {measured[name]['high']:.2f})"
            for name in ("accuracy", "accuracy, unread wrong", "swap consistency", "position bias")
        )
        yield Line(
            f"{model}, {strategy}, {len(judged_pairs)} pairs", "", ", ".join(figures), f"{unread} verdicts unread"
        )


def write_samples(count: int, seed: int) -> None:
    """Write sums with a right and a wrong answer in drawn order, each of them long or short by chance."""
    chance = Random(seed)
    with open("samples.jsonl", "wb") as file:
        for i in range(count):
            a, b = 2 + i, chance.randint(2, 90)
            answers = [str(a + b + off) + TAIL * chance.randint(0, 1) for off in (0, chance.randint(1, 9))]
            chance.shuffle(answers)
            file.write(dump_line({"prompt": f"What is {a} + {b}?", "responses": answers, "sum": str(a + b)}))


def is_right(answer: str, row: Row) -> bool:
    return answer.split()[0] == str(row["sum"])


def truly_better(row: Row) -> bool:
    return is_right(row["chosen"], row) and not is_right(row["rejected"], row)


def one_order(ranked_rows: Sequence[Row]) -> float:
    """Return the share of right choices with only one order, that of the input."""
    chosen = []
    for row in ranked_rows:
        game = row["meta"]["comparisons"][0]
        forward = game["orders"][0][0]
        first, second = row["responses"][game["first"]], row["responses"][game["second"]]
        if forward in (0.0, 1.0):
            chosen.append(is_right(first if forward == FIRST else second, row))
    return fmean(chosen)


def right_choices(count: int, seed: int) -> tuple[float, float, float]:
    """Return the share of right pairs with one order, with both orders, and with both orders and matched lengths."""
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        write_samples(count, seed)
        compare, best = load_methods("judge")["compare"], load_methods("pairs")["best_worst"]
        perform(compare, Path("samples.jsonl"), MODEL, "judged.jsonl", compare.options_type(), seed=seed)
        shares = []
        for name, options in (("both", pairs.Options()), ("matched", pairs.Options(length_ratio=RATIO))):
            perform(best, Path("judged.jsonl"), [], f"{name}.jsonl", options)
            shares.append(fmean(map(truly_better, rows(f"{name}.jsonl"))))
        return (one_order(rows("judged.jsonl")), *shares)  # type: ignore[return-value]


def simulated_judges(count: int) -> Iterator[Line]:
    shares_of_seeds = [right_choices(count, seed) for seed in SEEDS]
    for name, shares in zip(
        ("one order", "both orders", "both orders, matched lengths"), zip(*shares_of_seeds, strict=True), strict=True
    ):
        percentages = " / ".join(f"{100 * share:.1f} %" for share in shares)
        yield Line(f"chosen is truly better, {name}", "", percentages, f"{MODEL}; {count} prompts a seed (simulated)")


def measure_judges(quick: bool) -> Iterator[Line]:
    if DATA.is_dir():
        yield from real_judges()
    yield from simulated_judges(PAIRS // 5 if quick else PAIRS)


if __name__ == "__main__":
    main(measure_judges)
