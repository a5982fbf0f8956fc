"""How reliable a judge is: its verdicts against those of people (`datagen judge LABELLED --check`).

    accuracy            how often the better answer wins; the judge's tie is half a win, so 0.5 is chance
    accuracy, unread wrong    the same, where a pair whose verdicts could not be read counts as wrong
    accuracy, decided   the same where neither side says tie (MT-bench's setup without ties, arXiv 2306.05685)
    agreement           the same verdict of the three, ties included; kappa is Cohen's, corrected for chance
    swap consistency    both orders of a pair get the same verdict
    position bias       how much more often the first shown wins than the second, from -1 to 1
    verbosity bias      accuracy where the right answer is the longer one, minus accuracy where it is the shorter one
    self-preference     the share that the judge gives to answers of its own model family, minus the share people give

A bias of 0 means none. Biases are measured on single verdicts, before the two orders are combined, and a tie is half a
win. Intervals are bootstrapped over prompts, since the pairs of one prompt are not independent. A verdict that cannot
be read is counted as unread and left out of every other figure; published figures often count it as wrong.
"""

import json
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from datagen.engine.method import Table
from datagen.judges.replies import TIE
from datagen.judges.vendors import families
from datagen.llm.database import JOURNAL_FOLDER, journal_folder, locked
from datagen.records.files import replace_file
from datagen.records.record import Candidate, Row
from datagen.text import count_of

Array = NDArray[np.float64]
Orders = tuple[tuple[float | None, float | None], ...]
SCORE_TIE = 0.1
"""Scores closer than this are a tie (MT-bench)."""
RESAMPLES, LEVEL = 1_000, 0.95
CHANCE = 0.5
VERDICTS = (1.0, TIE, 0.0)
STORE = Path(JOURNAL_FOLDER) / "judges.json"
"""The checks made in a folder, beside its journal."""


class Pair(NamedTuple):
    """Two answers, as people and as a judge compare them. A share is what the first of the two gets."""

    label: float
    """The share that people give it."""
    verdict: float | None
    """The share that the judge gives it; None if its verdict could not be read."""
    orders: Orders
    """For each judge of a panel: the share with the first answer shown first, and with it shown second."""
    lengths: tuple[int, int]
    same_family: tuple[bool, bool]
    """Whether each answer was written by a model of the judge's family."""


def pairs_of(row: Row) -> Iterator[Pair]:
    """Yield every two answers of a judged row with labels; the first is the one that came first in the comparison."""
    meta, scores, ranks = row["meta"], row["scores"], row["meta"]["labels"]
    comparisons = {frozenset((game["first"], game["second"])): game for game in meta["comparisons"]}
    judges = frozenset[str]().union(*map(families, meta["judges"]))
    same_family = [
        bool(entry.get("model")) and bool(families(str(entry["model"])) & judges) for entry in meta["responses"]
    ]
    for i, j in combinations(range(len(scores)), 2):
        verdict: float | None = None
        orders: Orders = ()
        if game := comparisons.get(frozenset((i, j))):
            i, j, verdict, orders = game["first"], game["second"], game["share"], game["orders"]
        elif scores[i] is not None and scores[j] is not None:
            verdict = TIE if abs(scores[i] - scores[j]) <= SCORE_TIE else float(scores[i] > scores[j])
        label = TIE if ranks[i] == ranks[j] else float(ranks[i] < ranks[j])
        lengths = (len(row["responses"][i]), len(row["responses"][j]))
        yield Pair(label, verdict, orders, lengths, (same_family[i], same_family[j]))


SUM_NAMES = (
    *(f"label {label} verdict {verdict}" for label in VERDICTS for verdict in VERDICTS),
    "unread", "both read", "consistent", "shown", "first shown won", "longer is right", "longer is right and won",
    "shorter is right", "shorter is right and won", "own family", "own family won", "own family labelled",
)  # fmt: skip
"""The sums that all figures are computed from."""


