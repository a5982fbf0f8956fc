"""One section of the page for each output: its funnel, its tables, its figures, its samples.

Everything comes from x.meta.json and from one pass over the rows, and one over the rejected ones.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from datagen.judges.difficulty import HIGHEST, LOWEST, interval_of
from datagen.judges.summary import LARGE_BIAS, NO_BIAS, percent
from datagen.llm.prices import dollars
from datagen.records.makers import is_sim
from datagen.records.record import Row
from datagen.report.cards import RejectedGroup, SampleRow
from datagen.report.plot import Group, bars, intervals
from datagen.report.rows import RowFigures
from datagen.report.similarity import NEAR, Similarity
from datagen.report.tables import Outcome, PageTable, method_tables, outcomes, spending_tables, table
from datagen.select.contamination import LIMIT, BenchmarkIndex
from datagen.text import count_of

BINS = 24
MOST_VALUES = 16
"""Different scores that have a bar each."""
STATUS = {
    "incomplete": "Some candidates failed: the same command asks for them again.",
    "short": "The run ended before it had the rows that were wanted.",
    "stopped": "The run was stopped: the same command goes on.",
    "writing": "A run is writing this output, or was killed while it did.",
}
"""What is said of an output that is not finished."""
SIM = "The rows come from sim, the built-in rule-based teacher, and are not training data."


@dataclass(frozen=True)
class Output:
    """A file of rows, with what is known of it."""

    path: Path
    meta: Row | None
    """x.meta.json; None for a file without one."""
    figures: RowFigures
    hits: "BenchmarkHits | None" = None

    @property
    def result(self) -> Row:
        return self.meta["result"] if self.meta else {}

    @property
    def command(self) -> str:
        """The command and its variant, as `judge score`; "" if it is not known."""
        return str(self.result["fingerprint"].get("command") or "") if self.meta else ""

    @property
    def input_digest(self) -> str:
        return str(self.result["fingerprint"].get("input") or "") if self.meta else ""

    @property
    def models(self) -> list[str]:
        """The models that answered, in any role."""
        return list(dict.fromkeys(str(part["model"]) for part in self.result.get("spending", [])))


@dataclass
class BenchmarkHits:
    """The rows that contain questions of benchmarks, counted while a file is read."""

    index: BenchmarkIndex
    sizes: Mapping[str, int]
    """The number of questions of each benchmark."""
    rows: Counter[str] = field(default_factory=Counter)
    items: dict[str, set[int]] = field(default_factory=dict)

    def add(self, texts: Sequence[str]) -> None:
        """Take the texts of a row."""
        hits = self.index.hits("", texts)
        self.rows.update({hit.benchmark for hit in hits})
        for hit in hits:
            self.items.setdefault(hit.benchmark, set()).add(hit.item)

    def table(self) -> PageTable:
        lines = []
        for name, size in self.sizes.items():
            count = len(self.items.get(name, ()))
            verdict = "contaminated" if count > LIMIT * size else "clean"
            lines.append([name, f"{self.rows[name]:,}", f"{count:,}", f"{size:,}", verdict])
        head = ["benchmark", "rows with a question of it", "questions contained", "of", ""]
        return table("Questions of benchmarks in the rows", head, lines)


@dataclass(frozen=True)
class OutputSection:
    """What the page says about a file of rows."""

    name: str
    anchor: str
    command: str
    models: list[str]
    origin: str
    """The file that it was made from."""
    origin_anchor: str
    """The section of that file; "" if it has none."""
    notes: list[str]
    tiles: list[tuple[str, str]]
    outcomes: list[Outcome]
    tables: list[PageTable]
    spending: list[PageTable]
    difficulty: Markup | None
    difficulty_table: PageTable | None
    difficulty_command: str
    """The command that measures the difficulty per round; "" where there are no rounds, or the figure is here."""
    charts: list[tuple[Markup, str]]
    """Each with a sentence about it."""
    samples: list[SampleRow]
    rejected: list[RejectedGroup]
    rejected_name: str


def tiles(output: Output) -> list[tuple[str, str]]:
    """Return the numbers that stand first."""
    if not output.meta:
        return [("rows", f"{output.figures.rows:,}")]
    funnel, usage = output.result["funnel"], output.result.get("usage", {})
    kept, total = funnel["kept"], funnel["asked"]
    numbers = [
        ("candidates", f"{total:,}"),
        ("kept", f"{kept:,}" + (f" · {100 * kept / total:.1f} %" if total else "")),
    ]
    if usage.get("calls"):
        cost = usage.get("cost")
        numbers.append(("cost", "unknown" if cost is None else dollars(cost)))
        numbers += [("a kept row", dollars(cost / kept))] if cost and kept else []
        numbers += [("answers", f"{usage['calls']:,}")]
        numbers += [("prompt tokens", f"{usage['prompt_tokens']:,}"), ("completion", f"{usage['completion_tokens']:,}")]
    return numbers


def notes(output: Output) -> list[str]:
    """Return what is to be known before the numbers are read."""
    lines = [SIM] if any(map(is_sim, output.models)) else []
    if not output.meta:
        lines.append("There is no x.meta.json beside it, so nothing is known of its candidates and their cost.")
        return lines
    lines += [STATUS[output.result["status"]]] if output.result["status"] in STATUS else []
    if (kept := output.result["funnel"]["kept"]) != output.figures.rows:
        lines.append(
            f"The file holds {count_of(output.figures.rows, 'row')}, and its run kept {kept:,}: it was edited."
        )
    if output.figures.unusable:
        lines.append(f"{count_of(output.figures.unusable, 'line')} of the file hold no row.")
    unreadable = output.result["funnel"]["unreadable"]
    lines += [f"{count_of(unreadable, 'line')} of the input could not be used."] if unreadable else []
    for name, counts in output.result["funnel"].get("unobtained", {}).items():
        if counts["missing"]:
            lines.append(f"{name}: {counts['missing']:,} of {counts['asked']:,}.")
    counts = output.result.get("table") or {}
    first, agree = counts.get("first_shown_preferred"), counts.get("both_orders_agree")
    if isinstance(first, float) and isinstance(agree, float) and abs(first - NO_BIAS) >= LARGE_BIAS:
        lines.append(
            f"Position bias: {percent(first)} of the judge's verdicts are for the answer shown first, and the order "
            f"decides {percent(1 - agree)} of the comparisons, which are ties."
        )
    return lines


def difficulty_groups(output: Output, outputs: Sequence[Output]) -> list[Group]:
    """Return the difficulty of the seeds and of each round, where files among `outputs` have it: of this output, or
    judged from it."""
    groups = []
    for other in outputs:
        rounds = (other.result.get("table") or {}).get("difficulty") if other.command == "judge difficulty" else None
        is_of_seeds = bool(output.input_digest) and other.input_digest == output.input_digest and other is not output
        if not rounds or not (other is output or is_of_seeds or other.input_digest == output.figures.digest):
            continue
        for name, counts in rounds.items():
            if is_of_seeds == (name == "") or other is output:
                numbers = {int(value): count for value, count in counts.items()}
                groups.append(Group(f"round {name}" if name else "seeds", numbers, *interval_of(numbers)))
    return sorted(groups, key=lambda group: (group.name != "seeds", len(group.name), group.name))


def difficulty_figure(groups: Sequence[Group]) -> tuple[Markup, PageTable]:
    """Draw the difficulty per round, and return its numbers."""
    picture = intervals("judged difficulty, 1 to 10", groups, LOWEST, HIGHEST)
    lines = [
        [group.name, f"{sum(group.counts.values()):,}", f"{group.mean:.2f}",
         "-" if group.low is None else f"{group.low:.2f} to {group.high:.2f}"]
        for group in groups
    ]  # fmt: skip
    return Markup(picture), table("Judged difficulty", ["", "prompts", "mean", "95 %"], lines)


def charts(figures: RowFigures, similarity: Similarity) -> list[tuple[Markup, str]]:
    """Draw lengths, scores and similarities."""
    drawn = [length_chart(name, counts) for name, counts in figures.words.items()]
    if figures.scores:
        drawn.append(score_chart(figures.scores))
    sample = f"on a sample of {count_of(similarity.size, 'row')}"
    if len(similarity.nearest):
        shares = ", ".join(f"{share:.2f} of {n}-grams" for n, share in similarity.distinct.items() if share is not None)
        near = f"{100 * float(np.mean(similarity.nearest > NEAR)):.0f} % above {NEAR}"
        sentence = f"{near}, {sample}. Different ones: {shares}"
        drawn.append(share_chart(similarity.nearest, "ROUGE-L with the nearest prompt of another seed", 2, sentence))
    if len(similarity.to_seed):
        sentence = (
            f"mean {float(similarity.to_seed.mean()):.2f}, {sample}: {len(similarity.to_seed):,} with a known seed"
        )
        drawn.append(share_chart(similarity.to_seed, "ROUGE-L with its own seed", 3, sentence))
    return drawn


def length_chart(name: str, counts: Mapping[int, int]) -> tuple[Markup, str]:
    """Draw how many words texts have; those above the 98th percentile stand in the last bar."""
    values = sorted(counts)
    total = sum(counts.values())
    reached = np.cumsum([counts[value] for value in values])
    quantile = {share: values[int(np.searchsorted(reached, share * total))] for share in (0.5, 0.9, 0.98)}
    width = max(1, -(-(quantile[0.98] + 1) // BINS))
    number = min(BINS, quantile[0.98] // width + 1)
    heights = [0] * (number + (values[-1] >= number * width))
    for value, count in counts.items():
        heights[min(value // width, len(heights) - 1)] += count
    step = max(1, number // 4)
    ticks: dict[float, str] = {place: f"{place * width:,}" for place in range(0, number + 1, step)}
    sentence = f"median {quantile[0.5]:,}, 90 % at most {quantile[0.9]:,}, longest {values[-1]:,}"
    return Markup(bars(f"words of {name}", heights, ticks)), sentence


def score_chart(counts: Counter[float]) -> tuple[Markup, str]:
    """Draw how often scores occur: each, or in bins."""
    values = sorted(counts)
    total = counts.total()
    mean = sum(value * count for value, count in counts.items()) / total
    sentence = f"mean {mean:.3g}, {count_of(total, 'answer')}"
    if len(values) <= MOST_VALUES:
        step = -(-len(values) // 8)
        ticks: dict[float, str] = {
            place + 0.5: f"{value:.3g}" for place, value in enumerate(values) if place % step == 0
        }
        return Markup(bars("scores", [counts[value] for value in values], ticks, 4)), sentence
    heights, edges = np.histogram(values, BINS, weights=[counts[value] for value in values])
    ticks = {place: f"{round(edges[place], 9):.3g}" for place in range(0, BINS + 1, BINS // 4)}
    return Markup(bars("scores", heights.tolist(), ticks, 4)), sentence


def share_chart(values: Any, title: str, colour: int, caption: str) -> tuple[Markup, str]:
    """Draw values from 0 to 1."""
    heights, _ = np.histogram(np.clip(values, 0, 1), 20, (0, 1))
    ticks: dict[float, str] = {place: f"{place / 20:g}" for place in range(0, 21, 5)}
    return Markup(bars(title, heights.tolist(), ticks, colour)), caption


def output_section(
    output: Output,
    outputs: Sequence[Output],
    anchors: Mapping[Path, str],
    similarity: Similarity,
    samples: list[SampleRow],
    rejected: list[RejectedGroup],
    sentence: Callable[[str], str | None],
    difficulty_command: str,
) -> OutputSection:
    """Put a section together.

    Args:
        output: The file.
        outputs: All files of the page.
        anchors: The section of each of them.
        similarity: The figures of its sample.
        samples: Rows of it.
        rejected: Rows that were rejected.
        sentence: Returns what a reason means.
        difficulty_command: The command that measures the difficulty of its prompts.
    """
    counts = output.result.get("table") or {}
    groups = difficulty_groups(output, outputs)
    picture, numbers = difficulty_figure(groups) if groups else (None, None)
    origin = next((one.path for one in outputs if one.figures.digest == output.input_digest), None)
    given = Path(str(output.meta["run"].get("input") or "")).name if output.meta else ""
    tables = [] if "difficulty" in counts else method_tables(counts)
    return OutputSection(
        output.path.name,
        anchors[output.path],
        f"datagen {output.command}".strip() if output.command else "",
        output.models,
        origin.name if origin else given,
        anchors[origin] if origin else "",
        notes(output),
        tiles(output),
        outcomes(output.result["funnel"], sentence) if output.meta else [],
        tables + ([output.hits.table()] if output.hits else []),
        spending_tables(output.result.get("spending", [])),
        picture,
        numbers,
        difficulty_command if "rounds" in counts and not groups else "",
        charts(output.figures, similarity),
        samples,
        rejected,
        output.path.with_suffix(".rejected.jsonl").name,
    )
