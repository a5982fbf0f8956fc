"""Several answers to one prompt: ranked answers, and samples that need not be ranked yet (`respond -k`, `judge`).

    ranked        {"prompt", "responses": [str], "ranks": [int], "scores": [number or null]}: rank 1 is the best, equal
                  ranks are a tie; without ranks they follow from the scores. Answers in the layout of Alpaca are
                  ranked rows too: {"instruction", "input", "output": [best, ..., worst]}
    samples       {"prompt", "responses": [str]}, with "ranks" and "scores" once they are judged (SAMPLES only)
    the others    every shape of a preference (preferences.py): two answers, the chosen one first

A row of two answers may have "margin", a number that says by how much the chosen answer is better, and "soft_label",
from 0 to 1, the probability that it is the better one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from datagen.records.preferences import PREFERENCE_SHAPES, PreferenceContent, preference_shape
from datagen.records.reader import Kind
from datagen.records.record import Record, Row, Text
from datagen.records.shapes import Shape, join_input, key_list, prompt_field, request_with_history, text_field

NEEDS = (
    "Ranked rows hold a prompt and responses with ranks or scores (make them with 'datagen judge'), or chosen and "
    "rejected"
)
Ranks = tuple[int, ...]
Scores = tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Ranked:
    """Several answers to one prompt, and their ranks."""

    id: str
    prompt: Text
    responses: tuple[str, ...]
    ranks: Ranks
    """1 is the best; equal ranks are a tie."""
    scores: Scores | None = None
    """The scores that the ranks come from, on the judge's scale; None for an answer without a score."""
    margin: float | None = None
    """Of two answers: by how much the first is better."""
    soft_label: float | None = None
    """Of two answers: the probability that the first is better."""
    line: int = field(default=0, compare=False)
    source_id: str | None = None
    extra: Row = field(default_factory=dict)
    meta: Row = field(default_factory=dict)


class RankedContent(NamedTuple):
    """What every shape of ranked answers is reduced to."""

    prompt: Text
    responses: tuple[str, ...]
    ranks: Ranks
    scores: Scores | None = None
    margin: float | None = None
    soft_label: float | None = None


def dense_ranks(scores: Sequence[float | None]) -> Ranks:
    """Rank scores: the highest is 1, equal ones share a rank, the next has the next number; null comes last."""
    order = sorted({score for score in scores if score is not None}, reverse=True)
    places = {score: number for number, score in enumerate(order, 1)}
    return tuple(len(order) + 1 if score is None else places[score] for score in scores)


def list_field(row: Row, name: str, accepts: Callable[[Any], bool], content: str) -> tuple[Any, ...]:
    """Return a field that is a list of accepted values; `content` names these, for messages."""
    values = row.get(name)
    if not isinstance(values, list) or not all(map(accepts, values)):
        raise ValueError(f'"{name}" is not a list of {content}')
    return tuple(values)


def answers_field(row: Row, name: str) -> tuple[str, ...]:
    """Return a field that is a list of two or more answers."""
    answers = list_field(row, name, lambda value: isinstance(value, str), "texts")
    if len(answers) < 2:
        raise ValueError(f'"{name}" holds {len(answers)} of the two answers that a comparison needs')
    return answers


def read_ranked(row: Row) -> list[RankedContent]:
    """Read responses with ranks or scores, or the layout of Alpaca with a list of replies, best first."""
    if "responses" not in row:
        request = join_input(text_field(row, "instruction"), text_field(row, "input", required=False))
        replies = answers_field(row, "output")
        return [RankedContent(request_with_history(row, request), replies, tuple(range(1, len(replies) + 1)))]

    responses, scores, ranks = answers_field(row, "responses"), None, None
    if row.get("scores") is not None:
        values = list_field(row, "scores", lambda v: v is None or type(v) in (int, float), "numbers and nulls")
        scores = tuple(None if value is None else float(value) for value in values)
    if row.get("ranks") is not None:
        ranks = list_field(row, "ranks", lambda v: type(v) is int and v >= 1, "whole numbers from 1")
    ranks = ranks or (dense_ranks(scores) if scores else None)
    if ranks is None:
        raise ValueError(f"responses with neither ranks nor scores (found: {key_list(row)}). {NEEDS}")
    for name, column in (("ranks", ranks), ("scores", scores)):
        if column is not None and len(column) != len(responses):
            raise ValueError(f'"{name}" holds {len(column)} values for {len(responses)} responses')
    return [RankedContent(prompt_field(row), responses, ranks, scores)]


def read_two(shape: Shape, row: Row) -> list[RankedContent]:
    """Read a row in a shape of preferences as two ranked answers."""
    contents = [PreferenceContent(*content) for content in shape.read(row)]
    label = row.get("soft_label")
    if label is not None and (type(label) not in (int, float) or not 0 <= label <= 1):
        raise ValueError('"soft_label" is not a number from 0 to 1')
    soft_label = None if label is None else float(label)
    return [
        RankedContent(content.prompt, (content.chosen, content.rejected), (1, 2), None, content.margin, soft_label)
        for content in contents
    ]


def read_samples(row: Row) -> list[RankedContent]:
    """Read responses that may have ranks or scores."""
    if "ranks" in row or "scores" in row:
        return read_ranked(row)
    responses = list_field(row, "responses", lambda value: isinstance(value, str), "texts")
    if not responses:
        raise ValueError('"responses" is not a list of texts')
    return [RankedContent(prompt_field(row), responses, ())]


OURS = frozenset(("id", "meta", "prompt", "responses", "ranks", "scores"))
RANKED_SHAPES = {
    "ranked": Shape(read_ranked, OURS | {"instruction", "input", "output", "system", "history"}),
    **{
        name: Shape(partial(read_two, shape), shape.fields | {"soft_label"})
        for name, shape in PREFERENCE_SHAPES.items()
        if name != "ranked"
    },
}
RANKED = Kind(
    "ranked answers", Ranked, RANKED_SHAPES, lambda row: "ranked" if "responses" in row else preference_shape(row),
    "prompt", '"responses", or "chosen" and "rejected"',
    NEEDS, "Ranked answers go to 'datagen train reward'",
)  # fmt: skip


def sample_record(
    id: str, prompt: Text, responses: tuple[str, ...], ranks: Ranks, scores: Scores | None, *_: object, **common: Any
) -> Record:
    """Make a Record of samples; it has no place for the margin and the soft label that come after the scores."""
    return Record(id, prompt, responses=responses, ranks=ranks, scores=scores or (), **common)


SAMPLES = Kind(
    "samples", sample_record, {**RANKED_SHAPES, "samples": Shape(read_samples, OURS)},
    lambda row: "samples" if "responses" in row else preference_shape(row), "prompt",
    '"responses", or "chosen" and "rejected"',
    "Samples hold a prompt and responses: make them with 'datagen respond -k 4'",
    "Samples go to 'datagen judge' and 'datagen pairs'",
)  # fmt: skip
