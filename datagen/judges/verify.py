"""Ranking by a verifier: right answers above wrong ones, without calling a model.

A right answer scores 1, a wrong one 0. Where the verifier does not know, the score is null, never a number. All right
answers are tied, and so are all wrong ones. With several verifiers an answer is wrong if one of them says so, and else
unknown if one of them does not know.
"""

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from datagen.engine.method import Table
from datagen.engine.options import option
from datagen.engine.unobtained import ask
from datagen.judges.judge_method import JudgeMethod, ranked_row, ranking_order
from datagen.judges.judges import answer_metas
from datagen.judges.summary import authors
from datagen.llm.model import Roles
from datagen.plugins import FILE_NAME, OutsideFunction, short_name
from datagen.records.record import Candidate, Record, Row
from datagen.verify import (
    UNVERIFIED,
    UNVERIFIED_WHY,
    VERIFIERS,
    Verifier,
    outside_verifiers,
    pick_verifier,
    verify_all,
)

SCORES = {True: 1.0, False: 0.0, None: None}
VERDICTS = {"right": True, "wrong": False, "unknown": None}


@dataclass(frozen=True)
class Options:
    """Options of `datagen judge --by verify`."""

    verify: list[str] = option(
        ["answer"], f"verify: verifier to use: {', '.join(VERIFIERS)}, {FILE_NAME}. Repeatable.", file=True
    )


@dataclass
class VerdictTable(Table):
    """How many answers are right, of each model that wrote some, and of all."""

    models: dict[str, Counter[bool | None]] = field(default_factory=lambda: defaultdict(Counter))

    def add(self, candidate: Candidate) -> None:
        if candidate.status == "kept":
            answers = candidate.row["meta"]["responses"]
            for name, place in authors(candidate.row["meta"]):
                self.models[name][answers[place]["verified"]] += 1

    def as_dict(self) -> dict[str, Any]:
        total = sum(self.models.values(), Counter[bool | None]())
        models = {name: numbers_of(self.models[name]) for name in sorted(self.models)}
        return {**numbers_of(total), "models": models}

    def tables(self) -> list[list[list[str]]]:
        if not self.models:
            return []
        numbers = self.as_dict()
        models = numbers.pop("models")
        lines = [*models.items(), ("all", numbers)] if len(models) > 1 else list(models.items())
        return [[["model", *numbers], *([name, *map(str, counts.values())] for name, counts in lines)]]


def numbers_of(counts: Counter[bool | None]) -> Row:
    """Return how many answers there are, and how many of each verdict."""
    return {"answers": counts.total(), **{name: counts[verdict] for name, verdict in VERDICTS.items()}}


class Verify(JudgeMethod):
    """Rank right answers above wrong ones."""

    variant = "verify"
    options_type = Options
    options: Options
    table_type = VerdictTable
    asks = {UNVERIFIED: UNVERIFIED_WHY}

    async def generate(self, record: Record, llm: Roles) -> AsyncIterator[Candidate]:
        """Yield the ranked row of a record."""
        verdicts = await verify_all(record, record.responses, self.verifiers.values())
        answers = [entry | {"verified": verdict} for entry, verdict in zip(answer_metas(record), verdicts, strict=True)]
        scores = [SCORES[verdict] for verdict in verdicts]
        order = ranking_order(scores)
        meta = self.row_meta(
            record,
            judges=list(self.verifiers),
            responses=[answers[at] for at in order],
        )
        yield ask(
            ranked_row(record, self.variant, scores, order, meta), UNVERIFIED, len(verdicts), verdicts.count(None)
        )

    @cached_property
    def verifiers(self) -> dict[str, Verifier]:
        """The verifiers of `--verify`, by their names in rows."""
        return {short_name(name): pick_verifier(name) for name in self.options.verify}

    @property
    def plugins(self) -> Sequence[OutsideFunction]:
        return outside_verifiers(self.verifiers.values())

    def check(self) -> None:
        _ = self.verifiers
