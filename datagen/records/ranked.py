"""Ranked answers: several to one prompt, and which of them is better.

    ranked        {"prompt", "responses": [str], "ranks": [int], "scores": [number or null]}: rank 1 is the best, equal
                  ranks are a tie; without ranks they follow from the scores. Answers in the layout of Alpaca are
                  ranked rows too: {"instruction", "input", "output": [best, ..., worst]}
    the others    every shape of a preference (preferences.py): two answers, the chosen one first

"margin", a number, says by how much the chosen answer is better, and "soft_label", from 0 to 1, how likely it is that
it is the better one at all; both belong to two answers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from datagen.records.fields import Shape, asked, found, join_input, prompt, text
from datagen.records.preferences import PREFERENCE_SHAPES, Choice, preference_shape
from datagen.records.reader import Kind
from datagen.records.record import Row, Text

NEEDS = (
    "Ranked rows hold a prompt and responses with ranks or scores (make them with 'datagen judge'), or chosen and "
    "rejected"
)
Ranks = tuple[int, ...]
Scores = tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Ranked:
    """Several answers to one prompt."""

    id: str
    prompt: Text
    responses: tuple[str, ...]
    ranks: Ranks
    """1 is the best; equal ranks are a tie."""
    scores: Scores | None = None
    """What the ranks were made from, on the scale of whoever judged; None where no score was given."""
    margin: float | None = None
    """Of two answers: by how much the first is better."""
    soft_label: float | None = None
    """Of two answers: how likely it is that the first is better."""
    line: int = field(default=0, compare=False)
    source_id: str | None = None
    extra: Row = field(default_factory=dict)
    meta: Row = field(default_factory=dict)


class Ranking(NamedTuple):
    """What every shape is reduced to."""

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


def _ranked(row: Row) -> list[Ranking]:
    if "responses" not in row:
        return _replies(row)
    responses, scores = _texts(row, "responses"), _numbers(row, "scores")
    ranks = _ranks(row, "ranks") or (dense_ranks(scores) if scores else None)
    if ranks is None:
        raise ValueError(f"responses with neither ranks nor scores (found: {found(row)}). {NEEDS}")
    for name, values in (("ranks", ranks), ("scores", scores)):
        if values is not None and len(values) != len(responses):
            raise ValueError(f'"{name}" holds {len(values)} values for {len(responses)} responses')
    return [Ranking(prompt(row), responses, ranks, scores)]


def _replies(row: Row) -> list[Ranking]:
    """Read the layout of Alpaca with a list of replies."""
    request = join_input(text(row, "instruction"), text(row, "input", needed=False))
    replies = _texts(row, "output")
    return [Ranking(asked(row, request), replies, tuple(range(1, len(replies) + 1)))]


def _texts(row: Row, name: str) -> tuple[str, ...]:
    values = row.get(name)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(f'"{name}" is not a list of texts')
    if len(values) < 2:
        raise ValueError(f'"{name}" holds {len(values)} of the two answers that a comparison needs')
    return tuple(values)


def _ranks(row: Row, name: str) -> Ranks | None:
    values = row.get(name)
    if values is None:
        return None
    if not isinstance(values, list) or not all(type(value) is int and value >= 1 for value in values):
        raise ValueError(f'"{name}" is not a list of whole numbers from 1')
    return tuple(values)


def _numbers(row: Row, name: str) -> Scores | None:
    values = row.get(name)
    if values is None:
        return None
    if not isinstance(values, list) or not all(value is None or type(value) in (int, float) for value in values):
        raise ValueError(f'"{name}" is not a list of numbers and nulls')
    return tuple(None if value is None else float(value) for value in values)


def _soft_label(row: Row) -> float | None:
    value = row.get("soft_label")
    if value is None:
        return None
    if type(value) not in (int, float) or not 0 <= value <= 1:
        raise ValueError('"soft_label" is not a number from 0 to 1')
    return float(value)


def _of_two(shape: Shape) -> Shape:
    """Read a shape of preferences as two ranked answers."""
    read: Callable[[Row], Sequence[tuple[object, ...]]] = shape.parts

    def parts(row: Row) -> list[Ranking]:
        return [_as_ranking(Choice(*choice), row) for choice in read(row)]  # type: ignore[arg-type]

    return Shape(parts, shape.fields | {"soft_label"})


def _as_ranking(choice: Choice, row: Row) -> Ranking:
    answers = (choice.chosen, choice.rejected)
    return Ranking(choice.prompt, answers, (1, 2), None, choice.margin, _soft_label(row))


FIELDS = frozenset(("id", "meta", "prompt", "responses", "ranks", "scores"))
REPLIES = frozenset(("instruction", "input", "output", "system", "history"))
RANKED_SHAPES = {
    "ranked": Shape(_ranked, FIELDS | REPLIES),
    **{name: _of_two(shape) for name, shape in PREFERENCE_SHAPES.items() if name != "ranked"},
}


def ranked_shape(row: Row) -> str | None:
    """Name the format of a row by its keys."""
    return "ranked" if "responses" in row else preference_shape(row)


RANKED = Kind(
    "ranked answers", Ranked, RANKED_SHAPES, ranked_shape, "prompt", '"responses", or "chosen" and "rejected"',
    NEEDS, "Ranked answers go to 'datagen train reward'",
)  # fmt: skip
