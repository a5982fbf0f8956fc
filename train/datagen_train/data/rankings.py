"""Ranked rows as the examples of a reward model: one example is a prompt with all of its answers.

Every answer ends in the token where its score is read, the end token, in training and in use; an answer that is too
long is cut and gets it as its last token. What cannot be compared is left out and counted: answers without a score,
answers that repeat another one, prompts without any comparison.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import NamedTuple

import numpy as np

from datagen.records.ranked import Ranked
from datagen.records.record import Row, Text, as_messages
from datagen_train.data.encode import Encoded, Encoder, answered
from datagen_train.errors import UnusableRow
from datagen_train.models.reward_model import TokenIds, end_token
from datagen_train.models.tokens import TokenSequence

UNKNOWN = "unknown"
"""The source of a row that names none."""


class Comparison(NamedTuple):
    """Two answers to one prompt, as indices into its answers."""

    better: int
    worse: int
    target: float = 1.0
    """Probability that `better` is better; 1/2 for a tie."""
    margin: float = 0.0


@dataclass(frozen=True, slots=True)
class EncodedRanking:
    """A prompt with its answers."""

    answers: tuple[TokenIds, ...]
    """Prompt and answer, up to the end token."""
    lengths: tuple[int, ...]
    """Tokens of the answers alone."""
    comparisons: tuple[Comparison, ...]
    best: int
    """Index of the best answer."""
    source: str
    """Where the row comes from, for the report."""
    cut: bool = False

    def size(self) -> tuple[int, int, bool]:
        """Return (tokens of all sequences, tokens that are scored, cut)."""
        return sum(map(len, self.answers)), len(self.answers), self.cut


class EncodedAnswer(NamedTuple):
    """One answer that can be compared."""

    place: int
    """Its index among the row's responses."""
    ids: TokenSequence
    length: int
    """Tokens of the answer alone."""
    cut: bool


def scored_ids(
    encoder: Encoder, prompt: Text, response: str, tools: Sequence[Row] = ()
) -> tuple[TokenSequence, int, bool]:
    """Return (ids, tokens of the answer, cut?); the last id is the token where the score is read."""
    encoded = encoder.whole([*as_messages(prompt), {"role": "assistant", "content": response}], tools)
    ids = [*encoded.ids[:-1], end_token(encoder.tokenizer)] if encoded.cut else encoded.ids
    return ids, encoded.trained, encoded.cut


@dataclass
class RankingEncoder:
    """Encodes ranked rows, and counts the answers that it leaves out."""

    encoder: Encoder
    ties: str = "skip"
    """What to do with equal ranks: skip, or soft (a comparison with target 1/2)."""
    margin: float = 0.0
    """Factor of the margins."""
    left_out: Counter[str] = field(default_factory=Counter)

    def encode(self, row: Ranked) -> EncodedRanking:
        """Encode a row; raise UnusableRow if there is nothing to compare."""
        answers = self._answers(row)
        if len(answers) < 2:
            raise UnusableRow("fewer than two different answers that can be used")
        comparisons = tuple(self._compare(row, [answer.place for answer in answers]))
        if not comparisons:
            raise UnusableRow("all answers tie")
        sources = (row.extra.get("source"), row.meta.get("source"), row.meta.get("method"), row.meta.get("model"))
        return EncodedRanking(
            answers=tuple(np.array(answer.ids, dtype=np.int32) for answer in answers),
            lengths=tuple(answer.length for answer in answers),
            comparisons=comparisons,
            best=min(range(len(answers)), key=lambda i: row.ranks[answers[i].place]),
            source=next((name for name in sources if isinstance(name, str) and name), UNKNOWN),
            cut=any(answer.cut for answer in answers),
        )

    def _answers(self, row: Ranked) -> list[EncodedAnswer]:
        """Encode the answers that can be compared; count the others."""
        answers: dict[bytes, EncodedAnswer] = {}
        unusable: UnusableRow | None = None
        for index, response in enumerate(row.responses):
            if row.scores is not None and row.scores[index] is None:
                self.left_out["no score"] += 1
                continue
            try:
                answer = EncodedAnswer(index, *scored_ids(self.encoder, row.prompt, response, row.tools))
            except UnusableRow as reason:
                self.left_out[str(reason)] += 1
                unusable = reason
                continue
            key = np.array(answer.ids, dtype=np.int32).tobytes()
            if key in answers:
                self.left_out["the same as another answer"] += 1
            else:
                answers[key] = answer
        if not answers and unusable is not None:
            raise unusable
        return list(answers.values())

    def _compare(self, row: Ranked, indices: Sequence[int]) -> list[Comparison]:
        """Return the comparisons of all pairs of answers: C(K,2), less the ties."""
        comparisons = []
        target = 1.0 if row.soft_label is None else row.soft_label
        for one, other in combinations(range(len(indices)), 2):
            first, second = row.ranks[indices[one]], row.ranks[indices[other]]
            if first == second or target == 0.5:
                comparisons += [Comparison(one, other, 0.5)] if self.ties == "soft" else []
                continue
            better, worse = (one, other) if (first < second) == (target > 0.5) else (other, one)
            margin = self.margin * _margin(row, indices[better], indices[worse]) if self.margin else 0.0
            comparisons.append(Comparison(better, worse, max(target, 1 - target), margin))
        return comparisons


def _margin(row: Ranked, better: int, worse: int) -> float:
    """Return by how much an answer is better: the row's margin, else the difference of its scores, else 0."""
    if row.margin is not None:
        return row.margin if row.ranks[better] < row.ranks[worse] else 0.0
    higher, lower = (row.scores[index] if row.scores else None for index in (better, worse))
    return 0.0 if higher is None or lower is None else max(0.0, higher - lower)


def as_sequences(rankings: Sequence[EncodedRanking]) -> Iterator[Encoded]:
    """Yield the sequences that go through the model, for the checks; the token that is scored is the last."""
    for ranking in rankings:
        yield from (answered(ids[:-1], ids[-1:], ranking.cut) for ids in ranking.answers)
