"""STaR (arXiv 2203.14465): a chain of thought; where it is wrong, another with the answer as a hint, stored without it.

A rationale is kept if it comes to the known answer (section 3.1). One that does not is written again by a teacher who
is told the answer (rationalisation, section 3.2); the row holds the plain prompt, as if there had been no hint.
Decoding is near greedy, since a higher temperature gives right answers with wrong reasons (section 4.1). Beyond the
paper: a chain that mentions the hint is dropped, and so is one with an equation that does not hold. The loop over
models is the user's: train, then `respond` again with the trained model.
"""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datagen.engine.method import Method
from datagen.engine.options import option
from datagen.llm.model import Roles
from datagen.prompts import Prompt, Prompts
from datagen.records.record import Candidate, Record
from datagen.strategies.answering import (
    EXAMPLES,
    TEACHER,
    Answer,
    Answering,
    fields_of,
    load_examples,
    with_instruction,
)
from datagen.strategies.cot import REASON, reasoning
from datagen.strategies.rft import fault
from datagen.verify import reference_answer
from datagen.verify.answers import split_answer

HINT = "star/hint"
DECODING: dict[str, Any] = {"temperature": 0, "max_tokens": 2048}
"""Near greedy, as the paper's code."""
MENTIONS = re.compile(
    r"\b(hint|(given|provided|supplied|known|correct) (final )?answer|you (said|told))\b|提示", re.IGNORECASE
)


@dataclass(frozen=True)
class Options:
    """What STaR can be told."""

    examples: Path | None = option(None, EXAMPLES)
    no_hint: bool = option(False, "star: drop what is wrong at once, without a second chain.")


async def star(record: Record, llm: Roles, prompts: Prompts, options: Options) -> AsyncIterator[Candidate]:
    """Yield one candidate: the first chain if it is right, else the one with the hint."""
    extra = {"rationalised": False}
    answering = Answering(record, llm, prompts, "star", extra=extra, templates=(REASON, HINT))
    gold = reference_answer(record)
    if gold is None:
        yield answering.rejected("no_gold", None)
        return

    async def reason() -> list[Candidate]:
        first = await chain(answering, reasoning(record, prompts, options.examples))
        wrong = fault(first, gold)
        if wrong is None or options.no_hint:
            return [conclude(answering, first, wrong)]
        answering.extra = {"rationalised": True}
        second = await chain(answering, hinted(record, prompts, options.examples, gold))
        return [conclude(answering, second, fault(second, gold) or mentions_hint(record, second))]

    async for candidate in answering.attempt(reason()):
        yield candidate


async def chain(answering: Answering, asked: Prompt) -> Answer:
    said = await answering.ask(asked, **DECODING)
    return Answer(said.text, said, *split_answer(said.text))


def hinted(record: Record, prompts: Prompts, examples: Path | None, gold: str) -> Prompt:
    """Ask for a rationale with the answer given away."""
    instruction = prompts[HINT].render(answer=gold).messages[0]["content"]
    shown = load_examples(examples) if examples else None
    return Prompt(with_instruction(record.prompt, instruction, shown), HINT, fields_of(record, answer=gold))


def mentions_hint(record: Record, chain: Answer) -> str | None:
    """A chain that speaks of the hint would teach to wait for one."""
    return "mentions_hint" if MENTIONS.search(chain.response) else None


def conclude(answering: Answering, chain: Answer, wrong: str | None) -> Candidate:
    told = Answer(chain.response, chain.said, chain.rationale, chain.answer, wrong is None)
    return answering.rejected(wrong, told.response, told) if wrong else answering.kept([told])


class Star(Method):
    """star."""

    name = "respond"
    variant = "star"
    options_type = Options
    options: Options
    roles = TEACHER
    templates = (REASON, HINT)

    def generate(self, record: Record, llm: Roles) -> AsyncIterator[Candidate]:
        return star(record, llm, self.prompts, self.options)

    def bound(self, record: Record) -> int:
        return 1 if self.options.no_hint else 2

    def check(self) -> None:
        if self.options.examples:
            load_examples(self.options.examples)
