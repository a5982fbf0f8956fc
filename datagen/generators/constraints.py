"""Verifiable constraints (Tülu 3, arXiv 2411.15124; AutoIF, arXiv 2406.13542): prompts whose answers can be checked.

One to three constraints that are not known to conflict are drawn (verify/constraints/) and stated behind a prompt;
the teacher answers, and an answer is kept only if every constraint is met. The row keeps them in "constraints", so
`--verify constraints` and a reward can check any other answer to it.

With `--pairs` the row is a preference: chosen is the answer to the prompt with all constraints, rejected an answer to
the prompt with one of them left out, which must really break that one. Both are good answers to their prompts.

Departures: constraints are drawn with a table of conflicts and answers are verified, where Tülu 3's public code does
neither.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from datagen.engine.method import Method, Table
from datagen.engine.options import option
from datagen.engine.reasoning import reasoning_option
from datagen.errors import CallFailed, InputError
from datagen.judges.preferences import PreferenceTable
from datagen.llm.model import Roles
from datagen.records.record import (
    Candidate,
    Record,
    Row,
    Text,
    fail,
    keep,
    plain_prompt,
    reasoning_field,
    reject,
    request_text,
    row_id,
    with_request,
)
from datagen.verify.constraints.spec import (
    Constraint,
    constraint_sentence,
    draw_constraints,
    dump_constraints,
    is_met,
    without,
)

SAMPLING: dict[str, Any] = {"max_tokens": 2048}
MAX_CONSTRAINTS = 3
"""Tülu 3 draws one to three."""


@dataclass(frozen=True)
class Options:
    """Options of `datagen constraints`."""

    most: int = option(MAX_CONSTRAINTS, "Maximum number of constraints per prompt.", least=1, most=6)
    pairs: bool = option(
        False, "Write preference pairs; the rejected answer is one to the prompt without one of its constraints."
    )
    reasoning: str = reasoning_option()


class Constraints(Method):
    """Add verifiable constraints to prompts, and keep the answers that meet them."""

    name = "constraints"
    options_type = Options
    options: Options
    unique = ("prompt", "response", "chosen")
    reasons = {
        "unmet": "The answer breaks one of its constraints. Fewer of them (--most) are met more often.",
        "undecided": "It cannot be told whether the answer meets one of its constraints.",
        "met_anyway": "--pairs: the answer to the prompt without one constraint meets it all the same.",
    }
    roles = {"teacher": "answers the prompts with their constraints"}

    def check(self) -> None:
        if self.options.pairs and self.options.most < 2:
            raise InputError(f"--pairs with --most {self.options.most}: at least 2, since one constraint is left out")

    async def generate(self, record: Record, llm: Roles) -> AsyncIterator[Candidate]:
        """Yield one candidate: an answer that meets its constraints, or a preference."""
        # 1. Draw constraints that are not known to conflict, and state them behind the request.
        pairs, most = self.options.pairs, self.options.most
        random = record.random("constraints")
        number = random.randint(2 if pairs else 1, most)
        constraints = draw_constraints(random, number, request_text(record.prompt))
        left_out = random.choice(constraints)
        prompt = with_constraints(record.prompt, constraints)
        stated = {"constraints": dump_constraints(constraints)}
        subject = record.row | {"prompt": prompt, **stated}
        sample = record.sample(0)
        meta: Row = self.row_meta(
            record,
            "pairs" if pairs else "responses",
            left_out=left_out.id if pairs else None,
            model=None,
            finish_reason=None,
            usage=None,
        )
        try:
            # 2. Keep an answer only if every constraint is surely met.
            reply = await llm.chat("teacher", plain_prompt(prompt), sample=sample, **SAMPLING)
            meta |= {"model": reply.model, "finish_reason": reply.finish_reason, "usage": reply.usage}
            verdicts = [is_met(constraint, reply.text) for constraint in constraints]
            if not all(verdicts):
                reason = "unmet" if False in verdicts else "undecided"
                yield reject(reason, stage="answer", record=subject, reply=reply.text, meta=meta)
                return
            answers: Row = {"response": reply.text}
            thoughts = reasoning_field(reply.reasoning)

            # 3. For a preference, the rejected answer is to the prompt without one constraint, and must break it.
            if pairs:
                looser = plain_prompt(with_constraints(record.prompt, without(constraints, left_out)))
                other = await llm.chat("teacher", looser, sample=sample, **SAMPLING)
                if is_met(left_out, other.text) is not False:
                    yield reject("met_anyway", stage="left_out", record=subject, reply=other.text, meta=meta)
                    return
                answers = {"chosen": reply.text, "rejected": other.text, "margin": None}
                thoughts = {
                    **reasoning_field(reply.reasoning, "chosen_reasoning"),
                    **reasoning_field(other.reasoning, "rejected_reasoning"),
                }
        except CallFailed as error:
            yield fail(error, record=subject, meta=meta)
            return

        # 4. The row keeps its constraints in place of those that the input row had.
        name = row_id(self.name, [record.id], record.pass_no, [prompt, answers])
        replaced = ("constraints", "instruction_id_list", "kwargs")
        extra = {key: value for key, value in record.carried.items() if key not in replaced}
        yield keep({"id": name, "prompt": prompt, **answers, **thoughts, "meta": meta, **stated, **extra})

    def table(self) -> Table:
        return PreferenceTable({}) if self.options.pairs else Table()

    def bound(self, record: Record, llm: Roles) -> int:
        return 2 if self.options.pairs else 1


def with_constraints(prompt: Text, constraints: Sequence[Constraint]) -> Text:
    """Return the prompt with the constraints stated behind its request."""
    return with_request(prompt, f"{request_text(prompt)}\n\n{' '.join(map(constraint_sentence, constraints))}")
