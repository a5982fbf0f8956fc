"""STaR (arXiv 2203.14465): a chain of thought; where it is wrong, another with the answer as a hint, stored without it.

A rationale is kept if it reaches the known answer (section 3.1). One that does not is written again by a teacher who
sees the answer (rationalisation, section 3.2); the row holds the plain prompt, as if there had been no hint.
Decoding is near greedy, since a higher temperature gives right answers with wrong reasons (section 4.1). Beyond the
paper: a chain that mentions the hint is dropped, and so is one with an equation that does not hold. The loop over
models is the user's: train, then `respond` again with the trained model.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datagen.engine.options import option
from datagen.engine.reasoning import reasoning_option
from datagen.engine.unobtained import ask
from datagen.llm.model import Roles
from datagen.records.record import Candidate, Record, Row
from datagen.strategies.strategy import (
    EXAMPLES,
    NO_GOLD,
    NO_RESULT,
    NO_RESULT_WHY,
    REASON,
    WRONG_REASONS,
    Answer,
    Strategy,
    rejection_reason,
    with_verdict,
)
from datagen.verify import UNVERIFIED, reference_answer

HINT = "star/hint"
DECODING: dict[str, Any] = {"temperature": 0, "max_tokens": 2048}
"""Near greedy, as the paper's code."""
MENTIONS_HINT = re.compile(
    r"\b(hint|(given|provided|supplied|known|correct) (final )?answer|you (said|told))\b|提示", re.IGNORECASE
)


@dataclass(frozen=True)
class Options:
    """Options of `datagen respond --strategy star`."""

    examples: Path | None = option(None, EXAMPLES)
    no_hint: bool = option(
        False, "star: reject wrong chains without rationalisation (a second chain, given the answer)."
    )
    reasoning: str = reasoning_option()


class Star(Strategy):
    """STaR: a right chain of thought, or one written with the answer as a hint."""

    variant = "star"
    options_type = Options
    options: Options
    templates = (REASON, HINT)
    reasons = {
        **WRONG_REASONS,
        **NO_GOLD,
        "mentions_hint": "The chain, written with the answer as a hint, speaks of the hint.",
    }
    asks = {**Strategy.asks, **NO_RESULT_WHY}
    details = {"rationalised": False}

    async def respond(self, record: Record, llm: Roles, details: Row) -> list[Candidate]:
        """Run the inner step of Algorithm 1 on one question."""
        reference = reference_answer(record)
        if reference is None:
            return [self.reject(record, details, "no_gold")]

        # 1. Rationale generation (section 3.1): kept if it reaches the known answer.
        prompt = self.prompt(record)
        chain = Answer.from_chain(await self.ask(record, llm, prompt, **DECODING))
        reason = rejection_reason(chain, reference)
        answers = [chain.answer]

        # 2. Rationalisation (section 3.2): once more, with the answer as a hint. A chain that speaks of the hint would
        #    teach to wait for one.
        if reason and not self.options.no_hint:
            details["rationalised"] = True
            prompt = self.prompt(record, HINT, answer=reference)
            chain = Answer.from_chain(await self.ask(record, llm, prompt, **DECODING))
            reason = rejection_reason(chain, reference)
            answers.append(chain.answer)
            if not reason and MENTIONS_HINT.search(chain.response):
                reason = "mentions_hint"

        # 3. The row holds the plain prompt, as if there had been no hint.
        chain = with_verdict(chain, reason)
        if reason:
            candidate = self.reject(record, details, reason, chain.response, chain)
        else:
            candidate = self.accept(record, details, [chain])
        stated = int(chain.answer is not None)
        ask(candidate, UNVERIFIED, stated, int(reason == "unverified_answer"))
        return [ask(candidate, NO_RESULT, len(answers), answers.count(None))]

    def bound(self, record: Record, llm: Roles) -> int:
        return 1 if self.options.no_hint else 2
