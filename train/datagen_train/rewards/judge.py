"""A reward that is a language model's judgement: points by a rubric, as `datagen judge --by score` gives them.

The answers to one prompt that are scored together stand in one call, up to TOGETHER of them: a judge that sees them
one by one gives nearly all of them the same (UltraFeedback, arXiv 2310.01377). Replies are recorded in the working
folder, so a run that goes on pays for none twice. What the judge does not say is no score, never a number.
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
from datagen.judge import score
from datagen.judge.agreement import describe_judge, judge_key
from datagen.judge.judges import Judges
from datagen.llm.model import Roles
from datagen.llm.spec import parse_spec
from datagen.llm.stack import Stack, StackOptions, build_stack
from datagen.prompts import Prompts
from datagen.records.record import Record, Text
from datagen_train.errors import TrainingStopped
from datagen_train.rewards.service import Score, said

RUBRIC, TIMEOUT = "helpful", 600.0
"""Where none is named; seconds to wait for one judgement."""
TOGETHER = 8
"""Answers to a prompt that a judge sees at once."""
SPEC = re.compile(r"(?:([\w./-]+)=)?(.+)", re.DOTALL)


class JudgeReward:
    """A model that is asked for points: one for each statement of the rubric that holds."""

    def __init__(self, spec: str) -> None:
        """`spec` is MODEL or RUBRIC=MODEL; nothing is sent."""
        found = SPEC.fullmatch(spec)
        if found is None:
            raise InputError("--reward judge: name a model: judge:MODEL, or judge:RUBRIC=MODEL")
        self._spec = parse_spec(found[2])
        self._method = score.Score(score.Options(rubric=[found[1] or RUBRIC], allow_self=True), Prompts())
        self.judge_key = judge_key([self._spec.identity], "score", self._method.judging_digest)
        """The key of a check of this judge (`datagen judge --check`)."""
        self._thread = ThreadPoolExecutor(1, "judge")  # the journal and the client live in one thread and its loop
        self._runner = asyncio.Runner()
        self._stack: Stack | None = None

    @property
    def belief(self) -> str:
        """How far this judge can be believed."""
        name, accuracy = describe_judge(self.judge_key)
        return f"{name}, accuracy against people: {accuracy}"

    def __call__(
        self, prompts: Sequence[Text], completions: Sequence[Any], record: Sequence[Record], **_: Any
    ) -> list[Score]:
        answers = [said(each) for each in completions]
        return self._thread.submit(lambda: self._runner.run(self._score(record, answers))).result()

    def close(self) -> None:
        """Send nothing more, and let go of journal, client and thread."""
        if self._stack:
            self._runner.get_loop().call_soon_threadsafe(self._stack.stop.now, "interrupted")
            self._thread.submit(lambda stack: self._runner.run(stack.close()), self._stack).result()
        self._thread.submit(self._runner.close).result()
        self._thread.shutdown()

    async def _score(self, records: Sequence[Record], answers: Sequence[str]) -> list[Score]:
        scores: list[Score] = [None] * len(answers)
        groups = together(records)
        await asyncio.gather(*(self._fill(scores, each, records[each[0]], answers) for each in groups))
        return scores

    async def _fill(self, scores: list[Score], places: list[int], record: Record, answers: Sequence[str]) -> None:
        asked = replace(record, responses=tuple(answers[at] for at in places))
        for at, points in zip(places, await self._points(asked), strict=True):
            scores[at] = points

    async def _points(self, record: Record) -> list[Score]:
        """Return the points of each of a record's answers."""
        stack = self._opened()
        roles = Roles(stack.models, record, {})
        try:
            told = await self._method.points(Judges(record, roles, allow_self=True), 0, 0)
        except CallFailed:
            told = None
        except Stopped:
            raise stack.stop.error or TrainingStopped("the judge was stopped") from None
        return [None] * len(record.responses) if told is None else [sum(each.values()) for each in told]

    def _opened(self) -> Stack:
        """Open the layers on first use, in the loop that they will run in."""
        if self._stack is None:
            told = StackOptions(Path(), max_calls=None, concurrency=None, timeout=TIMEOUT)
            self._stack = build_stack({"judge": [self._spec]}, told)
        return self._stack


def together(records: Sequence[Record]) -> list[list[int]]:
    """Gather the places of answers to one prompt, in groups of at most TOGETHER."""
    places: dict[str, list[int]] = defaultdict(list)
    for at, record in enumerate(records):
        places[record.id].append(at)
    return [each[at : at + TOGETHER] for each in places.values() for at in range(0, len(each), TOGETHER)]
