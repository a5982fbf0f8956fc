"""Ranking by people: the votes that they cast on the page of `datagen review` (format: review/votes.py).

The votes on a row are comparisons of every two of its answers, and Bradley-Terry makes strengths of them
(bradley_terry.py), so people may disagree; `meta.cycles` counts the circles of the majorities. A row whose answers most
people call all bad is rejected, since no pair can be made of it.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean

from datagen.engine.options import option
from datagen.errors import InputError
from datagen.judges.bradley_terry import Outcome, count_cycles, strengths
from datagen.judges.judge_method import JudgeMethod, ranked_row, ranking_order
from datagen.judges.judges import answer_metas
from datagen.judges.review.votes import ALL_BAD, SKIP, LoggedVote, ranks_of, read_votes
from datagen.judges.summary import JudgeTable
from datagen.llm.model import Roles
from datagen.records.record import Candidate, Record, Row, reject


@dataclass(frozen=True)
class Options:
    """Options of `datagen judge --by human`."""

    votes: Path | None = option(None, "human: file of votes, written by 'datagen review'.")


class Human(JudgeMethod):
    """Rank answers by the votes of people."""

    variant = "human"
    options_type = Options
    options: Options
    table_type = JudgeTable
    reasons = {
        "no_vote": "Nobody voted on the row, or everybody skipped it.",
        "all_bad": "Most people say that no answer of the row is good.",
    }

    async def generate(self, record: Record, llm: Roles) -> AsyncIterator[Candidate]:
        """Yield the ranked row of a record, unless nobody has put its answers in order."""
        # 1. The votes on the row, skipped ones left out.
        assert self.options.votes is not None
        log = read_votes(self.options.votes)
        votes = [vote for vote in log.get(record.id, log.get(str(record.source_id), [])) if vote.verdict != SKIP]
        count = len(record.responses)

        # 2. Most people must have put the answers in order.
        ordered = [vote for vote in votes if vote.verdict != ALL_BAD]
        if 2 * len(ordered) < len(votes) or not votes:
            reason = "all_bad" if votes else "no_vote"
            meta = self.meta(record, votes, None, range(count))
            yield reject(reason, stage=self.variant, record=record.row, reply=None, meta=meta)
            return

        # 3. Every two answers are compared by the people, and Bradley-Terry gives the strengths.
        outcomes = compare_ranks([ranks_of(record, vote) for vote in ordered])
        scores = [float(strength) for strength in strengths(count, outcomes)]
        order = ranking_order(scores)
        meta = self.meta(record, votes, count_cycles(count, outcomes), order)
        yield ranked_row(record, self.variant, scores, order, meta)

    def meta(self, record: Record, votes: Sequence[LoggedVote], cycles: int | None, order: Sequence[int]) -> Row:
        answers = answer_metas(record)
        return self.row_meta(
            record,
            judges=sorted(vote.by for vote in votes),
            votes=len(votes),
            all_bad=sum(vote.verdict == ALL_BAD for vote in votes),
            cycles=cycles,
            responses=[answers[at] for at in order],
        )

    def check(self) -> None:
        if self.options.votes is None:
            raise InputError("--by human needs --votes FILE: the log of 'datagen review'")
        read_votes.cache_clear()  # a log grows
        read_votes(self.options.votes)


def compare_ranks(ranks: Sequence[Sequence[int]]) -> list[Outcome]:
    """Compare every two answers: the share of the people who prefer the first, a tie half of one.

    Args:
        ranks: For each person, the rank of every answer, 1 the best.
    """
    return [
        Outcome(i, j, fmean((1 + (order[i] < order[j]) - (order[i] > order[j])) / 2 for order in ranks), len(ranks))
        for i, j in combinations(range(len(ranks[0])), 2)
    ]
