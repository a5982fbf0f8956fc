"""What the judging methods share: their options and rubrics, the steps for a record, and its ranked row."""

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from datagen.engine.method import Method, Table
from datagen.engine.options import option
from datagen.errors import CallFailed, InputError
from datagen.judges.agreement import Agreement, save_checks
from datagen.judges.judges import ASKS, NO_PROBABILITIES, Judges, answer_metas, partial_judge
from datagen.judges.summary import JudgeTable
from datagen.llm.model import Roles
from datagen.prompts import Prompts, Template, read_template
from datagen.records.ranked import SAMPLES, dense_ranks
from datagen.records.record import ID_LENGTH, Candidate, Record, Row, digest, fail, keep, reasoning_list, reject, row_id

DIGITS = 4
"""Decimals of a score."""
RUBRICS = "helpful, honest, harmless, relevance, consistency, creativity"
LOGPROBS = "Use the judge's token log-probabilities: expected scores, soft labels."
CHECK = "Measure the judge's agreement with people; the rows hold human ranks or choices."


@dataclass(frozen=True)
class JudgeOptions:
    """Options of every judging method that calls models."""

    rubric: list[str] = option(["helpful"], f"Rubric to judge by: {RUBRICS}, or a file NAME.md. Repeatable.", file=True)
    panel: bool = option(False, "Let every --judge judge every row and combine the verdicts, instead of taking turns.")
    allow_self: bool = option(False, "Allow a model to judge its own answers and those of its model family.")


@dataclass
class Judgement:
    """The result of judging one record."""

    scores: list[float | None]
    """A score for each answer, in the order of the input; None where there is none."""
    details: Row
    """Values of `ModelJudge.details`."""
    answers: list[Row] | None = None
    """What to add to each answer's entry in `meta.responses`."""
    comparisons: list[Any] = field(default_factory=list)
    """Comparisons of two answers (compare.py), by their places in the input."""


class JudgeMethod(Method):
    """A judging method: `datagen judge --by VARIANT`. It reads samples and writes ranked rows."""

    name = "judge"
    kind = SAMPLES
    unique = ("prompt", "responses")


class ModelJudge(JudgeMethod):
    """A judging method that calls models. A subclass writes `judge`."""

    roles = {"judge": "judges the answers"}
    judges_input = True
    details: ClassVar[Row] = {}
    """The keys that the method adds to `meta`: the same in every row, with their values before anything is known."""
    reasons = {
        "one_answer": "The row has one answer, and a comparison needs two. Make more: datagen respond -k 4.",
        "no_impartial_judge": "Every judge is of the model family of an answer. Name another --judge, or --allow-self.",
        "no_label": "--check: the row holds no choice of people.",
        "judge_unparsed": "None of the judge's replies could be used, so no answer has a score.",
    }
    asks = ASKS
    needs = (NO_PROBABILITIES,)
    gives_points: ClassVar[bool] = False
    """Whether scores are points, so that those of several rows can be compared."""
    least_answers: ClassVar[int] = 2
    """Answers that a row must have to be judged."""

    def conflict(self, record: Record, llm: Roles) -> str | None:
        judges = Judges(record, llm, allow_self=self.options.allow_self)
        return None if judges.members else partial_judge(llm.identities("judge"))

    async def generate(self, record: Record, llm: Roles) -> AsyncIterator[Candidate]:
        """Yield the ranked row of a record, or the reason why there is none."""
        # 1. Leave out a row that cannot be judged.
        judges = self.judges(record, llm)
        reason = None
        if len(record.responses) < self.least_answers:
            reason = "one_answer"
        elif not judges.members:
            reason = "no_impartial_judge"
        elif self.options.check and not record.ranks:
            reason = "no_label"
        if reason:
            yield reject(reason, stage=self.variant, record=record.row, reply=None, meta=self.meta(judges))
            return

        # 2. Judge the answers.
        try:
            judgement = await self.judge(judges)
        except CallFailed as error:
            yield fail(error, record=record.row, meta=self.meta(judges))
            return

        # 3. Put them in order, the best first. A row of which no reply could be read is not judged; a check counts its
        #    replies as unread.
        order = ranking_order(judgement.scores)
        meta = self.meta(judges, judgement, order)
        if not self.options.check and all(score is None for score in judgement.scores):
            reply = judges.unread_reply
            yield judges.note_replies(
                reject("judge_unparsed", stage=self.variant, record=record.row, reply=reply, meta=meta)
            )
            return
        yield judges.note_replies(ranked_row(record, self.variant, judgement.scores, order, meta))

    def judges(self, record: Record, llm: Roles) -> Judges:
        """Return the models that judge a record."""
        return Judges(record, llm, allow_self=self.options.allow_self, panel=self.options.panel)

    def bound(self, record: Record, llm: Roles) -> int:
        return self.bound_of_judge(record) * len(self.judges(record, llm).members)

    def bound_of_judge(self, record: Record) -> int:
        """Return the most calls to each of the models that judge a record."""
        raise NotImplementedError

    async def judge(self, judges: Judges) -> Judgement:
        """Judge the answers of one record.

        Args:
            judges: The record's answers, and the models that judge them: `await judges.ask(prompt, member, parse)`.

        Returns:
            A score for each answer, and what goes into `meta`.

        Raises:
            CallFailed: A call got no reply. The record becomes one failed row.
        """
        raise NotImplementedError

    @cached_property
    def rubrics(self) -> dict[str, Template]:
        """The rubrics of `--rubric` by their names in the form; InputError for one that does not exist, is empty, or
        has the name of another."""
        rubrics: dict[str, Template] = {}
        for path in self.options.rubric:
            name, rubric = aspect_name(path), load_rubric(self.prompts, path)
            if name in rubrics or not statements(rubric):
                problem = f"another one is called {name}, too" if name in rubrics else "no statement in it"
                raise InputError(f"--rubric {path}: {problem}")
            rubrics[name] = rubric
        return rubrics

    @cached_property
    def criteria(self) -> str:
        """All statements of the rubrics, in one line."""
        return " ".join(" ".join(statements(rubric)) for rubric in self.rubrics.values())

    @cached_property
    def judging_digest(self) -> str:
        """The digest of the method's prompts and rubrics: a check of a judge holds for these alone."""
        digests = [self.prompts[name].digest for name in self.templates]
        return digest([self.variant, digests, self.criteria])[:ID_LENGTH]

    def meta(self, judges: Judges, judgement: Judgement | None = None, order: Sequence[int] = ()) -> Row:
        """Return the `meta` of a row.

        Args:
            judges: The judges of the record.
            judgement: Their result; None if there is none.
            order: The places in the input of the row's answers. Empty: as they stand there.
        """
        record, names = judges.record, judges.llm.identities("judge")
        answers, details, comparisons = answer_metas(record), self.details, []
        if judgement:
            details = judgement.details
            places = [order.index(at) for at in range(len(order))]
            comparisons = [comparison.as_meta(places) for comparison in judgement.comparisons]
            if judgement.answers:
                answers = [entry | addition for entry, addition in zip(answers, judgement.answers, strict=True)]
        return self.row_meta(
            record,
            judges=[names[at] for at in judges.members],
            rubrics={name: rubric.digest for name, rubric in self.rubrics.items()},
            judging=self.judging_digest,
            labels=[record.ranks[at] for at in order] if self.options.check else None,
            unread=judges.unread,
            **details,
            comparisons=comparisons,
            responses=[answers[at] for at in order or range(len(answers))],
        )

    def identity(self) -> dict[str, Any]:
        """Return the digest of each rubric's text."""
        return {"rubric": {name: rubric.digest for name, rubric in self.rubrics.items()}}

    def table(self) -> Table:
        return Agreement() if self.options.check else JudgeTable(points=self.gives_points)

    @property
    def next_step(self) -> str | None:
        return "" if self.options.check else None

    def finish(self, result: Row) -> None:
        if self.options.check:
            save_checks(result["table"])


