"""Samples: several answers to one prompt, perhaps ranked already (`respond -k`, `judge`).

samples       {"prompt", "responses": [str]}, with "ranks" and "scores" once they are judged
the others    every shape of ranked answers and of preferences (ranked.py): the better one first
"""

from typing import Any

from datagen.records.fields import Shape, prompt
from datagen.records.ranked import FIELDS, RANKED_SHAPES, Ranking, Ranks, Scores, ranked_shape
from datagen.records.reader import Kind
from datagen.records.record import Record, Row, Text


def _record(
    name: str,
    asked: Text,
    responses: tuple[str, ...],
    ranks: Ranks,
    scores: Scores | None,
    margin: float | None = None,
    soft_label: float | None = None,
    **more: Any,
) -> Record:
    return Record(name, asked, responses=responses, ranks=ranks, scores=scores or (), **more)


def _samples(row: Row) -> list[Ranking]:
    if "ranks" in row or "scores" in row:
        return [Ranking(*ranking) for ranking in RANKED_SHAPES["ranked"].parts(row)]
    responses = row.get("responses")
    if not isinstance(responses, list) or not responses or not all(isinstance(each, str) for each in responses):
        raise ValueError('"responses" is not a list of texts')
    return [Ranking(prompt(row), tuple(responses), ())]


SAMPLES = Kind(
    "samples", _record, {**RANKED_SHAPES, "samples": Shape(_samples, FIELDS)},
    lambda row: "samples" if "responses" in row else ranked_shape(row), "prompt",
    '"responses", or "chosen" and "rejected"',
    "Samples hold a prompt and responses: make them with 'datagen respond -k 4'",
    "Samples go to 'datagen judge' and 'datagen pairs'",
)  # fmt: skip