def counts(pair: Pair) -> dict[str, float]:
    """Return what a pair adds to the sums of SUM_NAMES."""
    sums: dict[str, float] = defaultdict(float)

    # Verdict against label, counted from both sides: which answer stands first in a file means nothing.
    if pair.verdict is not None:
        for label, verdict in ((pair.label, pair.verdict), (1 - pair.label, 1 - pair.verdict)):
            sums[f"label {label} verdict {verdict}"] += 0.5
    elif pair.label != TIE:
        sums["unread"] += 1

    # One order against the other.
    for forward, backward in pair.orders:
        if forward is not None and backward is not None:
            sums["both read"] += 1
            sums["consistent"] += forward == backward
        for first_shown in (forward, None if backward is None else 1 - backward):
            if first_shown is not None:
                sums["shown"] += 1
                sums["first shown won"] += first_shown

    # Single verdicts by length, and by family.
    singles = [share for order in pair.orders for share in order] or [pair.verdict]
    first, second = pair.lengths
    for share in (share for share in singles if share is not None):
        if pair.label != TIE and first != second:
            side = "longer" if (first > second) == (pair.label > TIE) else "shorter"
            sums[f"{side} is right"] += 1
            sums[f"{side} is right and won"] += share if pair.label > TIE else 1 - share
        if pair.same_family[0] != pair.same_family[1]:
            sums["own family"] += 1
            sums["own family won"] += share if pair.same_family[0] else 1 - share
            sums["own family labelled"] += pair.label if pair.same_family[0] else 1 - pair.label
    return sums


