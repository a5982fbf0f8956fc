"""Scoring answers by rubrics: one point for each statement that is true of an answer.

The additive rubric of Self-Rewarding Language Models (arXiv 2401.10020): picking one of five descriptions agrees with
people far less. All answers of a prompt and all aspects stand in one call, the answers in random order (UltraFeedback,
arXiv 2310.01377): scored one by one, nearly all get the same. The score of an aspect is the mean over `--samples`
calls, and with `--logprobs` the expected value over the probabilities of the score's token instead of the one sampled
(Deita, arXiv 2312.15685). Where a reply cannot be read, the score is null, never a number.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any

from datagen.engine.options import option
from datagen.errors import ParseError
from datagen.judge.judge_method import CHECK, DIGITS, LOGPROBS, Judgement, JudgeOptions, ModelJudge, statements
from datagen.judge.judges import Judges, draw_labels, label_texts
from datagen.judge.replies import TOP_LOGPROBS, expected_value
from datagen.records.record import Record

SCORE = "judge/score"
SCORE_LINE = re.compile(
    r"^[\s*_`>-]*(\w+)[\s*_`]+([\w-]+)[\s*_`]*[:=：][\s*_`]*(\d{1,3}(?:\.\d{1,3})?)[\s*_`]*(?:/\s*\d+)?[\s*_`.]*$",
    re.M,
)
"""`K7M helpful: 3`: label, aspect and points, possibly with Markdown around them and `/5` after them."""
Points = dict[tuple[str, str], float]
"""(label, aspect) to points."""


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
    templates = (SCORE,)
    details = {"disagreement": None}
    least_answers = 1

    async def judge(self, judges: Judges) -> Judgement:
        """Average the points of all calls; one call scores all answers under all aspects."""
        # 1. Ask every judge `--samples` times.
        samples = range(self.options.samples)
        replies = await asyncio.gather(
            *(self.points(judges, member, sample) for member in judges.members for sample in samples)
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
        rubrics = {aspect: statements(rubric) for aspect, rubric in self.rubrics.items()}
        most = {aspect: len(lines) for aspect, lines in rubrics.items()}
        prompt = self.prompts[SCORE].render(
            rubrics="\n\n".join(
                f"Aspect {aspect}:\n" + "\n".join(f"- {line}" for line in lines) for aspect, lines in rubrics.items()
            ),
            form="\n".join(f"{label} {aspect}: (0 to {top})" for label in labels for aspect, top in most.items()),
            prompt=judges.request,
            reference=judges.reference,
            answers=label_texts(labels, [judges.answers[at] for at in order]),
        )

        # 2. Ask; a reply must hold points for each answer under each aspect.
        params: dict[str, Any] = {"temperature": 1} if self.options.samples > 1 else {}
        params |= TOP_LOGPROBS if self.options.logprobs else {}
        parse = partial(read_points, labels=labels, most=most)
        completion = await judges.ask(prompt, member, parse, sample, **params)
        if completion is None:
            return None

        # 3. With log-probabilities, points are expected values (Deita).
        points: Points = dict(completion.value)
        if self.options.logprobs:
            for (label, aspect), match in score_lines(completion.text, labels, most).items():
                expected = expected_value(completion, match.start(3), most[aspect])
                points[label, aspect] = points[label, aspect] if expected is None else expected
        label_of = dict(zip(order, labels, strict=True))
        return [{aspect: points[label_of[at], aspect] for aspect in most} for at in range(len(order))]

    def bound(self, record: Record) -> int:
        return self.options.samples


def score_lines(text: str, labels: Sequence[str], most: Mapping[str, int]) -> dict[tuple[str, str], re.Match[str]]:
    """Return the last line that gives points to an answer under an aspect, for each (label, aspect)."""
    known_labels = {label.lower(): label for label in labels}
    known_aspects = {aspect.lower(): aspect for aspect in most}
    lines: dict[tuple[str, str], re.Match[str]] = {}
    for match in SCORE_LINE.finditer(text):
        label, aspect = known_labels.get(match[1].lower()), known_aspects.get(match[2].lower())
        if label and aspect and float(match[3]) <= most[aspect]:
            lines[label, aspect] = match
    return lines


def read_points(text: str, labels: Sequence[str], most: Mapping[str, int]) -> Points:
    """Read the points of every answer under every aspect.

    Args:
        text: A judge's reply.
        labels: The labels of the answers.
        most: Aspect to the most points that it allows; a line with more is ignored.

    Raises:
        ParseError: Some points are missing.
    """
    lines = score_lines(text, labels, most)
    missing = [f"{label} {aspect}" for label in labels for aspect in most if (label, aspect) not in lines]
    if missing:
        raise ParseError(f"no points for {', '.join(missing)}")
    return {key: float(match[3]) for key, match in lines.items()}
