"""Self-consistency (arXiv 2203.11171): several chains of thought, and the answer that most of them reach.

The paper samples 40 chains; the default here is 8, since the gain flattens early. Equal answers are counted together
(verify/equality.py); a chain without a stated answer, or one that is cut, has no vote. The row is the first chain that
agrees with the majority. Beyond the paper, for training data: a prompt is rejected if less than half of the chains
agree, or if there is a tie. A majority can be wrong: where the answers are known, use `rft`.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from datagen.engine.options import option
from datagen.engine.reasoning import reasoning_option
from datagen.engine.unobtained import ask
from datagen.llm.model import Roles
from datagen.records.record import SAMPLES_PER_PASS, Candidate, Record, Row
from datagen.strategies.conversation import USER_TEMPLATES, Conversational, turns_option
from datagen.strategies.strategy import EXAMPLES, NO_RESULT, NO_RESULT_WHY, REASON, VERIFY, Answer, Cut
from datagen.verify.answers import answer_key
from datagen.verify.equality import same_answer

CHAINS = 8
LEAST_SHARE = 0.5
"""Of all chains; what fewer agree on is not trained on."""


@dataclass(frozen=True)
class Options:
    """Options of `datagen respond --strategy vote`."""

    k: int = option(CHAINS, "Chains per prompt.", least=1, most=SAMPLES_PER_PASS)
    verify: list[str] = option([], VERIFY, file=True)
    examples: Path | None = option(None, EXAMPLES)
    least_share: float = option(
        LEAST_SHARE, "vote: minimum share of the chains with the winning answer.", least=0, most=1
    )
    turns: int = turns_option()
    reasoning: str = reasoning_option()


class Vote(Conversational):
    """Self-consistency: the first chain that agrees with the majority vote."""

    variant = "vote"
    options_type = Options
    options: Options
    templates = (REASON, *USER_TEMPLATES)
    reasons = {
        **Conversational.reasons,
        "no_answer": "No chain states a result.",
        "no_agreement": "Fewer chains than --least-share reach the same result, or two results are tied.",
    }
    asks = {
        **Conversational.asks,
        **NO_RESULT_WHY,
    }
    details = {"votes": None, "vote_share": None}

    async def respond(self, record: Record, llm: Roles, details: Row) -> list[Candidate]:
        """Sample chains and keep one whose answer is the most consistent (section 2)."""
        # 1. Sample k chains of thought.
        chains = await self.answers(record, llm)

        # 2. Marginalise out the rationales: count the answers, equal ones by their value.
        whole = [chain for chain in chains if isinstance(chain, Answer)]
        if not whole:
            raise next(chain.failure for chain in chains if isinstance(chain, Cut))
        keys = vote_keys([chain.answer for chain in whole])
        votes = Counter(key for key in keys if key is not None).most_common()
        share = votes[0][1] / len(chains) if votes else 0.0
        details["votes"] = [{"answer": answer, "votes": count} for answer, count in votes]
        details["vote_share"] = share
        stated = NO_RESULT, len(chains), len(chains) - sum(count for _, count in votes)
        if not votes:
            return [ask(self.reject(record, details, "no_answer", whole[0].response, whole[0]), *stated)]

        # 3. The majority wins, unless it is small or tied (beyond the paper).
        winner = whole[keys.index(votes[0][0])]
        tied = len(votes) > 1 and votes[1][1] == votes[0][1]
        if share < self.options.least_share or tied:
            return [ask(self.reject(record, details, "no_agreement", winner.response, winner), *stated)]
        return [ask(self.accept(record, details, await self.verify(record, [winner])), *stated)]


def vote_keys(answers: list[str | None]) -> list[str | None]:
    """Return what each answer votes for: the key of the first answer that is the same."""
    first: dict[str, str] = {}
    keys: list[str | None] = []
    for answer in answers:
        key = answer_key(answer) if answer is not None else None
        if answer is not None and key is not None and key not in first:
            key = next((other for other, text in first.items() if same_answer(answer, text)), key)
            first.setdefault(key, answer)
        keys.append(key)
    return keys
