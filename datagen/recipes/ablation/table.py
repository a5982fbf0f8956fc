"""What an ablation shows: the measure of each arm and seed, their paired difference, and what each arm took."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from datagen.commands.terminal import columns
from datagen.errors import DatagenError, InputError, unknown_value
from datagen.llm.prices import dollars
from datagen.recipes.ablation.arms import ARMS, Study, Switch, file_in
from datagen.recipes.ablation.paired import MOST_SEEDS, Difference, difference
from datagen.recipes.recipe import Result
from datagen.records.record import Row

LESS_IS_BETTER = ("loss", "perplexity")
"""Endings of the names of measures of which less is better; of all others more is."""
SLACK = 0.01
"""Share by which the tokens of the arms may differ: the last row that does not fit is left out."""


@dataclass(frozen=True)
class Measure:
    """The number that tells the arms apart."""

    result: Result

    @property
    def less_is_better(self) -> bool:
        """Whether a smaller number is better."""
        return self.result.value[-1].endswith(LESS_IS_BETTER)


@dataclass(frozen=True)
class Arm:
    """What one value of the switch came to."""

    label: str
    values: list[float]
    """The measure, by seed."""
    rows: list[int]
    """Rows in the files that it trained on, by seed."""
    tokens: list[int]
    """Tokens with a loss that it trained on, by seed."""
    calls: int
    """Answers used by all seeds; those that both arms use are counted in each."""
    cost: float


def pick_measure(study: Study, results: Sequence[Result], name: str | None) -> Measure:
    """Return the measure by its name among the results of the recipe; None is the only one.

    Raises:
        InputError: There is none of this name, or the switch cannot change it.
    """
    known = {result.name: result for result in results}
    if name is None and len(known) != 1:
        raise InputError(f"--measure: name one of the results of the recipe: {', '.join(known) or 'it has none'}")
    if name is not None and name not in known:
        raise unknown_value("--measure", name, known)
    result = known[name] if name is not None else results[0]
    if len({file_in(result.file, study.names[arm, 0]) for arm in ARMS}) == 1:
        raise InputError(f"--measure {result.name}: {result.file} does not depend on the switch")
    return Measure(result)


def read_arms(study: Study, switch: Switch, measure: Measure, folder: Path) -> list[Arm]:
    """Read what the steps have written.

    Raises:
        DatagenError: A number is missing, or the arms trained on different numbers of tokens.
    """
    return [read_arm(study, arm, label, measure, folder) for arm, label in zip(ARMS, switch.labels(), strict=True)]


def read_arm(study: Study, arm: str, label: str, measure: Measure, folder: Path) -> Arm:
    cells = [names for (name, _), names in study.names.items() if name == arm]
    values = [number_in(folder, file_in(measure.result.file, names), measure.result.value) for names in cells]
    reports = [[f"{names[model]}/run/report.json" for model in study.counted] for names in cells]
    rows = [[number_in(folder, file, ("result", "rows", "train")) for file in files] for files in reports]
    tokens = [[number_in(folder, file, ("result", "trained_on", "tokens")) for file in files] for files in reports]
    outputs = {output for names in cells for output in names.values() if output.endswith(".jsonl")}
    usages = [usage_of(folder / output) for output in sorted(outputs)]
    return Arm(
        label,
        values,
        [int(sum(numbers)) for numbers in rows],
        [int(sum(numbers)) for numbers in tokens],
        sum(usage.get("calls") or 0 for usage in usages),
        sum(usage.get("cost") or 0 for usage in usages),
    )


def number_in(folder: Path, file: str, keys: Sequence[str]) -> float:
    """Return a number of a JSON file that a step has written."""
    try:
        value: Any = json.loads((folder / file).read_bytes())
        for key in keys:
            value = value[key]
        return float(value)
    except (OSError, ValueError, LookupError, TypeError):
        raise DatagenError(f"{folder / file}: no number at {'.'.join(keys)}; is it what that step writes?") from None


def usage_of(output: Path) -> Row:
    """Return what the answers in an output took, recorded ones included; empty for a file that asked no model."""
    try:
        usage = json.loads(output.with_suffix(".meta.json").read_bytes())["result"]["usage"]
    except (OSError, ValueError, LookupError, TypeError):
        return {}
    return usage if isinstance(usage, dict) else {}


def check_tokens(arms: Sequence[Arm]) -> None:
    """Raise DatagenError if with some seed the arms did not train on equally many tokens."""
    for counts in zip(*(arm.tokens for arm in arms), strict=True):
        if max(counts) - min(counts) > SLACK * max(counts):
            shown = " and ".join(f"{count:,}" for count in counts)
            way = "raise `tokens`, beside which a row is long"
            raise DatagenError(f"the arms trained on {shown} tokens, which differ by more than 1 %: {way}")


def verdict(switch: Switch, measure: Measure, arms: Sequence[Arm], gap: Difference) -> str:
    """Say in a sentence what that shows."""
    first, second = switch.labels()
    name, seeds = measure.result.name, len(arms[0].values)
    if gap.is_shown:
        is_better = (gap.mean < 0) == measure.less_is_better
        more = "less" if gap.mean < 0 else "more"
        return (
            f"{switch.name}={first} {'helps' if is_better else 'hurts'}: {abs(gap.mean):.4g} {more} {name} than with "
            f"{second} ({seeds} seeds)."
        )
    if not (gap.mean or gap.deviation):
        return f"No difference shown: {name} is the same in both arms, with every seed."
    number = f"about {gap.needed}" if gap.needed else f"more than {MOST_SEEDS}"
    return (
        f"No difference shown: the interval includes 0 ({seeds} seeds). A difference of this size would take {number} "
        "seeds to show."
    )


def as_dict(recipe: str, switch: Switch, study: Study, measure: Measure, arms: Sequence[Arm]) -> Row:
    """Return all of it for `ablation.json`; no time and no path, so that it is the same after every stop."""
    gap = difference(arms[0].values, arms[1].values)
    return {
        "recipe": recipe,
        "switch": switch.name,
        "measure": measure.result.name,
        "less_is_better": measure.less_is_better,
        "seeds": len(arms[0].values),
        "seeds_vary": list(study.vary),
        "arms": [vars(arm) for arm in arms],
        "difference": vars(gap),
        "verdict": verdict(switch, measure, arms, gap),
    }


def cells(report: Row) -> list[list[str]]:
    """Return the table: a line for each arm, and one for their difference."""
    heading = [report["switch"], report["measure"], "sd", "rows", "tokens", "calls", "cost"]
    table = [heading, *(arm_cells(arm) for arm in report["arms"])]
    gap = report["difference"]
    interval = f"{gap['low']:+.4g} to {gap['high']:+.4g}"
    return [*table, ["difference", f"{gap['mean']:+.4g}", f"{gap['deviation']:.2g}", interval, "", "", ""]]


def arm_cells(arm: Row) -> list[str]:
    means = [f"{fmean(arm[name]):,.0f}" if any(arm[name]) else "-" for name in ("rows", "tokens")]
    measured = [f"{fmean(arm['values']):.4g}", f"{stdev(arm['values']):.2g}"]
    return [arm["label"], *measured, *means, f"{arm['calls']:,}", dollars(arm["cost"])]


def text_lines(report: Row) -> list[str]:
    """Return the table for a terminal, with what it says."""
    return [*columns(cells(report)), "", *notes(report)]


def notes(report: Row) -> list[str]:
    seeds, better = report["seeds"], "less" if report["less_is_better"] else "more"
    return [
        report["verdict"],
        f"95 % interval of the difference, paired by seed: Student's t with {seeds - 1} degrees of freedom. Of "
        f"{report['measure']}, {better} is better.",
        f"Different with each seed: {', '.join(report['seeds_vary'])}.",
    ]


def markdown(report: Row) -> str:
    """Return the same as a page of Markdown."""
    heading, *rows = [[cell.replace("|", "\\|") for cell in row] for row in cells(report)]
    lines = [heading, ["---"] * len(heading), *rows]
    table = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([*table, "", "\n\n".join(notes(report)), ""])
