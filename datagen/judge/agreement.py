"""How far a judge can be believed: its verdicts against those of people (`datagen judge LABELLED --check`).

    accuracy            how often the better answer wins; the judge's tie is half a win, so 0.5 is chance
    accuracy, decided   the same where neither side says tie (MT-bench's setup without ties, arXiv 2306.05685)
    agreement           the same verdict of the three, ties included; kappa is Cohen's, corrected for chance
    swap consistency    both orders of a pair get the same verdict
    position bias       how much more often the first shown wins than the second, from -1 to 1
    verbosity bias      accuracy where the right answer is the longer one, less accuracy where it is the shorter one
    self-preference     what the judge gives its own family's answers, less what people give them

Of the biases 0 is none. They are measured on single verdicts, before both orders are put together, and a tie is half a
win. Intervals are bootstrapped over prompts, since the pairs of one prompt hang together. What could not be read is
counted, and is no verdict.
"""

import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from datagen.engine.method import NoTable
from datagen.judge.judging import family
from datagen.judge.verdicts import TIE
from datagen.llm.journal import JOURNAL_FOLDER, journal_folder
from datagen.records.record import Candidate, Row

Array = NDArray[np.float64]
SCORE_TIE = 0.1
"""Scores closer than this are a tie (MT-bench)."""
RESAMPLES, LEVEL = 1_000, 0.95
CHANCE = 0.5
VERDICTS = (1.0, TIE, 0.0)
STORE = "judges.json"


class Pair(NamedTuple):
    """Two answers before people and before a judge. A share is what the first of the two gets."""

    label: float
    said: float | None
    """None if it could not be read."""
    orders: tuple[tuple[float | None, float | None], ...]
    """Of each member: the share with the first answer shown first, and with it shown second."""
    lengths: tuple[int, int]
    own: tuple[bool, bool]
    """Is an answer of the judge's own family?"""


def share_of(better: float, worse: float, tie: float = 0.0) -> float:
    """Compare two numbers, the higher the better."""
    return TIE if abs(better - worse) <= tie else float(better > worse)


def pairs_of(row: Row) -> Iterator[Pair]:
    """Return every two answers of a row that was judged and has labels."""
    meta, scores = row["meta"], row["scores"]
    compared = {frozenset((each["first"], each["second"])): each for each in meta["comparisons"]}
    judges = {family(name) for name in meta["judges"]}
    own = [family(str(about.get("model"))) in judges if about.get("model") else False for about in meta["responses"]]
    for i, j in combinations(range(len(scores)), 2):
        label = share_of(-meta["labels"][i], -meta["labels"][j])
        game = compared.get(frozenset((i, j)))
        said, orders = _said(i, game) if game else (_by_score(scores[i], scores[j]), ())
        yield Pair(label, said, orders, (len(row["responses"][i]), len(row["responses"][j])), (own[i], own[j]))


def _said(first: int, game: Row) -> tuple[float | None, tuple[tuple[float | None, float | None], ...]]:
    """Return what a comparison says of its answer `first`."""
    if game["first"] == first:
        return game["share"], tuple((forward, backward) for forward, backward in game["orders"])
    flip: Callable[[float | None], float | None] = lambda share: None if share is None else 1 - share  # noqa: E731
    return flip(game["share"]), tuple((flip(backward), flip(forward)) for forward, backward in game["orders"])


