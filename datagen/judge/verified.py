"""Ranking by a verifier: a right answer stands above a wrong one, and no model is asked.

A right answer scores 1, a wrong one 0; one that the verifier does not know about has no score: null, never a number.
Right answers tie with each other: that they are right is all that is known. Of several verifiers one that says wrong
decides, then one that does not know.
"""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from datagen.engine.method import Method, Table
from datagen.engine.options import option
from datagen.judge.judging import ranked_row, what_is_known
from datagen.llm.model import Roles
from datagen.prompts import Prompts
from datagen.records.ranked import SAMPLES
from datagen.records.record import Candidate, Record, Row
from datagen.verify import VERIFIERS, pick_verifier

SCORES = {True: 1.0, False: 0.0, None: None}


@dataclass(frozen=True)
class Options:
    """What verifying can be told."""

    verify: list[str] = option(["answer"], f"verify: what checks the answers: {', '.join(VERIFIERS)}. Repeat it.")


def check(record: Record, response: str, names: Sequence[str]) -> bool | None:
    """Say whether an answer is right, by all of the verifiers."""
    said = {pick_verifier(name)(record, response) for name in names}
    return False if False in said else None if None in said else True


async def by_verifier(record: Record, llm: Roles, prompts: Prompts, options: Options) -> AsyncIterator[Candidate]:
    """Yield the ranked row of a record."""
    verdicts = [check(record, response, options.verify) for response in record.responses]
    known = [row | {"verified": verdict} for row, verdict in zip(what_is_known(record), verdicts, strict=True)]

    def meta(order: Sequence[int]) -> Row:
        return {
            "method": "judge",
            "op": "verify",
            "pass": record.pass_no,
            **record.lineage,
            "judges": options.verify,
            "responses": [known[at] for at in order],
        }

    yield ranked_row(record, "verify", [SCORES[verdict] for verdict in verdicts], meta)


class VerdictTable:
    """How many answers are right."""

    def __init__(self) -> None:
        self.said = Counter[bool | None]()

    def add(self, candidate: Candidate) -> None:
        if candidate.status == "kept":
            self.said.update(each["verified"] for each in candidate.row["meta"]["responses"])

    def as_dict(self) -> dict[str, Any]:
        return {"right": self.said[True], "wrong": self.said[False], "unknown": self.said[None]}

    def tables(self) -> list[list[list[str]]]:
        told = {"answers": self.said.total(), **self.as_dict()}
        return [[list(told), [str(count) for count in told.values()]]] if self.said else []


def prepare(options: Options) -> None:
    for name in options.verify:
        pick_verifier(name)


class Verify(Method):
    """verify."""

    name = "judge"
    variant = "verify"
    options_type = Options
    options: Options
    next_command = "datagen pairs {}"
    unique = ("prompt", "responses")
    kind = SAMPLES

    def generate(self, record: Record, llm: Roles) -> AsyncIterator[Candidate]:
        return by_verifier(record, llm, self.prompts, self.options)

    def check(self) -> None:
        prepare(self.options)

    def table(self) -> Table:
        return VerdictTable()
