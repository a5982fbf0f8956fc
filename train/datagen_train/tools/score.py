"""`datagen train score`: rank samples by rewards, as `datagen judge` ranks them by a judge.

Every answer is scored by a reward model, a classifier, a function, a verifier, a service, or a weighted sum of them
(rewards/specs.py). The output is ranked rows for `datagen pairs` and `datagen train reward`: for best-of-n pairs, to
refresh the reward model, or to look at the samples of a policy with their rewards. An answer that one of the rewards
gives no score has no score (null) and ranks last; a row without any score is rejected.

Answers of many rows are scored together. A function of yours must score each answer by itself: the rest of its batch
changes with the input. It gets empty `completion_ids`, since there are only texts.

The rewards, which need torch, are imported when the command runs: its help does not need them.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, Any

from datagen.commands.flags import fill_options
from datagen.commands.run import run_method
from datagen.engine.method import Method, Table
from datagen.engine.options import RunOptions
from datagen.judges.judge_method import DIGITS, ranked_row, ranking_order
from datagen.judges.judges import answer_metas, impartial
from datagen.llm.model import Roles
from datagen.records.ranked import SAMPLES
from datagen.records.record import Candidate, Record, reject
from datagen_train.tools.options import ScoreOptions

if TYPE_CHECKING:
    from datagen_train.rewards.functions import Score
    from datagen_train.rewards.specs import Rewards

BATCH = 256
"""Rows whose answers are scored together."""


@dataclass(frozen=True)
class RowScores:
    """The scores of a row's answers, in the order of the input."""

    total: "list[Score]"
    parts: "list[dict[str, Score]]"
    """For each answer, name of the reward to its score."""


class BatchScorer:
    """Scores rows in batches: rows that come while others are being scored form the next batch.

    Args:
        rewards: What scores the answers.
    """

    def __init__(self, rewards: "Rewards") -> None:
        self._rewards = rewards
        self._waiting: list[tuple[Record, asyncio.Future[RowScores]]] = []
        self._worker: asyncio.Task[None] | None = None

    async def score(self, record: Record) -> RowScores:
        """Score a row's answers; an error in its batch is raised."""
        future: asyncio.Future[RowScores] = asyncio.get_running_loop().create_future()
        self._waiting.append((record, future))
        if self._worker is None:
            self._worker = asyncio.get_running_loop().create_task(self._work())
        return await future

    async def _work(self) -> None:
        await asyncio.sleep(0)  # let all rows that are ready join the first batch
        while self._waiting:
            batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            try:
                scores = await asyncio.to_thread(self._score, [record for record, _ in batch])
            except Exception as error:
                for _, future in batch:
                    future.set_exception(error)
            else:
                for (_, future), row_scores in zip(batch, scores, strict=True):
                    future.set_result(row_scores)
        self._worker = None

    def _score(self, records: Sequence[Record]) -> list[RowScores]:
        pairs = [(record, answer) for record in records for answer in record.responses]
        scored = self._rewards.score([row for row, _ in pairs], [answer for _, answer in pairs], [[] for _ in pairs])
        parts = [dict(zip(scored.parts, column, strict=True)) for column in zip(*scored.parts.values(), strict=True)]
        rows, start = [], 0
        for record in records:
            end = start + len(record.responses)
            rows.append(RowScores(scored.total[start:end], parts[start:end]))
            start = end
        return rows


class RewardTable(Table):
    """The rewards of the rows: the mean measures the policy that wrote the answers; without spread within a row there
    is nothing to learn from."""

    def __init__(self) -> None:
        self.rows: list[list[float]] = []
        """The scores of each row's answers, those without a score left out."""
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
        counts = self.as_dict()
        heading = ["rows", "answers", "without a score", "mean reward", "of the best answers", "spread within a row"]
        return [[heading, [str(value) for value in counts.values()]]] if counts else []


class RewardRanking(Method):
    """Rank the answers of a row by their rewards."""

    name, variant = "score", "reward"
    options_type = ScoreOptions
    options: ScoreOptions
    table_type = RewardTable
    unique = ("prompt", "responses")
    kind = SAMPLES
    reasons = {
        "no_score": "No answer of the row got a score from --reward.",
        "no_impartial_judge": "A judge of --reward is of the model family of an answer. Name another, or --allow-self.",
    }

    def check(self) -> None:
        """Load the rewards; raise InputError if one cannot be loaded."""
        from datagen_train.rewards.specs import Rewards
        from datagen_train.run.impartial import judges_of

        self.judging = [judge.identity for judge in judges_of(self.options.reward)]
        self.scorer = BatchScorer(OPEN_REWARDS.enter_context(Rewards(self.options.reward)))
        self.judges = self.identity()["reward"]

    def identity(self) -> dict[str, Any]:
        from datagen_train.rewards.specs import identity

        return {"reward": identity(self.options.reward)}

    def is_partial(self, record: Record) -> bool:
        """Return whether a judge among the rewards is of the family of an author."""
        authors = [str(answer["model"]) for answer in answer_metas(record) if answer.get("model")]
        fit = impartial(self.judging, authors, allow_self=self.options.allow_self)
        return len(fit) < len(self.judging)

    def conflict(self, record: Record, llm: Roles) -> str | None:
        return self.reasons["no_impartial_judge"].rstrip(".") if self.is_partial(record) else None

    async def generate(self, record: Record, llm: Roles) -> AsyncIterator[Candidate]:
        """Yield the ranked row, or reject it where no answer has a score."""
        if self.is_partial(record):
            meta = self.row_meta(record, method="judge", judges=self.judges, responses=answer_metas(record))
            yield reject("no_impartial_judge", stage="score", record=record.row, reply=None, meta=meta)
            return
        scores = await self.scorer.score(record)
        order = ranking_order(scores.total)  # the order of the input where there is no score
        answers = record.meta.get("responses") or [{} for _ in record.responses]
        meta = self.row_meta(
            record,
            method="judge",
            judges=self.judges,
            responses=[answers[index] | {"rewards": scores.parts[index]} for index in order],
        )
        if all(score is None for score in scores.total):
            yield reject("no_score", stage="score", record=record.row, reply=None, meta=meta)
        else:
            yield ranked_row(record, "reward", scores.total, order, meta)


OPEN_REWARDS = ExitStack()
"""Closes what the rewards keep open, such as a judge's journal, at the end of the command."""


def run(values: dict[str, Any]) -> int:
    """Run the command from the values of its flags; return the exit code."""
    options, run_options = fill_options(ScoreOptions, values), fill_options(RunOptions, values)
    with OPEN_REWARDS:
        return run_method(RewardRanking, values["input"], options, run_options, {})
