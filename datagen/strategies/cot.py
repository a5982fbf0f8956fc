"""Chain of thought: a rationale first, the answer last, and the two kept apart.

Few-shot with `--examples` (arXiv 2201.11903), zero-shot without (arXiv 2205.11916). The zero-shot paper always asks
twice, for the reasoning and then for the answer; here the first call asks for both, and the second is made only where
no answer is stated. The rationale may train a model of its own (distilling step by step, arXiv 2305.02301): it stands
in `meta.rationale`.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from datagen.engine.method import Memory, Method, Unique
from datagen.engine.options import option
from datagen.errors import ParseError
from datagen.llm.call import Completion
from datagen.llm.model import Roles
from datagen.prompts import Prompt, Prompts
from datagen.records.record import Candidate, Record
from datagen.strategies.answering import (
    EXAMPLES,
    TEACHER,
    VERIFY,
    Answer,
    Answering,
    check_names,
    fields_of,
    load_examples,
    next_command,
    samples_option,
    with_instruction,
)
from datagen.verify.answers import split_answer

REASON, EXTRACT = "cot/reason", "cot/extract"


@dataclass(frozen=True)
class Options:
    """What chain of thought can be told."""

    k: int = samples_option(1, "Answers for each prompt. [1; vote and rft: 8]")
    verify: list[str] = option([], VERIFY)
    examples: Path | None = option(None, EXAMPLES)


def reasoning(record: Record, prompts: Prompts, examples: Path | None) -> Prompt:
    """Ask for a rationale that ends in a stated answer."""
    instruction = prompts[REASON].render().messages[0]["content"]
    shown = load_examples(examples) if examples else None
    return Prompt(with_instruction(record.prompt, instruction, shown), REASON, fields_of(record))


async def stated(answering: Answering, asked: Prompt, said: Completion, number: int) -> tuple[str, str]:
    """Return (rationale, answer) of a reply; ask once more where the reply states none."""
    rationale, answer = split_answer(said.text)
    if answer is not None:
        return rationale, answer
    (last,) = answering.prompts[EXTRACT].render().messages
    messages = [*asked.messages, {"role": "assistant", "content": said.text}, last]
    prompt = Prompt(messages, EXTRACT, fields_of(answering.record, rationale=said.text))
    told = await answering.ask(prompt, number, parse=read_answer, temperature=0)
    return said.text, str(told.value)


def read_answer(text: str) -> str:
    """Return the answer that a reply states."""
    answer = split_answer(text)[1]
    if answer is None:
        raise ParseError("no line 'Answer: ...'")
    return answer


async def cot(record: Record, llm: Roles, prompts: Prompts, options: Options) -> AsyncIterator[Candidate]:
    """Yield one row: the prompt with its k answers."""
    answering = Answering(record, llm, prompts, "cot", options.verify, templates=(REASON, EXTRACT))
    asked = reasoning(record, prompts, options.examples)

    async def answer(number: int) -> Answer:
        said = await answering.ask(asked, number)
        rationale, final = await stated(answering, asked, said, number)
        response = said.text if split_answer(said.text)[1] is not None else f"{said.text.rstrip()}\n\nAnswer: {final}"
        return Answer(response, said, rationale, final, answering.check(response))

    async for candidate in answering.attempt(answering.sampled(answer, options.k)):
        yield candidate


class ChainOfThought(Method):
    """cot."""

    name = "respond"
    variant = "cot"
    options_type = Options
    options: Options
    roles = TEACHER
    templates = (REASON, EXTRACT)

    def generate(self, record: Record, llm: Roles) -> AsyncIterator[Candidate]:
        return cot(record, llm, self.prompts, self.options)

    def bound(self, record: Record) -> int:
        return 2 * self.options.k

    def memory(self) -> Sequence[Memory]:
        return [Unique("prompt", "response", "responses")]

    def next_command(self) -> str:
        return next_command(self.options)

    def check(self) -> None:
        check_names(self.options)
