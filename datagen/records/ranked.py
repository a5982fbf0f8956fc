"""Several answers to one prompt: ranked answers, and samples that need not be ranked yet (`respond -k`, `judge`).

    ranked        {"prompt", "responses": [str], "ranks": [int], "scores": [number or null]}: rank 1 is the best, equal
                  ranks are a tie; without ranks they follow from the scores. The answers may be objects that hold text
                  and rank or score: {"completions": [{"response", "overall_score"}]}
    best-first    answers in the layout of Alpaca: {"instruction", "input", "output": [best, ..., worst]}
    samples       {"prompt", "responses": [str]}, with "ranks" and "scores" once they are judged (SAMPLES only)
    the others    two answers with a verdict (comparisons.py), and every shape of a preference (preferences.py): the
                  chosen answer first

A row of two answers may have "margin", a number that says by how much the chosen answer is better, and "soft_label",
from 0 to 1, the probability that it is the better one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from datagen.records.columns import Fields, key_list
from datagen.records.comparisons import TWO_ANSWERS, Comparison, Ranks, Scores, dense_ranks
from datagen.records.preferences import OURS as OUR_PREFERENCES
from datagen.records.preferences import PREFERENCE_SHAPES
from datagen.records.record import Record, Row, Text
from datagen.records.row_kinds import Kind
from datagen.records.shapes import BEFORE, Content, Roles, Shape, request, tools_field

__all__ = ["RANKED", "SAMPLES", "Ranked", "dense_ranks"]
NEEDS = (
    "Ranked rows hold a prompt and responses with ranks or scores (make them with 'datagen judge'), or chosen and "
    "rejected"
)
TEXT_KEYS = ("response", "text", "answer", "content", "output", "completion", "generated_text")
SCORE_KEYS = ("overall_score", "score", "rating", "pm_score", "reward")
RANK_KEYS = ("rank",)
"""The keys of an answer that is an object."""


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
    reasonings: tuple[str | None, ...] = ()
    """What was thought before each of the responses; empty if nothing is known of any."""
    tools: tuple[Row, ...] = ()
    """As in Record."""


def list_field(values: Any, name: str, accepts: Callable[[Any], bool], content: str) -> list[Any]:
    """Return a list of accepted values; `content` names these, for messages."""
    if not isinstance(values, list) or not all(map(accepts, values)):
        raise ValueError(f'"{name}" is not a list of {content}')
    return values


def is_number(value: Any) -> bool:
    return type(value) in (int, float)


def is_rank(value: Any) -> bool:
    return is_number(value) and value >= 1 and value == int(value)


def read_answers(fields: Fields) -> tuple[tuple[str, ...], list[Any] | None, list[Any] | None]:
    """Read a list of answers; return their texts, their scores, and their ranks, if they are there."""
    values, name = fields.value("responses"), fields.name("responses")
    items = values if isinstance(values, list) else None
    if items and all(isinstance(item, dict) for item in items):
        read = [next((key for key in TEXT_KEYS if isinstance(item.get(key), str)), "") for item in items]
        texts: Any = [item.get(key) for item, key in zip(items, read, strict=True)]
        columns = []
        for keys in (SCORE_KEYS, RANK_KEYS):
            key = next((key for key in keys if any(item.get(key) is not None for item in items)), None)
            columns.append([number_of(item.get(key)) for item in items] if key else None)
            read.append(key or "")
        unread = {key for item in items for key in item if item[key] not in (None, "", [], {})} - set(read)
        fields.notes += [f'"{key}" in "{name}", which is left out' for key in sorted(unread)]
        list_field(texts, name, lambda value: isinstance(value, str), "texts")
        return tuple(texts), columns[0], columns[1]
    texts = list_field(items, name, lambda value: isinstance(value, str), "texts")
    scores, ranks = fields.value("scores"), fields.value("ranks")
    return tuple(texts), [*map(number_of, scores)] if isinstance(scores, list) else scores, ranks


def number_of(value: Any) -> Any:
    """Return a number that may be written as text; anything else as it is."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def ranked(fields: Fields, *, required: bool) -> tuple[tuple[str, ...], Ranks, Scores | None]:
    """Read answers with their ranks and scores; the ranks follow from the scores if they are not there.

    Args:
        fields: The row.
        required: Whether two answers and their ranks are needed; else one answer without them is enough.
    """
    responses, raw_scores, raw_ranks = read_answers(fields)
    if len(responses) < 2 and (required or raw_ranks or raw_scores):
        name = fields.name("responses")
        raise ValueError(f'"{name}" holds {len(responses)} of the two answers that a comparison needs')
    scores = ranks = None
    if raw_scores is not None:
        values = list_field(raw_scores, "scores", lambda v: v is None or is_number(v), "numbers and nulls")
        scores = tuple(None if value is None else float(value) for value in values)
    if raw_ranks is not None:
        ranks = tuple(map(int, list_field(raw_ranks, "ranks", is_rank, "whole numbers from 1")))
    ranks = ranks or (dense_ranks(scores) if scores else None)
    if ranks is None and required:
        raise ValueError(f"responses with neither ranks nor scores (found: {key_list(fields.row)}). {NEEDS}")
    for name, column in (("ranks", ranks), ("scores", scores)):
        if column is not None and len(column) != len(responses):
            raise ValueError(f'"{name}" holds {len(column)} values for {len(responses)} responses')
    return responses, ranks or (), scores


