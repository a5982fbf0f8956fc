"""Comparing answers two by two (MT-bench, arXiv 2306.05685): both orders always, a win only if both agree.

Every pair of a prompt's answers is shown to the judge in both orders; verdicts that do not agree are a tie. A verdict
that cannot be read is no opinion and counts for nothing. Strengths come from Bradley-Terry (bradley_terry.py), and a
prompt whose verdicts go in circles says so in `meta.cycles`. In a panel the majority decides; no majority is a tie.

With `--logprobs` a comparison is soft, as in RLAIF (arXiv 2309.00267): in each order the probability of the verdict's
token, averaged over both orders, which takes the judge's liking for a place out; strengths follow from these. A verdict
whose probability cannot be had counts as it was said. A panel's soft labels are averaged.

Departures: labels are drawn anew for each question (labels.py), where MT-bench says A and B.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from statistics import fmean
from typing import Any, NamedTuple

from datagen.engine.method import Method, Table
from datagen.errors import InputError
from datagen.judge.agreement import keep_checks, next_command, table
from datagen.judge.bradley_terry import Outcome, count_cycles, strengths
from datagen.judge.judging import (
    DIGITS,
    ROLES,
    ByRubric,
    Judging,
    allow_self_option,
    check_option,
    logprobs_option,
    panel_option,
    rubric_identity,
    rubric_option,
)
from datagen.judge.labels import draw_labels
from datagen.judge.probabilities import ASKED, soft_share
from datagen.judge.verdicts import TIE, read_verdict
from datagen.llm.model import Roles
from datagen.prompts import Prompts
from datagen.records.ranked import SAMPLES
from datagen.records.record import Candidate, Record, Row

COMPARE = "judge/compare"

UNKNOWN: Row = {"cycles": None, "agreed_in_both_orders": None}


@dataclass(frozen=True)
class Options(ByRubric):
    """What comparing can be told."""

    rubric: list[str] = rubric_option()
    panel: bool = panel_option()
    allow_self: bool = allow_self_option()
    logprobs: bool = logprobs_option()
    check: bool = check_option()


class Verdict(NamedTuple):
    """What one judge says of two answers."""

    judge: int
    forward: float | None
    """The share of the first answer when it stands first; None for a verdict that cannot be read."""
    backward: float | None
    """Its share when it stands second."""

    @property
    def share(self) -> float | None:
        """A win if both orders agree on it, else a tie; None unless both could be read."""
        if self.forward is None or self.backward is None:
            return None
        return self.forward if self.forward == self.backward else TIE

    @property
    def soft_label(self) -> float | None:
        """How likely it is that the first answer is better: the mean of both orders; None unless both could be read."""
        return None if self.forward is None or self.backward is None else (self.forward + self.backward) / 2

    @property
    def agrees(self) -> bool:
        """Do both orders prefer the same answer?"""
        return _side(self.forward) == _side(self.backward)


def _side(share: float | None) -> int | None:
    return None if share is None else (share > TIE) - (share < TIE)


class Comparison(NamedTuple):
    """What all judges say of two answers, by their places."""

    first: int
    second: int
    verdicts: tuple[Verdict, ...]
    soft: bool = False
    """Were the judges asked for probabilities?"""

    @property
    def soft_label(self) -> float | None:
        """How likely it is that the first answer is better, as the judges say on average."""
        said = [each.soft_label for each in self.verdicts if each.soft_label is not None]
        return round(fmean(said), DIGITS) if self.soft and said else None

    @property
    def share(self) -> float | None:
        """What most of the judges say; a tie if there is no majority; None if nobody could be read."""
        if self.soft:
            return self.soft_label
        said = Counter(verdict.share for verdict in self.verdicts if verdict.share is not None)
        if not said:
            return None
        winner, votes = said.most_common(1)[0]
        return winner if 2 * votes > said.total() else TIE

    def as_meta(self, place: Sequence[int]) -> Row:
        """Tell of it, with the places that the answers have in the row."""
        orders = [[verdict.forward, verdict.backward] for verdict in self.verdicts]
        at = {"first": place[self.first], "second": place[self.second]}
        return {**at, "share": self.share, "soft_label": self.soft_label, "orders": orders}


async def in_one_order(judging: Judging, member: int, first: int, second: int) -> float | None:
    """Ask a judge which of two answers is better, the first one shown first; return the first one's share."""
    answers = [judging.answers[first], judging.answers[second]]
    labels = draw_labels(judging.record.random(f"labels {first} {second}"), answers)
    prompt = judging.prompts[COMPARE].render(
        criteria=judging.criteria,
        prompt=judging.request,
        reference=judging.reference,
        first_label=labels[0],
        second_label=labels[1],
        first=answers[0],
        second=answers[1],
    )
    more = ASKED if judging.options.logprobs else {}
    said = await judging.ask(prompt, member, partial(read_verdict, names=labels), **more)
    if said is None:
        return None
    soft = soft_share(said, labels) if more else None
    return float(said.value) if soft is None else round(soft, DIGITS)


