"""Plain distillation: the teacher answers each prompt, as it is or with a system message.

With `--system orca` each prompt gets one of sixteen system messages, from none at all to step by step with reasons
(Orca, arXiv 2306.02707, section 3.1), and the row keeps it: (system message, prompt, response) is what Orca trains
on. The paper's messages are tied to the tasks of FLAN; here the draw is uniform, and the messages are our own.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from datagen.engine.options import option
from datagen.llm.model import Roles
from datagen.records.record import SAMPLES_PER_PASS, Candidate, Prompt, Record, as_messages
from datagen.strategies.strategy import VERIFY, Answer, IndependentAnswers, prompt_fields
from datagen.verify.answers import split_answer

SYSTEMS = "direct/systems"


@dataclass(frozen=True)
class Options:
    """Options of `datagen respond --strategy direct`."""

    k: int = option(1, "Samples per prompt. [1; vote and rft: 8, mcr: 5]", least=1, most=SAMPLES_PER_PASS)
    verify: list[str] = option([], VERIFY)
    system: str | None = option(None, "System message; orca draws one of the sixteen of Orca for each prompt.")


class Direct(IndependentAnswers):
    """Plain distillation: the reply is the response."""

    variant = "direct"
    options_type = Options
    options: Options
    templates = (SYSTEMS,)
    row_templates = ()

    def generate(self, record: Record, llm: Roles) -> AsyncIterator[Candidate]:
        """Answer the prompt with the system message of `--system`, unless it has one; the row keeps the message."""
        messages, system = as_messages(record.prompt), self.options.system
        if system and messages[0]["role"] != "system":
            if system == "orca":
                system = record.random("system").choice(self.prompts[SYSTEMS].render().messages)["content"]
            if system != "none":
                record = replace(record, prompt=[{"role": "system", "content": system}, *messages])
        return super().generate(record, llm)

    def prompt(self, record: Record, template: str = "answer", **fields: str) -> Prompt:
        """Return the turns of the record unchanged."""
        return Prompt(as_messages(record.prompt), template, prompt_fields(record, **fields))

    async def answer(self, record: Record, llm: Roles, prompt: Prompt, number: int) -> Answer:
        completion = await self.ask(record, llm, prompt, number)
        return Answer(completion.text, completion, answer=split_answer(completion.text)[1])
