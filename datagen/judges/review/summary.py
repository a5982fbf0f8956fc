"""The result of a review: how many votes of each kind, and how far the reviewer and the judge agree."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from datagen.judges.agreement import kappa
from datagen.judges.review.votes import ORDER, SKIP, TIE, VERDICTS, Vote
from datagen.records.record import Record

SIGNS = (1, 0, -1)
"""The first of two answers is better, a tie, the second is."""


@dataclass(frozen=True)
class Summary:
    """The result of a review. Shares and kappa are None where there is nothing to compute them from."""

    rows: int
    votes: int
    """Rows voted on, the skipped ones left out."""
    verdicts: dict[str, int]
    pairs: int
    """Pairs of answers that both the judge and the reviewer compared."""
    agreement: float | None
    agreement_decided: float | None
    """Of the pairs where neither says tie."""
    kappa: float | None


def summarize(records: Sequence[Record], votes: Mapping[str, Vote]) -> Summary:
    """Count the verdicts and compare the reviewer with the judge, where the rows carry ranks.

    Args:
        records: The rows under review.
        votes: The id of a row to the reviewer's vote on it.
    """
    voted = [(record, votes[record.id]) for record in records if record.id in votes]
    verdicts = Counter(vote.verdict for _, vote in voted)
    pairs = Counter(pair for record, vote in voted for pair in compared_pairs(record, vote))
    table = np.array([[float(pairs[judge, person]) for person in SIGNS] for judge in SIGNS])
    decided = table[::2, ::2]
    agreement, of_decided = (float(np.trace(t) / t.sum()) if t.sum() else None for t in (table, decided))
    with np.errstate(divide="ignore", invalid="ignore"):
        beyond_chance = float(kappa(table))
    return Summary(
        rows=len(records),
        votes=len(voted) - verdicts[SKIP],
        verdicts={name: verdicts[name] for name in VERDICTS},
        pairs=pairs.total() // 2,
        agreement=agreement,
        agreement_decided=of_decided,
        kappa=beyond_chance if np.isfinite(beyond_chance) else None,
    )


def compared_pairs(record: Record, vote: Vote) -> Iterator[tuple[int, int]]:
    """Yield the (judge's, person's) sign for every two answers.

    Each pair is counted from both sides, since which answer stands first in a row means nothing.
    """
    if not record.ranks or vote.verdict not in (ORDER, TIE):
        return
    ranks = vote.ranks or (1,) * len(record.ranks)
    for i, j in combinations(range(len(ranks)), 2):
        judge, person = (int(np.sign(order[j] - order[i])) for order in (record.ranks, ranks))
        yield judge, person
        yield -judge, -person