async def by_one_judge(judging: Judging, member: int, first: int, second: int) -> Verdict:
    """Ask in both orders."""
    forward, backward = await asyncio.gather(
        in_one_order(judging, member, first, second), in_one_order(judging, member, second, first)
    )
    return Verdict(member, forward, None if backward is None else round(1 - backward, DIGITS))


async def compare(judging: Judging, first: int, second: int) -> Comparison:
    """Have two answers compared by every judge."""
    verdicts = await asyncio.gather(*(by_one_judge(judging, member, first, second) for member in judging.judges))
    return Comparison(first, second, tuple(verdicts), judging.options.logprobs)


async def tournament(judging: Judging, places: list[int]) -> list[Comparison]:
    """Compare all pairs of some answers."""
    return list(await asyncio.gather(*(compare(judging, i, j) for i, j in combinations(places, 2))))


def outcomes(comparisons: list[Comparison]) -> list[Outcome]:
    """Return the comparisons that were decided."""
    return [Outcome(each.first, each.second, each.share) for each in comparisons if each.share is not None]


def tell(judging: Judging, comparisons: list[Comparison]) -> list[Outcome]:
    """Note the comparisons in the row; return those that were decided."""
    decided = outcomes(comparisons)
    agreed = [each.agrees for c in comparisons for each in c.verdicts if each.share is not None]
    judging.comparisons = comparisons
    judging.extra = {
        "cycles": count_cycles(len(judging.answers), decided),
        "agreed_in_both_orders": sum(agreed) / len(agreed) if agreed else None,
    }
    return decided


async def by_comparison(record: Record, llm: Roles, prompts: Prompts, options: Options) -> AsyncIterator[Candidate]:
    """Yield the ranked row of a record."""
    judging = Judging(record, llm, prompts, "compare", options, templates=(COMPARE,), extra=dict(UNKNOWN))

    async def judge() -> Candidate:
        decided = tell(judging, await tournament(judging, list(range(len(judging.answers)))))
        met = {at for game in decided for at in (game.first, game.second)}
        found = strengths(len(judging.answers), decided)
        return judging.ranked([float(found[at]) if at in met else None for at in range(len(judging.answers))])

    yield await judging.concluded(judge)


def most_calls(answers: int = 4) -> int:
    """Calls for so many answers: every pair in both orders."""
    return answers * (answers - 1)


def prepare(options: Any) -> None:
    """Raise InputError if the options do not fit each other."""
    if options.check and options.logprobs:
        raise InputError("--check measures verdicts, and --logprobs makes probabilities of them: leave one out")


class Compare(Method):
    """compare."""

    name = "judge"
    variant = "compare"
    options_type = Options
    options: Options
    unique = ("prompt", "responses")
    roles = ROLES
    templates = (COMPARE,)
    kind = SAMPLES

    def generate(self, record: Record, llm: Roles) -> AsyncIterator[Candidate]:
        return by_comparison(record, llm, self.prompts, self.options)

    def identity(self) -> dict[str, Any]:
        return rubric_identity(self.options.rubric, self.prompts)

    def bound(self, record: Record) -> int:
        return most_calls()

    @property
    def next_command(self) -> str:
        return next_command(self.options)

    def check(self) -> None:
        prepare(self.options)

    def table(self) -> Table:
        return table(self.options)

    def finish(self, result: Row) -> None:
        keep_checks(self.options, result)
