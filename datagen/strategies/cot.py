"""Chain of thought: a rationale first, the answer last; the row also holds each of them alone.

Few-shot with `--examples` (arXiv 2201.11903), zero-shot without (arXiv 2205.11916). The zero-shot paper always asks
twice, for the reasoning and then for the answer (section 3.1); here the first call asks for both, and the second is
made only where no answer is stated. The rationale may train a model of its own (distilling step by step, arXiv
2305.02301): it stands in `meta.rationale`.
"""

from dataclasses import dataclass
from pathlib import Path

from datagen.engine.options import option
from datagen.engine.reasoning import reasoning_option
from datagen.errors import ParseError
from datagen.llm.model import Roles
from datagen.records.record import SAMPLES_PER_PASS, Prompt, Record
from datagen.strategies.conversation import USER_TEMPLATES, IndependentAnswers, turns_option
from datagen.strategies.strategy import (
    EXAMPLES,
    REASON,
    VERIFY,
    Answer,
    prompt_fields,
)
from datagen.verify.answers import split_answer

EXTRACT = "cot/extract"


@dataclass(frozen=True)
class Options:
    """Options of `datagen respond --strategy cot`."""

    k: int = option(1, "Samples per prompt. [1; vote and rft: 8, mcr: 5]", least=1, most=SAMPLES_PER_PASS)
    verify: list[str] = option([], VERIFY, file=True)
    examples: Path | None = option(None, EXAMPLES)
    turns: int = turns_option()
    reasoning: str = reasoning_option()


class ChainOfThought(IndependentAnswers):
    """Chain of thought: a rationale that ends in a stated answer."""

    variant = "cot"
    options_type = Options
    options: Options
    templates = (REASON, EXTRACT, *USER_TEMPLATES)
    calls_per_answer = 2

    async def answer(self, record: Record, llm: Roles, prompt: Prompt, number: int) -> Answer:
        """Return a chain of thought; where it states no answer, one is extracted from it and put at its end."""
        # 1. Reasoning extraction (zero-shot paper, section 3.1), with the answer in the same reply.
        chain = await super().answer(record, llm, prompt, number)
        if chain.answer is not None:
            return chain

        # 2. Answer extraction, with the reasoning as context.
        text = chain.response
        (question,) = self.prompts[EXTRACT].render().messages
        messages = [*prompt.messages, {"role": "assistant", "content": text}, question]
        request = Prompt(messages, EXTRACT, prompt_fields(record, rationale=text))
        extracted = await self.ask(record, llm, request, number, parse=read_answer, temperature=0)
        response = f"{text.rstrip()}\n\nAnswer: {extracted.value}"
        return Answer(response, chain.completion, text, str(extracted.value))


def read_answer(text: str) -> str:
    """Return the answer that a reply states."""
    answer = split_answer(text)[1]
    if answer is None:
        raise ParseError("no line 'Answer: ...'")
    return answer
