"""From ranked rows to the batches of a reward model: one element is a prompt with all of its answers.

Every answer ends in the one token that it is scored at, the end token, when a model is trained and when it is used; an
answer that is too long is cut and gets it as its last. What cannot be compared is left out and counted: answers without
a score, answers that say what another one says, prompts that are left with no comparison.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from datagen.records.ranked import Ranked
from datagen.records.record import Text, as_messages
from datagen_train.data.encode import IGNORED, Encoded, Encoder, Ids, UnusableRow
from datagen_train.models.tokens import attention_mask, pad, turn_closer

TokenIds = np.ndarray[Any, np.dtype[np.int32]]
UNKNOWN = "unknown"


class Comparison(NamedTuple):
    """Two answers of one prompt, by their places."""

    better: int
    worse: int
    target: float = 1.0
    """How likely it is that `better` is better; 1/2 for a tie."""
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
    """The place of the best answer."""
    source: str
    """Where the row comes from, for the report."""
    cut: bool = False


def end_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the token that every answer ends in: what the chat template closes a turn with, or the end of text."""
    closer = turn_closer(tokenizer)
    token = tokenizer.eos_token_id if closer is None else closer
    assert isinstance(token, int)
    return token


def scored_ids(encoder: Encoder, prompt: Text, response: str) -> tuple[Ids, int, bool]:
    """Return (ids, tokens of the answer, cut?): the ids end in the token that the answer is scored at."""
    made = encoder.turns([*as_messages(prompt), {"role": "assistant", "content": response}])
    ids = [*made.ids[:-1], end_token(encoder.tokenizer)] if made.cut else made.ids
    return ids, made.trained, made.cut


@dataclass
class RankingEncoder:
    """Encodes ranked rows, and counts the answers that it leaves out."""

    encoder: Encoder
    ties: str = "skip"
    """What becomes of equal ranks: skip, or soft (a comparison whose target is 1/2)."""
    margin: float = 0.0
    """What margins are multiplied with."""
    left_out: Counter[str] = field(default_factory=Counter)

    def encode(self, row: Ranked) -> EncodedRanking:
        """Encode a row; raise UnusableRow if nothing is left to compare."""
        kept = self._kept(row)
        if len(kept) < 2:
            raise UnusableRow("fewer than two different answers that can be used")
        comparisons = tuple(self._compare(row, [place for place, _, _, _ in kept]))
        if not comparisons:
            raise UnusableRow("all answers tie")
        return EncodedRanking(
            answers=tuple(np.array(ids, dtype=np.int32) for _, ids, _, _ in kept),
            lengths=tuple(length for _, _, length, _ in kept),
            comparisons=comparisons,
            best=min(range(len(kept)), key=lambda i: row.ranks[kept[i][0]]),
            source=source_of(row),
            cut=any(cut for _, _, _, cut in kept),
        )

    def _kept(self, row: Ranked) -> list[tuple[int, Ids, int, bool]]:
        """Return (place in the row, ids, tokens, cut?) of the answers to compare."""
        kept: dict[bytes, tuple[int, Ids, int, bool]] = {}
        unfit: UnusableRow | None = None
        for place, response in enumerate(row.responses):
            if row.scores is not None and row.scores[place] is None:
                self.left_out["no score"] += 1
                continue
            try:
                ids, length, cut = scored_ids(self.encoder, row.prompt, response)
            except UnusableRow as reason:
                self.left_out[str(reason)] += 1
                unfit = reason
                continue
            key = np.array(ids, dtype=np.int32).tobytes()
            if key in kept:
                self.left_out["the same as another answer"] += 1
            else:
                kept[key] = (place, ids, length, cut)
        if not kept and unfit is not None:
            raise unfit
        return list(kept.values())

    def _compare(self, row: Ranked, places: Sequence[int]) -> list[Comparison]:
        """Compare all pairs of answers: C(K,2), less the ties."""
        made = []
        for one, other in combinations(range(len(places)), 2):
            first, second = row.ranks[places[one]], row.ranks[places[other]]
            if first == second or (target := _target(row)) == 0.5:
                made += [Comparison(one, other, 0.5)] if self.ties == "soft" else []
                continue
            better, worse = (one, other) if (first < second) == (target > 0.5) else (other, one)
            margin = self.margin * _margin(row, places[better], places[worse]) if self.margin else 0.0
            made.append(Comparison(better, worse, max(target, 1 - target), margin))
        return made


def _target(row: Ranked) -> float:
    return 1.0 if row.soft_label is None else row.soft_label


def _margin(row: Ranked, better: int, worse: int) -> float:
    """Return by how much an answer is better: as the row says, or by its scores; 0 where neither says so."""
    if row.margin is not None:
        return row.margin if row.ranks[better] < row.ranks[worse] else 0.0
    ahead, behind = (row.scores[place] if row.scores else None for place in (better, worse))
    return 0.0 if ahead is None or behind is None else max(0.0, ahead - behind)


def source_of(row: Ranked) -> str:
    """Name what a row comes from: its own "source", else the method or the model that made it."""
    names = (row.extra.get("source"), row.meta.get("source"), row.meta.get("method"), row.meta.get("model"))
    return next((str(name) for name in names if isinstance(name, str) and name), UNKNOWN)


def measure_ranking(made: EncodedRanking) -> tuple[int, int, bool]:
    """Return (tokens of all sequences, tokens that are scored, cut)."""
    return sum(map(len, made.answers)), len(made.answers), made.cut


def as_sequences(made: Sequence[EncodedRanking]) -> list[Encoded]:
    """Lay rankings out as the sequences that go through the model; the token that counts is the last."""
    return [
        Encoded(ids.tolist(), [IGNORED] * (len(ids) - 1) + [int(ids[-1])], each.cut)
        for each in made
        for ids in each.answers
    ]


def padded(sequences: Sequence[TokenIds], filler: int) -> dict[str, torch.Tensor]:
    """Put sequences into one batch, padded on the right, where positions count from the first token by themselves."""
    return {"input_ids": pad(sequences, filler), "attention_mask": attention_mask(sequences)}


def collate(batch: Sequence[EncodedRanking], pad_id: int) -> dict[str, torch.Tensor]:
    """Put prompts together: every answer once, and the comparisons as indices into the answers."""
    starts = np.cumsum([0, *(len(each.answers) for each in batch)])
    rows = [
        (start + c.better, start + c.worse, c.target, c.margin, 1 / len(each.comparisons) / len(batch))
        for start, each in zip(starts, batch, strict=False)
        for c in each.comparisons
    ]
    better, worse, target, margin, weight = zip(*rows, strict=True)
    return {
        **padded([ids for each in batch for ids in each.answers], pad_id),
        "better": torch.tensor(better),
        "worse": torch.tensor(worse),
        "target": torch.tensor(target),
        "margin": torch.tensor(margin),
        "weight": torch.tensor(weight),
    }