def _by_score(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else share_of(first, second, SCORE_TIE)


def counts(pair: Pair) -> dict[str, float]:
    """Return what a pair adds to the sums that all figures are made of."""
    made: dict[str, float] = defaultdict(float)
    if pair.said is not None:
        # Counted from either side, since which answer stands first in a file means nothing.
        for label, said in ((pair.label, pair.said), (1 - pair.label, 1 - pair.said)):
            made[f"label {label} said {said}"] += 0.5
    for forward, backward in pair.orders:
        if forward is not None and backward is not None:
            made["both read"] += 1
            made["consistent"] += forward == backward
        for first_shown in (forward, None if backward is None else 1 - backward):
            if first_shown is not None:
                made["shown"] += 1
                made["first shown won"] += first_shown
    singles = [share for order in pair.orders for share in order] or [pair.said]
    for share in (each for each in singles if each is not None):
        _add_single(made, pair, share)
    return made


def _add_single(made: dict[str, float], pair: Pair, share: float) -> None:
    first, second = pair.lengths
    if pair.label != TIE and first != second:
        side = "longer" if (first > second) == (pair.label > TIE) else "shorter"
        made[f"{side} is right"] += 1
        made[f"{side} is right and won"] += share if pair.label > TIE else 1 - share
    if pair.own[0] != pair.own[1]:
        made["own"] += 1
        made["own won"] += share if pair.own[0] else 1 - share
        made["own labelled"] += pair.label if pair.own[0] else 1 - pair.label


NAMES = (
    *(f"label {label} said {said}" for label in VERDICTS for said in VERDICTS),
    "both read", "consistent", "shown", "first shown won", "longer is right", "longer is right and won",
    "shorter is right", "shorter is right and won", "own", "own won", "own labelled",
)  # fmt: skip


def figures_of(sums: Array) -> dict[str, Array]:
    """Return every figure from sums (..., as NAMES has them); NaN where there is nothing to tell it from."""
    at = {name: sums[..., place] for place, name in enumerate(NAMES)}
    table = sums[..., :9].reshape(*sums.shape[:-1], 3, 3)
    decided = table[..., ::2, ::2]
    labelled = table[..., ::2, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        half = 0.5 * labelled[..., :, 1].sum(-1)
        return {
            "accuracy": (np.trace(decided, axis1=-2, axis2=-1) + half) / labelled.sum((-2, -1)),
            "accuracy, decided": np.trace(decided, axis1=-2, axis2=-1) / decided.sum((-2, -1)),
            "agreement": np.trace(table, axis1=-2, axis2=-1) / table.sum((-2, -1)),
            "kappa": kappa(table),
            "kappa, decided": kappa(decided),
            "swap consistency": at["consistent"] / at["both read"],
            "position bias": 2 * at["first shown won"] / at["shown"] - 1,
            "verbosity bias": at["longer is right and won"] / at["longer is right"]
            - at["shorter is right and won"] / at["shorter is right"],
            "self-preference": (at["own won"] - at["own labelled"]) / at["own"],
        }


def kappa(table: Array) -> Array:
    """Return Cohen's kappa of confusion tables (..., labels, verdicts)."""
    whole = table.sum((-2, -1))
    agreed = np.trace(table, axis1=-2, axis2=-1) / whole
    by_chance = (table.sum(-1) * table.sum(-2)).sum(-1) / whole**2
    return np.asarray((agreed - by_chance) / (1 - by_chance))


def measure(rows: Sequence[Mapping[str, float]], level: float = LEVEL) -> dict[str, Row]:
    """Return each figure that can be told, with its bootstrap interval over rows (prompts): value, low, high."""
    made = np.array([[row.get(name, 0.0) for name in NAMES] for row in rows])
    weights = np.random.default_rng(0).multinomial(len(made), [1 / len(made)] * len(made), RESAMPLES)
    drawn = figures_of(weights @ made)
    edges = (50 - 50 * level, 50 + 50 * level)
    found: dict[str, Row] = {}
    for name, value in figures_of(made.sum(0)).items():
        if np.isfinite(value):
            low, high = np.nanpercentile(drawn[name], edges)
            found[name] = {"value": round(float(value), 4), "low": round(float(low), 4), "high": round(float(high), 4)}
    return found


def key_of(meta: Row) -> str | None:
    """Name what judged a row: its judges, and the digest of what they were asked; None if no model did."""
    if meta.get("method") != "judge" or not meta.get("judging"):
        return None
    return instrument(meta["judges"], meta["op"], meta["judging"])


def instrument(judges: Sequence[str], way: str, asked_with: str) -> str:
    """Name what judges: who, how, and with which prompts and rubrics."""
    return f"{' + '.join(judges)} {way} {asked_with}"


class Agreement:
    """The table of a check, for each judge."""

    def __init__(self, level: float = LEVEL) -> None:
        self.level = level
        self.rows: dict[str, list[dict[str, float]]] = defaultdict(list)
        self.about: dict[str, Row] = {}
        self.pairs: dict[str, int] = defaultdict(int)
        self.unread: dict[str, int] = defaultdict(int)

    def add(self, candidate: Candidate) -> None:
        if candidate.status != "kept":
            return
        meta, sums = candidate.row["meta"], defaultdict[str, float](float)
        key = str(key_of(meta))
        for pair in pairs_of(candidate.row):
            self.pairs[key] += 1
            for name, count in counts(pair).items():
                sums[name] += count
        self.rows[key].append(sums)
        self.unread[key] += meta["unread"]
        self.about[key] = {"judges": meta["judges"], "by": meta["op"], "rubrics": meta["rubrics"]}

    def as_dict(self) -> dict[str, Any]:
        return {
            key: {
                **self.about[key],
                "pairs": self.pairs[key],
                "unread": self.unread[key],
                "figures": measure(rows, self.level),
            }
            for key, rows in self.rows.items()
        }

    def tables(self) -> list[list[list[str]]]:
        return [shown_check(check) for check in self.as_dict().values()]


def shown_check(check: Row) -> list[list[str]]:
    """Return the table of one judge's check."""
    heading = [" + ".join(check["judges"]), f"{check['pairs']} pairs, {check['unread']} verdicts unread", "95 %"]
    told = ((name, each["value"], each["low"], each["high"]) for name, each in check["figures"].items())
    return [heading, *([name, f"{value:.3f}", f"{low:.3f} to {high:.3f}"] for name, value, low, high in told)]


def table(options: Any) -> Agreement | NoTable:
    """Return the table of a way to judge."""
    return Agreement() if options.check else NoTable()


def next_command(options: Any) -> str:
    return "datagen judge SAMPLES, as it was checked here" if options.check else "datagen pairs {}"


def is_weak(check: Row) -> bool:
    """Does a judge's accuracy touch chance?"""
    accuracy = check["figures"].get("accuracy")
    return accuracy is None or accuracy["low"] <= CHANCE


def store() -> Path:
    """Return where checks are kept: beside the journal of the working folder."""
    return Path(JOURNAL_FOLDER) / STORE


def read_checks() -> dict[str, Row]:
    """Return all checks that were made in this folder, by instrument."""
    return dict(json.loads(store().read_text(encoding="utf-8"))) if store().exists() else {}


def shown_judge(judging: str) -> tuple[str, str]:
    """Return an instrument's judge, and how accurate it is; where that is not known, how to find out."""
    name, by, _ = judging.rsplit(" ", 2)
    check = read_checks().get(judging)
    if check is None:
        return name, f"unchecked; to find out: datagen judge LABELLED --by {by} --judge MODEL --check"
    accuracy = check["figures"]["accuracy"]
    return name, f"{accuracy['value']:.3f}, {accuracy['low']:.3f} to {accuracy['high']:.3f}, on {check['pairs']} pairs"


def keep_checks(options: Any, result: Row) -> None:
    """Keep what a run of `judge --check` found."""
    if not options.check:
        return
    journal_folder(Path())
    part = store().with_suffix(".part")
    part.write_text(json.dumps(read_checks() | result["table"], indent=1), encoding="utf-8")
    os.replace(part, store())
