"""What the strategies share: the request for an answer, its verification, and the rows made of answers.

One answer is a row {"prompt", "response"}; several are one row {"prompt", "responses"} with as many entries in
`meta.responses`. A prompt is stored as it came in: instructions that a strategy adds are not part of the row.
"""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from datagen.engine.method import Method
from datagen.engine.unobtained import ask
from datagen.errors import CUT_ANSWER, CallFailed, InputError
from datagen.llm.call import Completion
from datagen.llm.model import Roles, gather_all
from datagen.plugins import FILE_NAME, OutsideFunction
from datagen.records.files import open_input
from datagen.records.reader import PROMPTS, Reader
from datagen.records.record import (
    Candidate,
    Messages,
    Prompt,
    Record,
    Row,
    as_messages,
    fail,
    keep,
    reasoning_field,
    reasoning_list,
    reject,
    request_text,
    row_id,
)
from datagen.verify import (
    UNVERIFIED,
    UNVERIFIED_WHY,
    VERIFIERS,
    Verifier,
    outside_verifiers,
    pick_verifier,
    verify_all,
)
from datagen.verify.answers import split_answer
from datagen.verify.equality import same_answer
from datagen.verify.equations import equations_hold

SAMPLING: dict[str, Any] = {"temperature": 0.7, "max_tokens": 2048}
"""Self-consistency (2203.11171, section 3.1) and RFT (2308.01825, section 3.3) sample at 0.7; Orca's teacher too."""
REASON = "cot/reason"
"""The prompt template of a chain of thought."""
NO_RESULT, CUT_ANSWERS = "chains without a result", "cut answers of several"
NO_RESULT_WHY = {
    NO_RESULT: "A chain without a line 'Answer: ...', or one that is cut, has no result: another model, --examples, or "
    "a higher --max-tokens may help.",
}
WRONG_REASONS = {
    "no_answer": "The answer states no result.",
    "wrong_answer": "The result is not the known one, or a verifier of --verify fails the answer.",
    "wrong_equation": "An equation in the answer does not hold.",
    "unverified_answer": "Whether the answer is right cannot be told: it, or what is known, is not understood "
    "(docs/verifiers.md).",
}
"""What the reasons of WRONG mean."""
UNDECIDED = ("no_answer", "unverified_answer")
"""Reasons that are no verdict: the answer may be right."""
NO_GOLD = {"no_gold": 'The row holds no known answer: a field "answer", or a response that states one.'}
WRONG = tuple(WRONG_REASONS)
"""Why a chain of thought is not known to be right; see rejection_reason."""
EXAMPLES = "Few-shot examples: a file of prompts with worked answers."
VERIFY = f"Verify each answer with: {', '.join(VERIFIERS)}, {FILE_NAME}. Repeatable."


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer to a prompt."""

    response: str
    """The text to train on."""
    completion: Completion | None
    """The reply that holds it; None for an answer that came with the input, or was put together from several."""
    rationale: str | None = None
    answer: str | None = None
    """The final answer alone, where one is stated."""
    verified: bool | None = None
    """True, false, or not known."""
    model: str | None = None
    """The model that wrote it, where no single reply holds it."""
    reasoning: str | None = None
    """What was thought before it, where no single reply holds it."""

    @classmethod
    def from_chain(cls, completion: Completion) -> "Answer":
        """Split a chain of thought into its rationale and the final answer that it states."""
        return cls(completion.text, completion, *split_answer(completion.text))

    @property
    def calls(self) -> Row:
        """The field of a row that holds the tools that it calls, if it does."""
        calls = self.completion.tool_calls if self.completion else ()
        return {"tool_calls": list(calls)} if calls else {}

    @property
    def thought(self) -> str | None:
        """What was thought before it."""
        return self.completion.reasoning if self.completion else self.reasoning

    def as_meta(self) -> Row:
        completion = self.completion
        return {
            "model": completion.model if completion else self.model,
            "finish_reason": completion.finish_reason if completion else None,
            "usage": completion.usage if completion else None,
            "rationale": self.rationale,
            "answer": self.answer,
            "verified": self.verified,
        }


NO_ANSWER = Answer("", None)


class Cut(NamedTuple):
    """One of several answers that reached the length limit."""

    failure: CallFailed


LEAST_OF_SEVERAL = 2
"""Whole answers that a row of several must have: with one it would be a row of another kind."""


class Strategy(Method):
    """A strategy to answer prompts: `datagen respond --strategy VARIANT`. A subclass writes `respond` or `answer`."""

    name = "respond"
    roles: ClassVar[Mapping[str, str]] = {"teacher": "answers the prompts"}
    reasons: ClassVar[Mapping[str, str]] = {"wrong_answer": WRONG_REASONS["wrong_answer"]}
    asks: ClassVar[Mapping[str, str]] = {UNVERIFIED: UNVERIFIED_WHY}
    details: ClassVar[Row] = {}
    """The keys that the strategy adds to `meta`: the same in every row, with their values before anything is known."""

    async def generate(self, record: Record, llm: Roles) -> AsyncIterator[Candidate]:
        """Yield the candidates of `respond`, or the one failure that prevented them."""
        details = dict(self.details)
        try:
            candidates = await self.respond(record, llm, details)
        except CallFailed as error:
            candidates = [fail(error, record=record.row, meta=self.meta(record, details, [NO_ANSWER]))]
        for candidate in candidates:
            yield candidate

    async def respond(self, record: Record, llm: Roles, details: Row) -> list[Candidate]:
        """Answer one prompt; by default with one row that holds all of `answers`.

        Args:
            record: One input row.
            llm: The models by role.
            details: A copy of `self.details` for this record, to be filled in on the way. It is part of `meta`, also
                where a call fails.

        Returns:
            The candidates of `accept` and `reject`, in a fixed order.

        Raises:
            CallFailed: A call got no good reply. The record becomes one failed row.
        """
        answers = await self.answers(record, llm)
        whole = await self.verify(record, [answer for answer in answers if isinstance(answer, Answer)])
        cut = [answer.failure for answer in answers if isinstance(answer, Cut)]
        if cut and len(whole) < LEAST_OF_SEVERAL:
            raise cut[0]
        several = len(answers) if len(answers) > 1 else 0
        return [ask(self.accept(record, details, whole), CUT_ANSWERS, several, len(cut))]

    async def ask(self, record: Record, llm: Roles, prompt: Prompt, number: int = 0, **params: Any) -> Completion:
        """Ask the teacher once.

        Args:
            record: The input row; it decides the sample number of the call, and which of several teachers answers.
            llm: The models by role.
            prompt: The request.
            number: The number of the sample, from 0.
            params: `parse` and sampling parameters, in place of those of SAMPLING.

        Raises:
            CallFailed: There is no good reply.
        """
        return await llm.chat("teacher", prompt, sample=record.sample(number), **{**SAMPLING, **params})

    async def answers(self, record: Record, llm: Roles) -> list[Answer | Cut]:
        """Return `-k` independent answers to the request of `prompt`, not verified yet.

        Among several, an answer that is cut stands here as a Cut, since it will be cut whenever it is asked for.

        Raises:
            CallFailed: A call failed in a way that may be over in the next run.
        """
        prompt, k = self.prompt(record), self.options.k

        async def answer_or_cut(number: int) -> Answer | Cut:
            try:
                return await self.answer(record, llm, prompt, number)
            except CallFailed as error:
                if k == 1 or error.reason != CUT_ANSWER:
                    raise
                return Cut(error)

        return await gather_all(map(answer_or_cut, range(k)))

    async def answer(self, record: Record, llm: Roles, prompt: Prompt, number: int) -> Answer:
        """Return one answer, not verified yet; by default a chain of thought.

        Args:
            record: The input row.
            llm: The models by role.
            prompt: The request, as `prompt` returns it.
            number: The number of the answer, from 0.

        Raises:
            CallFailed: A call got no good reply.
        """
        return Answer.from_chain(await self.ask(record, llm, prompt, number))

    def prompt(self, record: Record, template: str = REASON, **fields: str) -> Prompt:
        """Return the request for an answer; by default for a rationale that ends in a stated answer.

        Args:
            record: The input row.
            template: The template of the instruction; it goes into the system message, after the text that it has.
            fields: The values of the template.

        Returns:
            The system message, the worked examples of `--examples` as turns, and the record's own turns.
        """
        instruction = self.prompts[template].render(**fields).messages[0]["content"]
        messages = as_messages(record.prompt)
        system = messages[0]["content"] if messages[0]["role"] == "system" else ""
        turns = messages[1:] if system else messages
        content = "\n\n".join(filter(None, (system, instruction)))
        messages = [{"role": "system", "content": content}, *self.examples, *turns]
        return Prompt(messages, template, prompt_fields(record, **fields))

    async def verify(self, record: Record, answers: list[Answer]) -> list[Answer]:
        """Return answers with the verdicts of the verifiers of `--verify`, where there are any."""
        if not self.verifiers:
            return answers
        verdicts = await verify_all(record, [answer.response for answer in answers], self.verifiers.values())
        return [replace(answer, verified=verdict) for answer, verdict in zip(answers, verdicts, strict=True)]

    def accept(self, record: Record, details: Row, answers: list[Answer], place: object = 0) -> Candidate:
        """Make the row of one answer, or of several, which are verified.

        A single answer that is wrong is rejected. Among several it stays, since it may be the rejected one of a pair.

        Args:
            record: The input row.
            details: What the strategy adds to `meta`.
            answers: One answer for a "response", several for "responses".
            place: Part of the row's id: what sets it apart from the record's other rows.
        """
        count = len(answers) if getattr(self.options, "verify", None) else 0
        checked = UNVERIFIED, count, sum(answer.verified is None for answer in answers)
        if len(answers) == 1 and answers[0].verified is False:
            return ask(self.reject(record, details, "wrong_answer", answers[0].response, answers[0]), *checked)
        responses = [answer.response for answer in answers]
        if len(answers) == 1:
            fields = {"response": responses[0], **reasoning_field(answers[0].thought), **answers[0].calls}
        else:
            fields = {"responses": responses, **reasoning_list(answer.thought for answer in answers)}
        content = [record.prompt, responses]
        name = row_id(f"respond {self.variant}", [record.id], [record.pass_no, place], content)
        meta = self.meta(record, details, answers)
        return ask(keep({"id": name, "prompt": record.prompt, **fields, "meta": meta, **record.carried}), *checked)

    def reject(
        self, record: Record, details: Row, reason: str, reply: str | None = None, answer: Answer = NO_ANSWER
    ) -> Candidate:
        """Make the rejected row of an answer that a rule drops.

        Args:
            record: The input row.
            details: What the strategy adds to `meta`.
            reason: The rule, as the funnel names it.
            reply: The text that shows why.
            answer: The answer for `meta`, if there is one.
        """
        meta = self.meta(record, details, [answer])
        return reject(reason, stage=self.variant, record=record.row, reply=reply, meta=meta)

    def meta(self, record: Record, details: Row, answers: list[Answer]) -> Row:
        metas = [answer.as_meta() for answer in answers]
        return self.row_meta(record, **(metas[0] if len(metas) == 1 else {"responses": metas}), **details)

    @cached_property
    def examples(self) -> Messages:
        """The worked examples of `--examples`, as turns of a conversation."""
        path = getattr(self.options, "examples", None)
        return load_examples(path) if path else []

    @cached_property
    def verifiers(self) -> dict[str, Verifier]:
        """The verifiers of `--verify` by name."""
        return {name: pick_verifier(name) for name in getattr(self.options, "verify", ())}

    @property
    def plugins(self) -> Sequence[OutsideFunction]:
        return outside_verifiers(self.verifiers.values())

    def check(self) -> None:
        _ = self.verifiers
        _ = self.examples  # a bad file ends the command before anything is sent

    def bound(self, record: Record, llm: Roles) -> int:
        return int(self.options.k)


def rejection_reason(chain: Answer, reference: str) -> str | None:
    """Return why a chain of thought is not known to be right: its answer against the known one, then its equations."""
    if chain.answer is None:
        return "no_answer"
    verdict = same_answer(chain.answer, reference)
    if verdict is not True:
        return "unverified_answer" if verdict is None else "wrong_answer"
    return "wrong_equation" if equations_hold(chain.response) is False else None


def with_verdict(chain: Answer, reason: str | None) -> Answer:
    """Return a chain with the verdict that a reason of `rejection_reason` is."""
    return replace(chain, verified=None if reason in UNDECIDED else reason is None)


def prompt_fields(record: Record, **fields: str) -> dict[str, str]:
    """Return the fields of a Prompt, for the procedural teacher and for recorded replies."""
    extra = json.dumps(record.extra) if record.extra else "{}"
    return {"prompt": request_text(record.prompt), "extra": extra, **fields}


def load_examples(path: Path) -> Messages:
    """Read worked examples as turns of a conversation."""
    turns: Messages = []
    with open_input(str(path)) as file:
        for row in Reader(str(path), file, PROMPTS).read():
            if not isinstance(row, Record) or not row.response:
                raise InputError(f"{path}:{row.line}: a worked example needs a prompt and a response")
            turns += [*as_messages(row.prompt), {"role": "assistant", "content": row.response}]
    return turns
