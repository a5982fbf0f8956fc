"""Plain distillation: the teacher answers each prompt, as it is or with a system message.

With `--system orca` each prompt gets one of sixteen system messages, from none at all to step by step with reasons
(Orca, arXiv 2306.02707, section 3.1), and the row keeps it: (system message, prompt, response) is what Orca trains
on. The paper's messages are tied to the tasks of FLAN; here the draw is uniform, and the messages are our own.

With `--schema` the response is JSON that is valid against a JSON Schema. The schema stands in the system message of
the request, not of the row, and is sent as the form of the answer where the server takes that (llm/forms.py). A reply
that holds no valid value is asked for again, then the row is rejected.

A row with tools asks the teacher with them. Its calls stand in the row, beside a response that may be empty; among
several samples (`-k`) only an answer with text counts.
"""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar

from datagen.engine.options import option
from datagen.engine.reasoning import reasoning_option
from datagen.errors import UNPARSED, CallFailed, InputError
from datagen.json_replies import read_value
from datagen.llm.model import Roles
from datagen.records.files import open_input
from datagen.records.lines import loads_strictly
from datagen.records.record import SAMPLES_PER_PASS, Candidate, Prompt, Record, Row, as_messages, reject
from datagen.schemas import Schema, parse_schema
from datagen.strategies.conversation import USER_TEMPLATES, IndependentAnswers, turns_option
from datagen.strategies.strategy import NO_ANSWER, VERIFY, Answer, prompt_fields

SYSTEMS, SCHEMA = "direct/systems", "direct/schema"
LONGEST_SCHEMA = 100_000
"""Characters: the schema is part of every request."""


@dataclass(frozen=True)
class Options:
    """Options of `datagen respond --strategy direct`."""

    k: int = option(1, "Samples per prompt. [1; vote and rft: 8, mcr: 5]", least=1, most=SAMPLES_PER_PASS)
    verify: list[str] = option([], VERIFY, file=True)
    system: str | None = option(None, "System message; orca draws one of the sixteen of Orca for each prompt.")
    schema: Path | None = option(None, "direct: file with a JSON Schema; the response is JSON that is valid by it.")
    turns: int = turns_option()
    reasoning: str = reasoning_option()


class Direct(IndependentAnswers):
    """Plain distillation: the reply is the response."""

    variant = "direct"
    options_type = Options
    options: Options
    templates = (SYSTEMS, SCHEMA, *USER_TEMPLATES)
    reasons: ClassVar = {
        **IndependentAnswers.reasons,
        "off_schema": "The answer is no JSON that is valid against --schema.",
        "has_tools": "The row has tools, and with --schema the answer is JSON: leave out one of them.",
    }

    @property
    def row_templates(self) -> tuple[str, ...]:
        return (SCHEMA,) if self.schema else ()

    @cached_property
    def schema(self) -> Schema | None:
        """The schema of `--schema`; InputError for a file that holds none."""
        return load_schema(self.options.schema) if self.options.schema else None

    def check(self) -> None:
        _ = self.schema
        super().check()

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
        """Return the turns of the record unchanged, or behind the demand for JSON."""
        if self.schema:
            return super().prompt(record, SCHEMA, schema=json.dumps(self.schema.value, ensure_ascii=False))
        return Prompt(as_messages(record.prompt), template, prompt_fields(record, **fields))

    async def respond(self, record: Record, llm: Roles, details: Row) -> list[Candidate]:
        if self.schema is None:
            return await super().respond(record, llm, details)
        if record.tools:
            return [self.reject(record, details, "has_tools")]
        try:
            return await super().respond(record, llm, details)
        except CallFailed as error:
            if error.reason != UNPARSED:
                raise
            row, meta = {**record.row, "error": error.detail}, self.meta(record, details, [NO_ANSWER])
            return [reject("off_schema", stage=self.variant, record=row, reply=error.reply, meta=meta)]

    async def answer(self, record: Record, llm: Roles, prompt: Prompt, number: int) -> Answer:
        if self.schema:
            parse = partial(read_value, schema=self.schema)
            completion = await self.ask(record, llm, prompt, number, parse=parse, schema=self.schema)
            return Answer(completion.value.text, completion)
        tools: Row = {"tools": list(record.tools), "calls_ok": self.options.k == 1} if record.tools else {}
        completion = await self.ask(record, llm, prompt, number, **tools)
        return Answer(completion.text, completion)


def load_schema(path: Path) -> Schema:
    """Read a JSON Schema from its file."""
    with open_input(str(path)) as file:
        data = file.read(LONGEST_SCHEMA + 1)
    if len(data) > LONGEST_SCHEMA:
        raise InputError(f"--schema {path}: longer than {LONGEST_SCHEMA:,} bytes, and it is part of every request")
    try:
        value = loads_strictly(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"--schema {path}: no JSON ({error})") from None
    return parse_schema(path.stem, value, f"--schema {path}")
