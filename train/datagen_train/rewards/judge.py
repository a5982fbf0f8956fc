"""A language model as a reward: it gives points by a rubric, as `datagen judge --by score` does.

Answers to one prompt that are scored together go into one call, up to TOGETHER of them: a judge that sees them one by
one gives nearly all of them the same points (UltraFeedback, arXiv 2310.01377). Replies are recorded in the working
folder, so a resumed run pays for none of them again. A reply that cannot be read is no score, never a number.
"""

import asyncio
import re
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from datagen.errors import CallFailed, InputError, Stopped
from datagen.judges import score
from datagen.judges.agreement import describe_judge, judge_key
from datagen.judges.judges import Judges
from datagen.llm.model import Roles
from datagen.llm.spec import Spec, parse_spec
from datagen.llm.stack import Stack, StackOptions, build_stack
from datagen.prompts import Prompts
from datagen.records.record import Record, Text
from datagen_train.errors import TrainingStopped
from datagen_train.rewards.functions import Score, completion_text

RUBRIC = "helpful"
"""The rubric where the spec names none."""
TIMEOUT = 600.0
"""Seconds to wait for a reply."""
TOGETHER = 8
"""Answers to one prompt that a judge sees in one call."""
SPEC = re.compile(r"(?:([\w./-]+)=)?(.+)", re.DOTALL)


class JudgeReward:
    """A reward of TRL's protocol: one point for each statement of the rubric that a judge finds true of the answer.

    Args:
        spec: MODEL or RUBRIC=MODEL. Nothing is sent before the first call.

    Raises:
        InputError: The spec names no model, or an unknown rubric.
    """

    def __init__(self, spec: str) -> None:
        rubric, self._spec = split_spec(spec)
        # Whether it may judge a policy is known before the first step (run/impartial.py).
        self._method = score.Score(score.Options(rubric=[rubric], allow_self=True), Prompts())
        self.judge_key = judge_key([self._spec.identity], "score", self._method.judging_digest)
        """The key of a check of this judge (`datagen judge --check`)."""
        self._thread = ThreadPoolExecutor(1, "judge")  # journal and client belong to one thread and its event loop
        self._runner = asyncio.Runner()
        self._stack: Stack | None = None

    @property
    def agreement(self) -> str:
        """The judge's name and its measured agreement with people."""
        name, accuracy = describe_judge(self.judge_key)
        return f"{name}, accuracy against people: {accuracy}"

    def __call__(
        self, prompts: Sequence[Text], completions: Sequence[Any], record: Sequence[Record], **_: Any
    ) -> list[Score]:
        answers = [completion_text(completion) for completion in completions]
        return self._thread.submit(lambda: self._runner.run(self._score(record, answers))).result()

    def close(self) -> None:
        """Send nothing more; close journal, client and thread."""
        if self._stack:
            self._runner.get_loop().call_soon_threadsafe(self._stack.stop.now, "interrupted")
            self._thread.submit(lambda stack: self._runner.run(stack.close()), self._stack).result()
        self._thread.submit(self._runner.close).result()
        self._thread.shutdown()

    async def _score(self, records: Sequence[Record], answers: Sequence[str]) -> list[Score]:
        """Score all answers, those to one prompt in groups, all groups concurrently."""
        scores: list[Score] = [None] * len(answers)

        async def score_group(indices: list[int]) -> None:
            group = replace(records[indices[0]], responses=tuple(answers[i] for i in indices))
            for i, points in zip(indices, await self._points(group), strict=True):
                scores[i] = points

        await asyncio.gather(*map(score_group, group_by_prompt(records)))
        return scores

    async def _points(self, record: Record) -> list[Score]:
        """Return the points of each of a record's responses, in one call."""
        if self._stack is None:  # it is built in the event loop that it runs in
            options = StackOptions(Path(), max_calls=None, concurrency=None, timeout=TIMEOUT)
            self._stack = build_stack({"judge": [self._spec]}, options)
        roles = Roles(self._stack.models, record, {})
        try:
            aspects = await self._method.points(Judges(record, roles, allow_self=True), 0, 0)
        except CallFailed:
            aspects = None
        except Stopped:
            raise self._stack.stop.error or TrainingStopped("the judge was stopped") from None
        return [None] * len(record.responses) if aspects is None else [sum(points.values()) for points in aspects]


def split_spec(spec: str) -> tuple[str, Spec]:
    """Return the rubric and the model of a spec, MODEL or RUBRIC=MODEL; InputError if it names no model."""
    match = SPEC.fullmatch(spec)
    if match is None:
        raise InputError("--reward judge: name a model: judge:MODEL, or judge:RUBRIC=MODEL")
    return match[1] or RUBRIC, parse_spec(match[2])


def group_by_prompt(records: Sequence[Record]) -> list[list[int]]:
    """Return the indices of answers to one prompt, in groups of at most TOGETHER."""
    indices: dict[str, list[int]] = defaultdict(list)
    for i, record in enumerate(records):
        indices[record.id].append(i)
    return [group[at : at + TOGETHER] for group in indices.values() for at in range(0, len(group), TOGETHER)]
