"""Verifiable constraints (Tülu 3, arXiv 2411.15124; AutoIF, arXiv 2406.13542): prompts whose answers can be checked.

One to three constraints that do not exclude each other are drawn (verify/constraints.py) and stated behind a prompt;
the teacher answers, and an answer is kept only if every constraint is met. The row keeps them in "constraints", so
`--verify constraints` and a reward can check any other answer to it.

With `--pairs` a preference is made: chosen is the answer to the prompt with all constraints, rejected an answer to
the prompt with one of them left out, which must really break that one. Both are good answers; they differ in what was
asked.

Departures: constraints are drawn with a table of conflicts and answers are verified, where Tülu 3's public code does
neither.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from datagen.engine.method import Memory, Method, Unique
from datagen.engine.options import option
from datagen.errors import CallFailed
from datagen.llm.call import Completion
from datagen.llm.model import Roles
from datagen.prompts import Prompts, plain_prompt
from datagen.records.record import Candidate, Record, Row, fail, keep, reject, request_text, row_id, with_request
from datagen.verify.constraints.spec import Constraint, draw_constraints, holds, state, undecided, unmet, without

SAMPLING: dict[str, Any] = {"temperature": 0.7, "max_tokens": 2048}
MOST = 3
"""Tülu 3 draws one to three."""


@dataclass(frozen=True)
class Options:
    """What the constraints can be told."""

    most: int = option(MOST, "The most constraints on one prompt.", least=1, most=6)
    pairs: bool = option(False, "Write preferences in place of responses: all constraints over one left out.")


@dataclass
class Work:
    """One prompt and its constraints."""

    record: Record
    llm: Roles
    options: Options

    def __post_init__(self) -> None:
        random = self.record.random("constraints")
        least = 2 if self.options.pairs else 1
        count = random.randint(min(least, self.options.most), self.options.most)
        self.constraints = draw_constraints(random, count, request_text(self.record.prompt))
        self.left_out = random.choice(self.constraints)
        self.said: Completion | None = None

    def asked(self, constraints: Sequence[Constraint]) -> Record:
        """Return the record with constraints stated behind its request."""
        request = "\n\n".join((request_text(self.record.prompt), " ".join(map(state, constraints))))
        return replace(
            self.record, prompt=with_request(self.record.prompt, request) if constraints else self.record.prompt
        )

    async def answer(self, constraints: Sequence[Constraint]) -> Completion:
        prompt = plain_prompt(self.asked(constraints).prompt)
        return await self.llm.chat("teacher", prompt, sample=self.record.sample(0), **SAMPLING)

    @property
    def meta(self) -> Row:
        return {
            "method": "constraints",
            "op": "pairs" if self.options.pairs else "responses",
            "pass": self.record.pass_no,
            **self.record.lineage,
            "left_out": self.left_out.id if self.options.pairs else None,
            "model": self.said.model if self.said else None,
            "finish_reason": self.said.finish_reason if self.said else None,
            "usage": self.said.usage if self.said else None,
        }

    @property
    def told(self) -> Row:
        """The constraints as rows keep them."""
        return {"constraints": [{"id": each.id, "kwargs": each.kwargs} for each in self.constraints]}

    @property
    def about(self) -> Row:
        return {"id": self.record.id, "prompt": self.asked(self.constraints).prompt, **self.told}


async def constraints(record: Record, llm: Roles, prompts: Prompts, options: Options) -> AsyncIterator[Candidate]:
    """Yield one candidate: an answer that meets its constraints, or a preference."""
    work = Work(record, llm, options)
    try:
        yield await attempt(work)
    except CallFailed as error:
        yield fail(error, record=work.about, meta=work.meta)


async def attempt(work: Work) -> Candidate:
    """Have the prompt answered, check, and for a pair have it answered without one constraint, too."""
    work.said = await work.answer(work.constraints)
    text = work.said.text
    if unmet(work.constraints, text) or undecided(work.constraints, text):
        reason = "unmet" if unmet(work.constraints, text) else "undecided"
        return reject(reason, stage="answer", record=work.about, reply=text, meta=work.meta)
    if not work.options.pairs:
        return row(work, {"response": text})
    loose = (await work.answer(without(work.constraints, work.left_out))).text
    if holds(work.left_out, loose) is not False:
        return reject("met_anyway", stage="left_out", record=work.about, reply=loose, meta=work.meta)
    return row(work, {"chosen": text, "rejected": loose, "margin": None})


def row(work: Work, said: Row) -> Candidate:
    record, prompt = work.record, work.asked(work.constraints).prompt
    name = row_id("constraints", [record.id], record.pass_no, [prompt, said])
    extra = {
        key: value for key, value in record.extra.items() if key not in ("constraints", "instruction_id_list", "kwargs")
    }
    return keep({"id": name, "prompt": prompt, **said, "meta": work.meta, **work.told, **extra})


class Constraints(Method):
    """constraints."""

    name = "constraints"
    options_type = Options
    options: Options
    roles = {"teacher": "answers the prompts with their constraints"}

    def generate(self, record: Record, llm: Roles) -> AsyncIterator[Candidate]:
        return constraints(record, llm, self.prompts, self.options)

    def bound(self, record: Record) -> int:
        return 2 if self.options.pairs else 1

    def memory(self) -> Sequence[Memory]:
        return [Unique("prompt", "response", "chosen")]

    def next_command(self) -> str:
        return f"datagen train {'dpo' if self.options.pairs else 'sft'} {{}}"