def figures_of(sums: Array) -> dict[str, Array]:
    """Compute every figure.

    Args:
        sums: Shape (..., len(SUM_NAMES)).

    Returns:
        Name to shape (...); NaN where the sums do not determine a figure.
    """
    at = {name: sums[..., place] for place, name in enumerate(SUM_NAMES)}
    table = sums[..., :9].reshape(*sums.shape[:-1], 3, 3)
    decided = table[..., ::2, ::2]
    labelled = table[..., ::2, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        won = np.trace(decided, axis1=-2, axis2=-1) + 0.5 * labelled[..., :, 1].sum(-1)
        return {
            "accuracy": won / labelled.sum((-2, -1)),
            "accuracy, unread wrong": won / (labelled.sum((-2, -1)) + at["unread"]),
            "accuracy, decided": np.trace(decided, axis1=-2, axis2=-1) / decided.sum((-2, -1)),
            "agreement": np.trace(table, axis1=-2, axis2=-1) / table.sum((-2, -1)),
            "kappa": kappa(table),
            "kappa, decided": kappa(decided),
            "swap consistency": at["consistent"] / at["both read"],
            "position bias": 2 * at["first shown won"] / at["shown"] - 1,
            "verbosity bias": at["longer is right and won"] / at["longer is right"]
            - at["shorter is right and won"] / at["shorter is right"],
            "self-preference": (at["own family won"] - at["own family labelled"]) / at["own family"],
        }


def kappa(table: Array) -> Array:
    """Return Cohen's kappa (1960) of confusion tables (..., labels, verdicts): agreement beyond chance."""
    total = table.sum((-2, -1))
    agreed = np.trace(table, axis1=-2, axis2=-1) / total
    by_chance = (table.sum(-1) * table.sum(-2)).sum(-1) / total**2
    return np.asarray((agreed - by_chance) / (1 - by_chance))


class RowSums:
    """The sums of `counts` over the pairs of each row. Most rows have the sums of another one: those are held once, and
    a row takes 4 bytes."""

    def __init__(self, rows: Iterable[Mapping[str, float]] = ()) -> None:
        self._different: dict[tuple[float, ...], int] = {}
        self._rows = array("I")
        for sums in rows:
            self.add(sums)

    def add(self, sums: Mapping[str, float]) -> None:
        """Add the sums of a row."""
        values = tuple(sums.get(name, 0.0) for name in SUM_NAMES)
        self._rows.append(self._different.setdefault(values, len(self._different)))

    def resample(self) -> Array:
        """Return the sums of all rows, then those of RESAMPLES bootstrap samples of the rows.

        Returns:
            Shape (1 + RESAMPLES, len(SUM_NAMES)).
        """
        rows, sums = np.array(self._rows, np.intp), np.array([*self._different])
        random, share = np.random.default_rng(0), np.full(len(rows), 1 / len(rows))
        samples = (random.multinomial(len(rows), share) for _ in range(RESAMPLES))
        weights = (np.bincount(rows, sample) for sample in chain([np.ones_like(rows)], samples))
        return np.array([weight @ sums for weight in weights])


def measure(rows: RowSums, level: float = LEVEL) -> dict[str, Row]:
    """Compute the figures that can be known, each with its bootstrap interval over rows (prompts).

    Args:
        rows: The sums of each prompt.
        level: The coverage of the intervals.

    Returns:
        Figure to {"value", "low", "high"}.
    """
    edges = (50 - 50 * level, 50 + 50 * level)
    figures: dict[str, Row] = {}
    for name, (value, *samples) in figures_of(rows.resample()).items():
        if np.isfinite(value):
            low, high = np.nanpercentile(samples, edges)
            interval = {"value": value, "low": low, "high": high}
            figures[name] = {edge: round(float(number), 4) for edge, number in interval.items()}
    return figures


@dataclass
class Agreement(Table):
    """The table of a check: for each judge (`judge_key`), how far it agrees with people."""

    level: float = LEVEL
    """The coverage of the intervals."""
    rows: dict[str, RowSums] = field(default_factory=lambda: defaultdict(RowSums))
    judges: dict[str, Row] = field(default_factory=dict)
    pairs: Counter[str] = field(default_factory=Counter)
    unread: Counter[str] = field(default_factory=Counter)

    def add(self, candidate: Candidate) -> None:
        if candidate.status != "kept":
            return
        meta, sums = candidate.row["meta"], defaultdict[str, float](float)
        key = judge_key(meta["judges"], meta["op"], meta["judging"])
        for pair in pairs_of(candidate.row):
            self.pairs[key] += 1
            for name, count in counts(pair).items():
                sums[name] += count
        self.rows[key].add(sums)
        self.unread[key] += meta["unread"]
        self.judges[key] = {"judges": meta["judges"], "by": meta["op"], "rubrics": meta["rubrics"]}

    def as_dict(self) -> dict[str, Any]:
        return {
            key: {
                **self.judges[key],
                "pairs": self.pairs[key],
                "unread": self.unread[key],
                "figures": measure(rows, self.level),
            }
            for key, rows in self.rows.items()
        }

    def tables(self) -> list[list[list[str]]]:
        tables = []
        for check in self.as_dict().values():
            numbers = f"{check['pairs']} pairs, {check['unread']} verdicts unread"
            heading = [" + ".join(check["judges"]), numbers, "95 %"]
            cells = [
                [name, f"{figure['value']:.3f}", f"{figure['low']:.3f} to {figure['high']:.3f}"]
                for name, figure in check["figures"].items()
            ]
            tables.append([heading, *cells])
        return tables


def judge_key(judges: Sequence[str], variant: str, judging_digest: str) -> str:
    """Identify a judge, for its check: its models, the judging method, and the digest of prompts and rubrics."""
    return f"{' + '.join(judges)} {variant} {judging_digest}"


def read_checks() -> dict[str, Row]:
    """Return all checks of this folder, by `judge_key`; none if the file is damaged, since a check can be repeated."""
    try:
        checks = json.loads(STORE.read_bytes()) if STORE.exists() else {}
        return {key: check for key, check in checks.items() if isinstance(check["figures"], dict)}
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError):
        return {}


def save_checks(checks: dict[str, Row]) -> None:
    """Add checks to those of this folder, which others may do at the same time."""
    with locked(journal_folder(Path())):
        replace_file(STORE, json.dumps(read_checks() | checks, indent=1).encode())


def is_weak(check: Row) -> bool:
    """Say whether the interval of a judge's accuracy includes chance."""
    accuracy = check["figures"].get("accuracy")
    return accuracy is None or accuracy["low"] <= CHANCE


def describe_judge(key: str) -> tuple[str, str]:
    """Return a judge's models, and its accuracy; where that is not known, how to measure it."""
    models, variant, _ = key.rsplit(" ", 2)
    check = read_checks().get(key)
    if check is None:
        return models, f"unchecked; to find out: datagen judge LABELLED --by {variant} --judge MODEL --check"
    accuracy = check["figures"].get("accuracy")
    if accuracy is None:
        return models, f"not known: none of its verdicts on {count_of(check['pairs'], 'pair')} could be read"
    interval = f"{accuracy['low']:.3f} to {accuracy['high']:.3f}"
    return models, f"{accuracy['value']:.3f}, {interval}, on {check['pairs']} pairs"
