"""Comparing answers two by two (MT-bench, arXiv 2306.05685): both orders always, a win only if both agree.

Every pair of a prompt's answers is shown to the judge in both orders; verdicts that do not agree are a tie, and equal
answers are one without a call. A verdict that cannot be read is left out. Strengths come from Bradley-Terry
(bradley_terry.py); `meta.cycles` counts the circles among the verdicts (A beats B, B beats C, C beats A). In a panel
the majority decides; no majority is a tie.

With `--logprobs` a comparison is soft, as in RLAIF (arXiv 2309.00267): in each order the probability of the verdict's
token, averaged over both orders, which cancels position bias; strengths follow from these. A verdict whose probability
is not known is left out like one that cannot be read. A panel's soft labels are averaged.

Departures: labels are drawn anew for each call (judges.py), where MT-bench always uses A and B.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from statistics import fmean
from typing import ClassVar, NamedTuple

from datagen.engine.options import option
from datagen.errors import InputError
from datagen.judges.agreement import Orders
from datagen.judges.bradley_terry import Outcome, count_cycles, strengths
from datagen.judges.judge_method import CHECK, DIGITS, LOGPROBS, Judgement, JudgeOptions, ModelJudge
from datagen.judges.judges import REMINDER, Judges, draw_labels, first_equals
from datagen.judges.replies import TIE, TOP_LOGPROBS, read_verdict, soft_share
from datagen.llm.model import gather_all
from datagen.records.record import Record, Row

COMPARE = "judge/compare"


@dataclass(frozen=True)
class Options(JudgeOptions):
    """Options of `datagen judge --by compare`."""

    logprobs: bool = option(False, LOGPROBS)
    check: bool = option(False, CHECK)


class Comparison(NamedTuple):
    """The verdicts of all judges on two answers.

    A share is what the first answer gets: 1 for a win, 0.5 for a tie, 0 for a loss.
    """

    first: int
    """The place of one answer in the input row."""
    second: int
    """The place of the other."""
    orders: Orders
    """For each judge: the share with the first answer shown first, and with it shown second. None: cannot be read."""
    soft: bool = False
    """Whether shares are probabilities."""

    @property
    def share(self) -> float | None:
        """The share that all judges together give to the first answer; None if no judge was read in both orders."""
        read = [(x, y) for x, y in self.orders if x is not None and y is not None]
        if not read:
            return None

        # A soft label (RLAIF): the mean over both orders, then over the judges.
        if self.soft:
            return round(fmean([(x + y) / 2 for x, y in read]), DIGITS)

        # MT-bench, section 3.4: for a judge's win both orders must agree. In a panel the majority decides.
        verdicts = Counter(x if x == y else TIE for x, y in read)
        verdict, votes = verdicts.most_common(1)[0]
        return verdict if 2 * votes > len(read) else TIE

    def as_meta(self, places: Sequence[int]) -> Row:
        """Return the entry of `meta.comparisons`; `places` are those that the answers have in the row."""
        share = self.share
        return {
            "first": places[self.first],
            "second": places[self.second],
            "share": share,
            "soft_label": share if self.soft else None,
            "orders": [list(shares) for shares in self.orders],
        }


class Compare(ModelJudge):
    """Compare all pairs of answers, in both orders."""

    variant = "compare"
    options_type = Options
    options: Options
    templates: ClassVar[tuple[str, ...]] = (COMPARE, REMINDER)
    details = {"cycles": None, "agreed_in_both_orders": None}

    async def judge(self, judges: Judges) -> Judgement:
        """Compare every pair of answers; scores are strengths."""
        return await self.tournament(judges, range(len(judges.answers)))

    async def tournament(self, judges: Judges, places: Collection[int]) -> Judgement:
        """Compare all pairs of the answers at some places.

        Args:
            judges: The judges, and the answers.
            places: The places of the answers to compare.

        Returns:
            Bradley-Terry strengths as scores; None for an answer of which no comparison was decided.
        """
        # 1. Every pair of different answers in both orders (MT-bench, section 3.4).
        equal_to, count = first_equals(judges.answers), len(judges.answers)
        different = sorted({equal_to[place] for place in places})
        pairs = combinations(different, 2)
        comparisons = await gather_all(self.compare(judges, first, second) for first, second in pairs)

        # 2. Strengths from the decided ones; equal answers share theirs.
        outcomes = [Outcome(game.first, game.second, game.share) for game in comparisons if game.share is not None]
        strength = strengths(count, outcomes)
        compared = {place for outcome in outcomes for place in (outcome.first, outcome.second)}
        known = compared if len(different) > 1 else set(different)
        judged = [equal_to[place] if place in places else None for place in range(count)]
        scores = [float(strength[place]) if place in known else None for place in judged]

        # 3. How far verdicts contradict each other.
        read = [(x, y) for game in comparisons for x, y in game.orders if x is not None and y is not None]
        agreed = sum((x > TIE, x < TIE) == (y > TIE, y < TIE) for x, y in read)
        details = {
            "cycles": count_cycles(count, outcomes),
            "agreed_in_both_orders": agreed / len(read) if read else None,
        }
        return Judgement(scores, details, comparisons=comparisons)

    async def compare(self, judges: Judges, first: int, second: int) -> Comparison:
        """Have every judge compare two answers, in both orders.

        Args:
            judges: The judges, and the answers.
            first: The place of one answer.
            second: The place of the other.

        Raises:
            CallFailed: A call got no reply.
        """
        calls = [
            self.ask_in_order(judges, member, *order)
            for member in judges.members
            for order in ((first, second), (second, first))
        ]
        shares = await gather_all(calls)
        backward = [None if share is None else round(1 - share, DIGITS) for share in shares[1::2]]
        return Comparison(first, second, tuple(zip(shares[::2], backward, strict=True)), self.options.logprobs)

    async def ask_in_order(self, judges: Judges, member: int, first: int, second: int) -> float | None:
        """Ask one judge which of two answers is better, the first one shown first; return the first one's share."""
        answers = [judges.answers[first], judges.answers[second]]
        random = judges.record.random(f"labels {first} {second}")
        labels = draw_labels(random, answers)
        while self.options.logprobs and labels[0][0] == labels[1][0]:  # one token could begin both
            labels = draw_labels(random, answers)
        prompt = self.prompts[COMPARE].render(
            criteria=self.criteria,
            prompt=judges.request,
            reference=judges.reference,
            first_label=labels[0],
            second_label=labels[1],
            first=answers[0],
            second=answers[1],
        )
        params = TOP_LOGPROBS if self.options.logprobs else {}
        reminder = self.prompts[REMINDER].render(form="\n".join(f"Verdict: {name}" for name in (*labels, "tie")))
        parse = partial(read_verdict, names=labels)
        completion = await judges.ask(prompt, member, parse, reminder=reminder, **params)
        if completion is None or not self.options.logprobs:
            return None if completion is None else float(completion.value)
        share = judges.probable(completion, soft_share(completion, labels))
        return None if share is None else round(share, DIGITS)

    def check(self) -> None:
        if self.options.check and self.options.logprobs:
            raise InputError("--check measures verdicts, and --logprobs turns them into probabilities: leave one out")

    def bound_of_judge(self, record: Record) -> int:
        """Return the calls for every pair of answers in both orders."""
        return len(record.responses) * (len(record.responses) - 1)