def read_ranked(fields: Fields, *, required: bool = True) -> list[Content]:
    """Read a prompt and several answers; for `required` see `ranked`."""
    responses, ranks, scores = ranked(fields, required=required)
    if not responses:
        raise ValueError(f'"{fields.name("responses")}" is not a list of texts')
    reasonings = tuple(fields.value("reasonings") or ())
    if reasonings and (len(reasonings) != len(responses) or not all(isinstance(r, str | None) for r in reasonings)):
        raise ValueError(f'"reasoning" does not hold a text or null for each of {len(responses)} responses')
    more = tools_field(fields) | ({"reasonings": reasonings} if any(reasonings) else {})
    return [Content((request(fields, strict=True), responses, ranks, scores, None, None), more)]


def read_best_first(fields: Fields) -> list[Content]:
    """Read the layout of Alpaca with a list of replies, best first."""
    replies = list_field(fields.value("outputs"), "output", lambda value: isinstance(value, str), "texts")
    if len(replies) < 2:
        raise ValueError(f'"output" holds {len(replies)} of the two answers that a comparison needs')
    ranks = tuple(range(1, len(replies) + 1))
    return [Content((request(fields), tuple(replies), ranks, None, None, None), tools_field(fields))]


def read_comparison(compare: Callable[[Fields], list[Comparison]], fields: Fields) -> list[Content]:
    return [Content((*comparison, None, None), {}) for comparison in compare(fields)]


def read_preference(shape: Shape, fields: Fields) -> list[Content]:
    """Read a row in a shape of preferences as two ranked answers."""
    contents = shape.read(fields)
    label = fields.value("soft_label")
    if label is not None and (type(label) not in (int, float) or not 0 <= label <= 1):
        raise ValueError('"soft_label" is not a number from 0 to 1')
    soft_label = None if label is None else float(label)
    return [two_ranked(content, soft_label) for content in contents]


def two_ranked(content: Content, soft_label: float | None) -> Content:
    """Return a preference as two ranked answers; the reasoning of the two is one list."""
    prompt, chosen, rejected, margin = content.base
    reasonings = (content.more.get("chosen_reasoning"), content.more.get("rejected_reasoning"))
    more = {name: value for name, value in content.more.items() if name == "tools"}
    more |= {"reasonings": reasonings} if any(reasonings) else {}
    return Content((prompt, (chosen, rejected), (1, 2), None, margin, soft_label), more)


PROMPT: Roles = ("prompt", "instruction", "question")
SEVERAL: Roles = ("scores", "ranks", "reasonings", "input", "context", "tools", *BEFORE)
OUR_ROLES: Roles = ("scores", "ranks", "reasonings", "tools")
RANKED_SHAPES = {
    "ranked": Shape(read_ranked, ("responses",), SEVERAL, needs_any=PROMPT),
    "best-first": Shape(read_best_first, ("instruction", "outputs"), ("input", "context", "tools", *BEFORE)),
    **{
        name: Shape(partial(read_comparison, shape.read), shape.needs, shape.may, shape.needs_any)
        for name, shape in TWO_ANSWERS.items()
    },
    **{
        name: shape._replace(read=partial(read_preference, shape), may=(*shape.may, "soft_label"))
        for name, shape in PREFERENCE_SHAPES.items()
        if name != "ranked" and name not in TWO_ANSWERS
    },
}
OUR_PAIRS = {
    name: shape._replace(read=partial(read_preference, shape), may=(*shape.may, "soft_label"))
    for name, shape in OUR_PREFERENCES.items()
}
RANKED = Kind(
    "ranked answers", Ranked, RANKED_SHAPES, "prompt", '"responses", or "chosen" and "rejected"',
    NEEDS, "Ranked answers go to 'datagen train reward'",
    {"ranked": Shape(read_ranked, ("prompt", "responses"), OUR_ROLES), **OUR_PAIRS},
)  # fmt: skip


def sample_record(
    id: str, prompt: Text, responses: tuple[str, ...], ranks: Ranks, scores: Scores | None, *_: object, **common: Any
) -> Record:
    """Make a Record of samples; it has no place for the margin and the soft label that come after the scores."""
    return Record(id, prompt, responses=responses, ranks=ranks, scores=scores or (), **common)


def without_margin(read: Callable[[Fields], Sequence[Content]], fields: Fields) -> Sequence[Content]:
    """Read a row as `read` does, and note what samples have no place for."""
    contents = read(fields)
    lost = [role for role in ("margin", "soft_label") if fields.value(role) is not None]
    fields.notes += [f'"{role}", for which samples have no place' for role in lost]
    return contents


def as_samples(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Return the shapes of ranked answers as those of samples."""
    return {name: shape._replace(read=partial(without_margin, shape.read)) for name, shape in shapes.items()}


read_samples = partial(read_ranked, required=False)
SAMPLES = Kind(
    "samples", sample_record,
    {"samples": RANKED_SHAPES["ranked"]._replace(read=read_samples), **as_samples(RANKED_SHAPES)}, "prompt",
    '"responses", or "chosen" and "rejected"',
    "Samples hold a prompt and responses: make them with 'datagen respond -k 4'",
    "Samples go to 'datagen judge', and judged ones to 'datagen pairs'",
    {"samples": Shape(read_samples, ("prompt", "responses"), OUR_ROLES), **as_samples(OUR_PAIRS)},
)  # fmt: skip
