"""What the strategies share: asking for an answer, checking it, and the rows that answers become.

One answer is a row {"prompt", "response"}; several are one row {"prompt", "responses"} with as many entries in
`meta.responses`. A prompt is stored as it was given: instructions that a strategy adds are not part of the row.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from datagen.engine.options import option
from datagen.errors import CallFailed, InputError
from datagen.llm.call import Completion
from datagen.llm.model import Roles
from datagen.prompts import Prompt, Prompts
from datagen.records.files import open_input
from datagen.records.reader import Reader
from datagen.records.record import (
    Candidate,
    Messages,
    Record,
    Row,
    Text,
    as_messages,
    fail,
    keep,
    reject,
    request_text,
    row_id,
)
from datagen.verify import pick_verifier

SAMPLING: dict[str, Any] = {"temperature": 0.7, "max_tokens": 2048}
"""Self-consistency (2203.11171, section 3.1) and RFT (2308.01825, section 3.3) sample at 0.7; Orca's teacher too."""
EXAMPLES = "A file of prompts with worked answers, shown before each prompt."
VERIFY = "Check every answer: answer, equations, constraints and others. Repeat it for more."
TEACHER = {"teacher": "answers the prompts"}


def samples_option(default: int, help: str) -> Any:
    """Declare -k, whose default each strategy has of its own."""
    return option(default, help, least=1, most=1_000)


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, and what is known of it."""

    response: str
    """What to train on."""
    said: Completion | None
    """None for an answer that came with the input."""
    rationale: str | None = None
    answer: str | None = None
    """The final answer alone, where one is stated."""
    verified: bool | None = None
    """True, false, or not known."""
    model: str | None = None
    """Who wrote it, where no single reply holds it."""

    def as_meta(self) -> Row:
        said = self.said
        return {
            "model": said.model if said else self.model,
            "finish_reason": said.finish_reason if said else None,
            "usage": said.usage if said else None,
            "rationale": self.rationale,
            "answer": self.answer,
            "verified": self.verified,
        }


@dataclass
class Answering:
    """One record being answered in one way."""

    record: Record
    llm: Roles
    prompts: Prompts
    way: str
    verify: Iterable[str] = ()
    extra: Row = field(default_factory=dict)
    """What a strategy adds to `meta`: the same keys in every row."""
    templates: tuple[str, ...] = ()

    async def ask(self, prompt: Prompt, number: int = 0, role: str = "teacher", **asked: Any) -> Completion:
        """Ask for the sample of that number."""
        return await self.llm.chat(role, prompt, sample=self.record.sample(number), **{**SAMPLING, **asked})

    def check(self, response: str) -> bool | None:
        """Say whether an answer is right, by every verifier asked for: one that says no decides, then one that
        does not know."""
        found = [pick_verifier(name)(self.record, response) for name in self.verify]
        if False in found:
            return False
        return None if None in found or not found else True

    def meta(self, answers: list[Answer]) -> Row:
        one = answers[0].as_meta() if len(answers) == 1 else {"responses": [answer.as_meta() for answer in answers]}
        return {
            "method": "respond",
            "op": self.way,
            "pass": self.record.pass_no,
            **self.record.lineage,
            "templates": [self.prompts[name].digest for name in self.templates],
            **one,
            **self.extra,
        }

    def kept(self, answers: list[Answer], place: object = 0) -> Candidate:
        """Make the row of one answer, or of several."""
        record, responses = self.record, [answer.response for answer in answers]
        said = {"response": responses[0]} if len(answers) == 1 else {"responses": responses}
        name = row_id(f"respond {self.way}", [record.id], [record.pass_no, place], [record.prompt, responses])
        return keep({"id": name, "prompt": record.prompt, **said, "meta": self.meta(answers), **record.extra})

    def rejected(self, reason: str, reply: str | None, answer: Answer | None = None) -> Candidate:
        """Drop an answer by a rule."""
        meta = self.meta([answer or NO_ANSWER])
        return reject(reason, stage=self.way, record=self.about, reply=reply, meta=meta)

    def failed(self, error: CallFailed) -> Candidate:
        """Report a call that got no good answer."""
        return fail(error, record=self.about, meta=self.meta([NO_ANSWER]))

    @property
    def about(self) -> Row:
        return {"id": self.record.id, "prompt": self.record.prompt}

    async def attempt(self, make: Awaitable[list[Candidate]]) -> AsyncIterator[Candidate]:
        """Yield what comes of it, or the one failure that prevented it."""
        try:
            candidates = await make
        except CallFailed as error:
            candidates = [self.failed(error)]
        for candidate in candidates:
            yield candidate

    async def sampled(self, answer: Callable[[int], Awaitable[Answer]], k: int) -> list[Candidate]:
        """Make k answers at once, in one row. A single one that is wrong is dropped; among several it is kept as such,
        for a rejected answer is worth something, too."""
        answers = await together([answer(number) for number in range(k)])
        return [self.judged(answers[0]) if k == 1 else self.kept(answers)]

    def judged(self, answer: Answer) -> Candidate:
        """Keep an answer unless a verifier says that it is wrong."""
        checked = replace(answer, verified=self.check(answer.response))
        if checked.verified is False:
            return self.rejected("wrong_answer", checked.response, checked)
        return self.kept([checked])


NO_ANSWER = Answer("", None)


async def together(calls: Iterable[Awaitable[Any]]) -> list[Any]:
    """Await all of them, in order; if one fails, the others are still paid for and recorded before that is told."""
    done = await asyncio.gather(*calls, return_exceptions=True)
    for each in done:
        if isinstance(each, BaseException):
            raise each
    return done


def with_instruction(prompt: Text, instruction: str, examples: Messages | None = None) -> Messages:
    """Put an instruction, and worked examples, before a conversation; one system message stays one."""
    messages = as_messages(prompt)
    system = messages[0]["content"] if messages[0]["role"] == "system" else ""
    rest = messages[1:] if system else messages
    told = "\n\n".join(filter(None, (system, instruction)))
    return [{"role": "system", "content": told}, *(examples or []), *rest]


@cache
def load_examples(path: Path) -> Messages:
    """Read worked examples as turns of a conversation."""
    turns: Messages = []
    with open_input(str(path)) as file:
        for row in Reader(str(path), file).read():
            if not isinstance(row, Record) or not row.response:
                raise InputError(f"{path}:{row.line}: a worked example needs a prompt and a response")
            turns += [*as_messages(row.prompt), {"role": "assistant", "content": row.response}]
    return turns


def next_command(options: Any) -> str:
    """One answer is to be trained on, several are to be judged."""
    return "datagen train sft {}" if options.k == 1 else "datagen judge {}"


def check_names(options: Any) -> None:
    """Raise InputError if a verifier is not known or an example cannot be used."""
    for name in options.verify:
        pick_verifier(name)
    if getattr(options, "examples", None):
        load_examples(options.examples)


def fields_of(record: Record, **more: str) -> dict[str, str]:
    """Return what a call is about, for the procedural teacher and for recorded replies."""
    return {"prompt": request_text(record.prompt), "extra": json.dumps(record.extra), **more}
