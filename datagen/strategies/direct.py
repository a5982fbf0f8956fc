"""Plain distillation: the teacher answers each prompt, as it stands or under a system message.

With `--system orca` each prompt gets one of sixteen system messages, from none at all to step by step with reasons
(Orca, arXiv 2306.02707, section 3.1), and the row keeps it: (system message, prompt, response) is what Orca trains
on. The paper's messages are tied to the tasks of FLAN; here the draw is uniform, and the messages are our own.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

from datagen.engine.method import Memory, Method, Unique
from datagen.engine.options import option
from datagen.llm.model import Roles
from datagen.prompts import Prompt, Prompts
from datagen.records.record import Candidate, Record, as_messages
from datagen.strategies.answering import (
    TEACHER,
    VERIFY,
    Answer,
    Answering,
    check_names,
    fields_of,
    next_command,
    samples_option,
)
from datagen.verify.answers import split_answer

SYSTEMS = "direct/systems"


@dataclass(frozen=True)
class Options:
    """What plain distillation can be told."""

    k: int = samples_option(1, "Answers for each prompt. [1; vote and rft: 8]")
    verify: list[str] = option([], VERIFY)
    system: str | None = option(None, "A system message for every prompt, or orca: one of sixteen for each.")


async def direct(record: Record, llm: Roles, prompts: Prompts, options: Options) -> AsyncIterator[Candidate]:
    """Yield one row: the prompt with its k answers."""
    told = with_system(record, prompts, options.system)
    answering = Answering(told, llm, prompts, "direct", options.verify)
    prompt = Prompt(as_messages(told.prompt), "answer", fields_of(told))

    async def answer(number: int) -> Answer:
        said = await answering.ask(prompt, number)
        return Answer(said.text, said, None, split_answer(said.text)[1], answering.check(said.text))

    async for candidate in answering.attempt(answering.sampled(answer, options.k)):
        yield candidate


def with_system(record: Record, prompts: Prompts, system: str | None) -> Record:
    """Return the record under a system message; one that it has already stays."""
    messages = as_messages(record.prompt)
    if system is None or messages[0]["role"] == "system":
        return record
    if system == "orca":
        system = record.random("system").choice(prompts[SYSTEMS].render().messages)["content"]
    return record if system == "none" else replace(record, prompt=[{"role": "system", "content": system}, *messages])


class Direct(Method):
    """direct."""

    name = "respond"
    variant = "direct"
    options_type = Options
    options: Options
    roles = TEACHER
    templates = (SYSTEMS,)

    def generate(self, record: Record, llm: Roles) -> AsyncIterator[Candidate]:
        return direct(record, llm, self.prompts, self.options)

    def bound(self, record: Record) -> int:
        return self.options.k

    def memory(self) -> Sequence[Memory]:
        return [Unique("prompt", "response", "responses")]

    def next_command(self) -> str:
        return next_command(self.options)

    def check(self) -> None:
        check_names(self.options)
