"""Scoring answers by rubrics: one point for each statement that is true of an answer.

The additive rubric of Self-Rewarding Language Models (arXiv 2401.10020): picking one of five descriptions agrees with
people far less. All answers of a prompt and all aspects stand in one call, the answers in random order (UltraFeedback,
arXiv 2310.01377): scored one by one, nearly all get the same. The score of an aspect is the mean over `--samples`
calls, and with `--logprobs` the expected value over the probabilities of the score's token instead of the one sampled
(Deita, arXiv 2312.15685). The points under one aspect are lines; those under several are JSON by a schema, but for
`--logprobs`, since the token of a score is looked for in its line. Where a reply cannot be read, or has no
probabilities, the score is null, never a number.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from statistics import fmean
from typing import Any

from datagen.engine.options import option
from datagen.judges.judge_method import CHECK, DIGITS, LOGPROBS, Judgement, JudgeOptions, ModelJudge, statements
from datagen.judges.judges import REMINDER, Judges, draw_labels, label_texts
from datagen.judges.points import Points, find_points, read_points
from datagen.judges.replies import TOP_LOGPROBS, expected_value
from datagen.llm.call import Completion
from datagen.llm.model import gather_all
from datagen.records.record import Record
from datagen.schemas import Schema, object_schema, parse_schema

SCORE, ASPECTS = "judge/score", "judge/aspects"


@dataclass(frozen=True)
class Options(JudgeOptions):
    """Options of `datagen judge --by score`."""

    check: bool = option(False, CHECK)
    samples: int = option(
        1, "score: number of calls per prompt and judge, whose points are averaged.", least=1, most=100
    )
    logprobs: bool = option(False, LOGPROBS)


class Score(ModelJudge):
    """Give an answer one point for each statement of the rubrics that is true of it."""

    variant = "score"
    options_type = Options
    options: Options
    templates = (SCORE, ASPECTS, REMINDER)
    details = {"disagreement": None}
    gives_points = True
    least_answers = 1

    async def judge(self, judges: Judges) -> Judgement:
        """Average the points of all calls; one call scores all answers under all aspects."""
        # 1. Ask every judge `--samples` times.
        samples = range(self.options.samples)
        replies = await gather_all(
            self.points(judges, member, sample) for member in judges.members for sample in samples
        )
        points = [reply for reply in replies if reply is not None]
        places = range(len(judges.answers))
        if not points:
            unknown = {"aspects": dict.fromkeys(self.rubrics)}
            return Judgement([None for _ in places], self.details, [unknown for _ in places])

        # 2. The score of an aspect is the mean over the calls.
        aspects = [
            {aspect: round(fmean(call[at][aspect] for call in points), DIGITS) for aspect in self.rubrics}
            for at in places
        ]

        # 3. The score of an answer is the mean over aspects, then over the calls.
        by_call = [[fmean(call[at].values()) for call in points] for at in places]
        disagreement = fmean([max(values) - min(values) for values in by_call])
        return Judgement(
            [fmean(values) for values in by_call],
            {"disagreement": round(disagreement, DIGITS)},
            [{"aspects": answer} for answer in aspects],
        )

    @cached_property
    def most(self) -> dict[str, int]:
        """Aspect to the most points that its rubric allows: one for each statement."""
        return {aspect: len(statements(rubric)) for aspect, rubric in self.rubrics.items()}

    @cached_property
    def schema(self) -> Schema | None:
        """Of the points under several aspects; None where they are lines. The labels of the answers are drawn for each
        call and stand in no schema: a server takes its time over every new one."""
        if len(self.rubrics) == 1 or self.options.logprobs:
            return None
        points = {aspect: {"type": "integer", "enum": list(range(top + 1))} for aspect, top in self.most.items()}
        answer = object_schema({"answer": {"type": "string"}, "points": object_schema(points)})
        reply = object_schema({"reasons": {"type": "string"}, "answers": {"type": "array", "items": answer}})
        return parse_schema("points", reply, "points")

    @property
    def row_templates(self) -> tuple[str, ...]:
        return (ASPECTS if self.schema else SCORE, REMINDER)

    def form(self, labels: Sequence[str]) -> str:
        """Return the form of a reply, with the labels of the answers."""
        if self.schema is None:
            return "\n".join(f"{label} {aspect}: (0 to {top})" for label in labels for aspect, top in self.most.items())
        points = {aspect: f"0 to {top}" for aspect, top in self.most.items()}
        return json.dumps({"reasons": "...", "answers": [{"answer": label, "points": points} for label in labels]})

    async def points(self, judges: Judges, member: int, sample: int) -> list[dict[str, float]] | None:
        """Ask one judge once for the points of all answers.

        Args:
            judges: The judges, and the answers.
            member: The judge to ask, by its place in the role.
            sample: The number of the sample; it also decides the order in which the answers are shown.

        Returns:
            For each answer, aspect to points: 0 to the number of the rubric's statements. None if the reply cannot be
            read.

        Raises:
            CallFailed: The call got no reply.
        """
        # 1. Show all answers at once, in a random order and under random labels.
        order = list(range(len(judges.answers)))
        random = judges.record.random(f"order, sample {sample}")
        random.shuffle(order)
        labels = draw_labels(random, judges.answers)
        form = self.form(labels)
        rubrics = {aspect: statements(rubric) for aspect, rubric in self.rubrics.items()}
        prompt = self.prompts[self.row_templates[0]].render(
            rubrics="\n\n".join(
                f"Aspect {aspect}:\n" + "\n".join(f"- {line}" for line in lines) for aspect, lines in rubrics.items()
            ),
            form=form,
            prompt=judges.request,
            reference=judges.reference,
            answers=label_texts(labels, [judges.answers[at] for at in order]),
        )

        # 2. Ask; a reply must hold points for each answer under each aspect.
        params: dict[str, Any] = {"temperature": 1} if self.options.samples > 1 else {}
        params |= TOP_LOGPROBS if self.options.logprobs else {}
        parse = partial(read_points, labels=labels, most=self.most, schema=self.schema)
        reminder = self.prompts[REMINDER].render(form=form)
        completion = await judges.ask(prompt, member, parse, sample, reminder=reminder, schema=self.schema, **params)
        if completion is None:
            return None

        # 3. With log-probabilities, points are expected values (Deita).
        points: Points | None = completion.value
        if self.options.logprobs:
            points = judges.probable(completion, expected_points(completion, labels, self.most))
        if points is None:
            return None
        label_of = dict(zip(order, labels, strict=True))
        return [{aspect: points[label_of[at], aspect] for aspect in self.most} for at in range(len(order))]

    def bound_of_judge(self, record: Record) -> int:
        return self.options.samples


def expected_points(completion: Completion, labels: Sequence[str], most: Mapping[str, int]) -> Points | None:
    """Return the expected points of every answer under every aspect; None if the probabilities of some are not
    known. The arguments are those of `read_points`."""
    points: Points = {}
    for (label, aspect), entry in find_points(completion.text, labels, most).items():
        expected = None if entry.start is None else expected_value(completion, entry.start, most[aspect])
        if expected is None:
            return None
        points[label, aspect] = expected
    return points
