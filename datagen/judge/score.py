"""Scoring answers by rubrics: one point for each statement that is true of an answer.

The additive rubric of Self-Rewarding Language Models (arXiv 2401.10020): picking one of five descriptions agrees with
people far less. All answers of a prompt and all aspects stand in one call, the answers in drawn order (UltraFeedback,
arXiv 2310.01377): scored one by one, nearly all get the same. The score of an aspect is the mean over `--samples`
calls, and with `--logprobs` the expected value over the probabilities of the score's token instead of the one sampled
(Deita, arXiv 2312.15685). What cannot be read is no score: null, never a number.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from datagen.engine.method import Method, Table
from datagen.engine.options import option
from datagen.errors import ParseError
from datagen.judge.agreement import keep_checks, next_command, table
from datagen.judge.judging import (
    ROLES,
    ByRubric,
    Judging,
    allow_self_option,
    check_option,
    logprobs_option,
    panel_option,
    rubric_identity,
    rubric_option,
    shown_answers,
    statements,
)
from datagen.judge.labels import draw_labels
from datagen.judge.probabilities import ASKED, expected_value
from datagen.llm.call import Completion
from datagen.llm.model import Roles
from datagen.prompts import Prompts
from datagen.records.ranked import SAMPLES
from datagen.records.record import Candidate, Record, Row

SCORE = "judge/score"
Points = dict[tuple[str, str], float]
"""(label, aspect) to points."""


@dataclass(frozen=True)
class Options(ByRubric):
    """What scoring can be told."""

    rubric: list[str] = rubric_option()
    panel: bool = panel_option()
    allow_self: bool = allow_self_option()
    check: bool = check_option()
    samples: int = option(1, "score: calls for each prompt, whose points are averaged.", least=1, most=100)
    logprobs: bool = logprobs_option()


async def points(judging: Judging, member: int, sample: int) -> list[dict[str, float]] | None:
    """Ask a judge for the points of all answers: aspect to points, for each answer; None if it cannot be read."""
    order = list(range(len(judging.answers)))
    random = judging.record.random(f"order, sample {sample}")
    random.shuffle(order)
    labels = draw_labels(random, judging.answers)
    most = {aspect: len(statements(rubric)) for aspect, rubric in judging.rubrics.items()}
    prompt = judging.prompts[SCORE].render(
        rubrics="\n\n".join(
            f"Aspect {name}:\n" + bullets(statements(rubric)) for name, rubric in judging.rubrics.items()
        ),
        form="\n".join(f"{label} {aspect}: (0 to {top})" for label in labels for aspect, top in most.items()),
        prompt=judging.request,
        reference=judging.reference,
        answers=shown_answers(labels, [judging.answers[at] for at in order]),
    )
    more: dict[str, Any] = {"temperature": 1} if judging.options.samples > 1 else {}
    more |= ASKED if judging.options.logprobs else {}
    said = await judging.ask(prompt, member, lambda text: read_points(text, labels, most), sample, **more)
    if said is None:
        return None
    found = expected_points(said, labels, most) if judging.options.logprobs else said.value
    of = dict(zip(order, labels, strict=True))
    return [{aspect: found[of[at], aspect] for aspect in most} for at in range(len(order))]


def bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def score_lines(text: str, labels: Sequence[str], most: Mapping[str, int]) -> dict[tuple[str, str], re.Match[str]]:
    """Find the last line that gives points to each answer under each aspect."""
    found: dict[tuple[str, str], re.Match[str]] = {}
    known = {label.lower(): label for label in labels}, {aspect.lower(): aspect for aspect in most}
    line = re.compile(
        r"^[\s*_`>-]*(\w+)[\s*_`]+([\w-]+)[\s*_`]*[:=：][\s*_`]*(\d{1,3}(?:\.\d{1,3})?)[\s*_`]*(?:/\s*\d+)?[\s*_`.]*$",
        re.M,
    )
    for match in line.finditer(text):
        label, aspect = known[0].get(match[1].lower()), known[1].get(match[2].lower())
        if label and aspect and float(match[3]) <= most[aspect]:
            found[label, aspect] = match
    return found


def read_points(text: str, labels: Sequence[str], most: Mapping[str, int]) -> Points:
    """Read the points of every answer under every aspect; all must be there."""
    found = score_lines(text, labels, most)
    missing = [f"{label} {aspect}" for label in labels for aspect in most if (label, aspect) not in found]
    if missing:
        raise ParseError(f"no points for {', '.join(missing)}")
    return {key: float(match[3]) for key, match in found.items()}


def expected_points(said: Completion, labels: Sequence[str], most: Mapping[str, int]) -> Points:
    """Replace each number of points by its expected value, where the probabilities of its token are known."""
    found = score_lines(said.text, labels, most)
    made: Points = {}
    for (label, aspect), match in found.items():
        expected = expected_value(said, match.start(3), most[aspect])
        made[label, aspect] = float(match[3]) if expected is None else expected
    return made


async def by_score(record: Record, llm: Roles, prompts: Prompts, options: Options) -> AsyncIterator[Candidate]:
    """Yield the ranked row of a record."""
    judging = Judging(record, llm, prompts, "score", options, templates=(SCORE,), extra={"disagreement": None})

    async def judge() -> Candidate:
        calls = [points(judging, member, sample) for member in judging.judges for sample in range(options.samples)]
        said = [each for each in await asyncio.gather(*calls) if each is not None]
        return judging.ranked(combine(judging, said))

    yield await judging.concluded(judge)


def combine(judging: Judging, said: list[list[dict[str, float]]]) -> list[float | None]:
    """Average over calls and aspects; note the aspects, and how far the calls lie apart."""
    answers = range(len(judging.answers))
    if not said:
        judging.told = [{"aspects": dict.fromkeys(judging.rubrics)} for _ in answers]
        return [None for _ in answers]
    aspects = [
        {aspect: round(fmean(each[at][aspect] for each in said), 4) for aspect in judging.rubrics} for at in answers
    ]
    scores = [[fmean(each[at].values()) for each in said] for at in answers]
    apart = [max(values) - min(values) for values in scores]
    judging.told = [{"aspects": each} for each in aspects]
    judging.extra = {"disagreement": round(fmean(apart), 4)}
    return [fmean(values) for values in scores]


class Score(Method):
    """score."""

    name = "judge"
    variant = "score"
    options_type = Options
    options: Options
    unique = ("prompt", "responses")
    roles = ROLES
    templates = (SCORE,)
    kind = SAMPLES

    def generate(self, record: Record, llm: Roles) -> AsyncIterator[Candidate]:
        return by_score(record, llm, self.prompts, self.options)

    def identity(self) -> dict[str, Any]:
        return rubric_identity(self.options.rubric, self.prompts)

    def bound(self, record: Record) -> int:
        return self.options.samples

    @property
    def next_command(self) -> str:
        return next_command(self.options)

    def table(self) -> Table:
        return table(self.options)

    def finish(self, result: Row) -> None:
        keep_checks(self.options, result)
