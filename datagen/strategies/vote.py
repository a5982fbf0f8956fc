"""Self-consistency (arXiv 2203.11171): several chains of thought, and the answer that most of them come to.

The paper samples 40 chains; the default here is 8, since the gain flattens early. Answers are counted by value
(verify/answers.py); a chain without a stated answer votes for nothing. The row is the first chain that agrees with
the vote. Beyond the paper, for training data: a vote of less than half of the chains, or a tie, drops the prompt. A
vote is no truth: where the answers are known, use `rft`.
"""

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from datagen.engine.method import Method
from datagen.engine.options import option
from datagen.llm.model import Roles
from datagen.prompts import Prompts
from datagen.records.record import Candidate, Record
from datagen.strategies.answering import (
    EXAMPLES,
    TEACHER,
    VERIFY,
    Answer,
    Answering,
    check_names,
    samples_option,
    together,
)
from datagen.strategies.cot import REASON, reasoning
from datagen.verify.answers import answer_key, split_answer

CHAINS = 8
LEAST_SHARE = 0.5
"""Of all chains; what fewer agree on is not trained on."""


@dataclass(frozen=True)
class Options:
    """What self-consistency can be told."""

    k: int = samples_option(CHAINS, "Chains for each prompt.")
    verify: list[str] = option([], VERIFY)
    examples: Path | None = option(None, EXAMPLES)
    least_share: float = option(LEAST_SHARE, "vote: the least share of the chains that must agree.", least=0, most=1)


async def vote(record: Record, llm: Roles, prompts: Prompts, options: Options) -> AsyncIterator[Candidate]:
    """Yield one row: the prompt with the first chain that agrees with the vote."""
    answering = Answering(record, llm, prompts, "vote", options.verify, {"votes": None, "vote_share": None}, (REASON,))
    asked = reasoning(record, prompts, options.examples)

    async def elect() -> list[Candidate]:
        said = await together([answering.ask(asked, number) for number in range(options.k)])
        chains = [Answer(each.text, each, *split_answer(each.text)) for each in said]
        return [count(answering, chains, options.least_share)]

    async for candidate in answering.attempt(elect()):
        yield candidate


def count(answering: Answering, chains: list[Answer], least_share: float) -> Candidate:
    """Count the votes; keep the first chain of the winner."""
    keys = [answer_key(chain.answer) if chain.answer is not None else None for chain in chains]
    votes = Counter(key for key in keys if key is not None).most_common()
    share = votes[0][1] / len(chains) if votes else 0.0
    answering.extra = {
        "votes": [{"answer": answer, "votes": number} for answer, number in votes],
        "vote_share": share,
    }
    if not votes:
        return answering.rejected("no_answer", chains[0].response, chains[0])
    winner = chains[keys.index(votes[0][0])]
    if share < least_share or (len(votes) > 1 and votes[1][1] == votes[0][1]):
        return answering.rejected("no_agreement", winner.response, winner)
    return answering.judged(winner)


class Vote(Method):
    """vote."""

    name = "respond"
    variant = "vote"
    options_type = Options
    options: Options
    roles = TEACHER
    templates = (REASON,)

    def generate(self, record: Record, llm: Roles) -> AsyncIterator[Candidate]:
        return vote(record, llm, self.prompts, self.options)

    def bound(self, record: Record) -> int:
        return self.options.k

    def check(self) -> None:
        check_names(self.options)
