"""`datagen train score`: rank samples by whatever gives rewards, as `datagen judge` ranks them by what a model says.

A reward model, a classifier, a function, a verifier, a service, or a sum of them (rewards.py) scores every answer; what
comes out are ranked rows, for `datagen pairs` and for `datagen train reward`: best-of-n pairs, a refresh of the reward
model, or the samples of a policy beside what their reward says of them. An answer that one of the rewards has no score
for has none: null, and it ranks last. Nothing is invented for it, and a row with no score at all is dropped.

Answers of many rows are scored together. A function of your own that looks at the whole batch would see another one
whenever the input changes: score each answer by itself. It gets no `completion_ids`, for here are only texts.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import Any

from datagen.commands.flags import fill_options
from datagen.commands.run import run_method
from datagen.engine.method import Method, Table
from datagen.engine.options import RunOptions, option
from datagen.judge.judge_method import DIGITS, ranked_row, ranking_order, subject_of
from datagen.llm.model import Roles
from datagen.prompts import Prompts
from datagen.records.ranked import SAMPLES
from datagen.records.record import Candidate, Record, reject
from datagen_train.rewards.specs import REWARD_HELP, Rewards, identity

BATCH = 256
"""Rows whose answers are scored together."""
Score = float | None


@dataclass(frozen=True)
class Options:
    """What scoring can be told."""

    reward: list[str] = option([], REWARD_HELP)


@dataclass(frozen=True)
class RowScores:
    """What the rewards said of a row's answers."""

    total: list[Score]
    parts: list[dict[str, Score]]
    """For each answer, reward to score."""


class Scorer:
    """Ranks the answers of rows; rows that come while others are being scored are scored together."""

    def __init__(self, specs: Sequence[str], opened: ExitStack) -> None:
        """`specs` as Rewards takes them; what they hold on to is let go of with `opened`."""
        self._specs, self._opened, self.names = specs, opened, list[str]()
        self._rewards: Rewards
        self._waiting: list[tuple[Record, asyncio.Future[RowScores]]] = []
        self._worker: asyncio.Task[None] | None = None

    def load(self) -> None:
        """Load what scores; raise InputError for what cannot be had."""
        self._rewards, self.names = self._opened.enter_context(Rewards(self._specs)), identity(self._specs)

    async def rank(self, record: Record, llm: Roles, prompts: Prompts, options: Options) -> AsyncIterator[Candidate]:
        """Yield the ranked row."""
        said = await self.score(record)
        order = ranking_order(said.total)  # the order of the input where there is no score
        answers = record.meta.get("responses") or [{} for _ in record.responses]
        meta = {
            "method": "judge",
            "op": "reward",
            "pass": record.pass_no,
            **record.lineage,
            "judges": self.names,
            "responses": [answers[at] | {"rewards": said.parts[at]} for at in order],
        }
        if all(score is None for score in said.total):
            yield reject("no_score", stage="score", record=subject_of(record), reply=None, meta=meta)
        else:
            yield ranked_row(record, "reward", said.total, order, meta)

    async def score(self, record: Record) -> RowScores:
        """Score a row's answers; whatever goes wrong in its batch is raised."""
        scored: asyncio.Future[RowScores] = asyncio.get_running_loop().create_future()
        self._waiting.append((record, scored))
        if self._worker is None:
            self._worker = asyncio.get_running_loop().create_task(self._work())
        return await scored

    async def _work(self) -> None:
        await asyncio.sleep(0)  # whoever may begin has come by then
        while self._waiting:
            batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            try:
                made = await asyncio.to_thread(self._score, [record for record, _ in batch])
            except Exception as error:
                for _, scored in batch:
                    scored.set_exception(error)
            else:
                for (_, scored), row in zip(batch, made, strict=True):
                    scored.set_result(row)
        self._worker = None

    def _score(self, records: Sequence[Record]) -> list[RowScores]:
        pairs = [(record, answer) for record in records for answer in record.responses]
        said = self._rewards.score([row for row, _ in pairs], [answer for _, answer in pairs], [[] for _ in pairs])
        parts = [dict(zip(said.parts, column, strict=True)) for column in zip(*said.parts.values(), strict=True)]
        made, at = [], 0
        for record in records:
            end = at + len(record.responses)
            made.append(RowScores(said.total[at:end], parts[at:end]))
            at = end
        return made


class RewardTable:
    """What the rewards gave: the mean says how the policy does that wrote the answers, the spread within a prompt
    whether there is anything to learn from."""

    def __init__(self) -> None:
        self.rows: list[list[float]] = []
        self.answers = 0

    def add(self, candidate: Candidate) -> None:
        if candidate.status == "kept":
            self.answers += len(candidate.row["scores"])
            self.rows.append([score for score in candidate.row["scores"] if score is not None])

    def as_dict(self) -> dict[str, Any]:
        scores = [score for row in self.rows for score in row]
        if not scores:
            return {}
        return {
            "rows": len(self.rows),
            "answers": self.answers,
            "unscored": self.answers - len(scores),
            "mean": round(fmean(scores), DIGITS),
            "best": round(fmean(map(max, self.rows)), DIGITS),
            "spread": round(fmean(map(pstdev, self.rows)), DIGITS),
        }

    def tables(self) -> list[list[list[str]]]:
        told = self.as_dict()
        heading = ["rows", "answers", "without a score", "mean reward", "of the best answers", "spread within a row"]
        return [[heading, [str(value) for value in told.values()]]] if told else []


class RewardRanking(Method):
    """Rank the answers of a row by their rewards."""

    name, variant = "score", "reward"
    options_type = Options
    options: Options
    next_command = "datagen pairs {}"
    unique = ("prompt", "responses")
    kind = SAMPLES

    def __init__(self, options: Any, prompts: Prompts) -> None:
        super().__init__(options, prompts)
        self.scorer = Scorer(options.reward, OPENED)

    def check(self) -> None:
        self.scorer.load()

    def identity(self) -> dict[str, Any]:
        return {"reward": identity(self.options.reward)}

    def generate(self, record: Record, llm: Roles) -> AsyncIterator[Candidate]:
        return self.scorer.rank(record, llm, self.prompts, self.options)

    def table(self) -> Table:
        return RewardTable()


OPENED = ExitStack()


def run(values: dict[str, Any]) -> int:
    """Run the command from the values of its flags; return the exit code."""
    options, run_options = fill_options(Options, values), fill_options(RunOptions, values)
    with OPENED:
        return run_method(RewardRanking, values["input"], options, run_options, {})
