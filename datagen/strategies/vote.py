"""Self-consistency (arXiv 2203.11171): several chains of thought, and the answer that most of them reach.

The paper samples 40 chains; the default here is 8, since the gain flattens early. Answers are counted by value
(verify/answers.py); a chain without a stated answer has no vote. The row is the first chain that agrees with the
majority. Beyond the paper, for training data: a prompt is rejected if less than half of the chains agree, or if there
is a tie. A majority can be wrong: where the answers are known, use `rft`.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from datagen.engine.options import option
from datagen.llm.model import Roles
from datagen.records.record import SAMPLES_PER_PASS, Candidate, Record, Row
from datagen.strategies.strategy import EXAMPLES, REASON, VERIFY, Strategy
from datagen.verify.answers import answer_key

CHAINS = 8
LEAST_SHARE = 0.5
"""Of all chains; what fewer agree on is not trained on."""


@dataclass(frozen=True)
class Options:
    """Options of `datagen respond --strategy vote`."""

    k: int = option(CHAINS, "Chains per prompt.", least=1, most=SAMPLES_PER_PASS)
    verify: list[str] = option([], VERIFY)
    examples: Path | None = option(None, EXAMPLES)
    least_share: float = option(
        LEAST_SHARE, "vote: minimum share of the chains with the winning answer.", least=0, most=1
    )


class Vote(Strategy):
    """Self-consistency: the first chain that agrees with the majority vote."""

    variant = "vote"
    options_type = Options
    options: Options
    templates = (REASON,)
    details = {"votes": None, "vote_share": None}

    async def respond(self, record: Record, llm: Roles, details: Row) -> list[Candidate]:
        """Sample chains and keep one whose answer is the most consistent (section 2)."""
        # 1. Sample k chains of thought.
        chains = await self.answers(record, llm)

        # 2. Marginalise out the rationales: count the answers, equal ones by their value.
        keys = [answer_key(chain.answer) if chain.answer is not None else None for chain in chains]
        votes = Counter(key for key in keys if key is not None).most_common()
        share = votes[0][1] / len(chains) if votes else 0.0
        details["votes"] = [{"answer": answer, "votes": count} for answer, count in votes]
        details["vote_share"] = share
        if not votes:
            return [self.reject(record, details, "no_answer", chains[0].response, chains[0])]

        # 3. The majority wins, unless it is small or tied (beyond the paper).
        winner = chains[keys.index(votes[0][0])]
        tied = len(votes) > 1 and votes[1][1] == votes[0][1]
        if share < self.options.least_share or tied:
            return [self.reject(record, details, "no_agreement", winner.response, winner)]
        return [self.accept(record, details, [winner])]