def rounded(scores: Sequence[float | None]) -> list[float | None]:
    return [None if score is None else round(score, DIGITS) for score in scores]


def ranking_order(scores: Sequence[float | None]) -> list[int]:
    """Return the places of answers: the best first, the earlier first among equals, those without a score last."""
    ranks = dense_ranks(rounded(scores))
    return sorted(range(len(ranks)), key=lambda at: (ranks[at], at))


def ranked_row(
    record: Record, variant: str, scores: Sequence[float | None], order: Sequence[int], meta: Row
) -> Candidate:
    """Make the ranked row of a record.

    Args:
        record: The input row.
        variant: The judging method; it is part of the row's id.
        scores: A score for each answer, in the order of the input. Equal scores, rounded to DIGITS, are a tie.
        order: The order of the answers in the row, as `ranking_order` returns it.
        meta: The `meta` of the row.
    """
    scores = rounded(scores)
    ranks = dense_ranks(scores)
    row = {
        "prompt": record.prompt,
        "responses": [record.responses[at] for at in order],
        **reasoning_list(record.reasonings[at] for at in order if record.reasonings),
        "scores": [scores[at] for at in order],
        "ranks": [ranks[at] for at in order],
    }
    name = row_id(f"judge {variant}", [record.id], record.pass_no, [row["responses"], row["scores"]])
    return keep({"id": name, **row, "meta": meta, **record.carried})


def aspect_name(path: str) -> str:
    """Name the aspect of a rubric: its file's name, in the form of a word, since it stands in the form of a reply."""
    name = "-".join(re.findall(r"[^\W_]+", Path(path).stem.lower()))
    if not name:
        raise InputError(f"--rubric {path}: the name of the file holds no letter or digit")
    return name


def load_rubric(prompts: Prompts, name: str) -> Template:
    """Return a rubric by its name, or from a file of the user's."""
    path = Path(name)
    if path.suffix == ".md" and path.is_file():
        return read_template(path.stem, path)
    if f"rubrics/{name}" not in prompts:
        raise InputError(f"--rubric {name}: no such rubric, and no file NAME.md")
    return prompts[f"rubrics/{name}"]


def statements(rubric: Template) -> list[str]:
    """Return the statements of a rubric: one point for each that is true of an answer."""
    return [line for message in rubric.render().messages for line in message["content"].splitlines() if line.strip()]
