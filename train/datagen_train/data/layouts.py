"""How encoded examples lie in an Arrow table: int32 ids, and what else an example needs in as few bytes.

Labels repeat the ids, so the table says only which of them are trained: as the bounds of the spans, two numbers each.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa

from datagen_train.data.encode import IGNORED, Encoded, EncodedAnswer, EncodedPair
from datagen_train.data.labels import LabelledExample
from datagen_train.data.rankings import Comparison, EncodedRanking

Example = TypeVar("Example")
"""What a row is encoded into: a sequence, a pair, a ranking."""
Size = tuple[int, int, bool]
"""Tokens, the trained ones among them, and whether the example was cut."""
Array = np.ndarray[Any, Any]
IDS = pa.list_(pa.int32())


@dataclass(frozen=True)
class Layout(Generic[Example]):
    """The form of one kind of examples."""

    measure: Callable[[Example], Size]
    pack: Callable[[Example], tuple[Any, ...]] = lambda example: ()
    """Returns the values of the columns."""
    unpack: Callable[..., Example] = lambda cut: cut
    """Gets whether the example was cut, and the values of the columns: lists as arrays."""
    columns: Mapping[str, pa.DataType] = field(default_factory=dict)
    """Without any, examples stay in memory as they are."""


def find_spans(labels: Sequence[int] | Array) -> Array:
    """Return the bounds of the spans with labels: first and last + 1 of each, one after the other."""
    trained = np.concatenate([[False], np.asarray(labels) != IGNORED, [False]])
    return np.flatnonzero(trained[1:] != trained[:-1])


def fill_labels(ids: Array, spans: Array) -> Array:
    """Return the labels of a sequence: the ids in the spans, IGNORED outside."""
    labels = np.full(len(ids), IGNORED, dtype=np.int32)
    for start, end in spans.reshape(-1, 2):
        labels[start:end] = ids[start:end]
    return labels


def pack_ranking(ranking: EncodedRanking) -> tuple[Any, ...]:
    ends = np.cumsum([len(ids) for ids in ranking.answers])
    compared = [place for c in ranking.comparisons for place in (c.better, c.worse)]
    targets = [number for c in ranking.comparisons for number in (c.target, c.margin)]
    ids = np.concatenate(ranking.answers)
    return ids, ends, ranking.lengths, compared, targets, ranking.best, ranking.source


def unpack_ranking(
    cut: bool, ids: Array, ends: Array, lengths: Array, compared: Array, targets: Array, best: int, source: str
) -> EncodedRanking:
    pairs = zip(compared.reshape(-1, 2).tolist(), targets.reshape(-1, 2).tolist(), strict=True)
    comparisons = tuple(Comparison(*answers, *values) for answers, values in pairs)
    return EncodedRanking(
        tuple(np.split(ids, ends[:-1])), tuple(lengths.tolist()), comparisons, best=best, source=source, cut=cut
    )


SEQUENCES = Layout[Encoded](
    measure=lambda sequence: (len(sequence.ids), sequence.trained, sequence.cut),
    pack=lambda sequence: (sequence.ids, find_spans(sequence.labels)),
    unpack=lambda cut, ids, spans: Encoded(ids, fill_labels(ids, spans), cut),
    columns={"input_ids": IDS, "labels": IDS},
)
"""`labels` holds spans; `expand_labels` makes labels of them."""
PAIRS = Layout[EncodedPair](
    measure=lambda pair: (
        2 * len(pair.prompt) + len(pair.chosen) + len(pair.rejected),
        len(pair.chosen) + len(pair.rejected),
        pair.cut,
    ),
    pack=lambda pair: (pair.prompt, pair.chosen, pair.rejected),
    unpack=lambda cut, prompt, chosen, rejected: EncodedPair(prompt, chosen, rejected, cut),
    columns=dict.fromkeys(("prompt_ids", "chosen_ids", "rejected_ids"), IDS),
)
ANSWERS = Layout[EncodedAnswer](
    measure=lambda answer: (len(answer.prompt) + len(answer.answer), len(answer.answer), answer.cut),
    pack=lambda answer: (answer.prompt, answer.answer, answer.is_good),
    unpack=lambda cut, prompt, answer, is_good: EncodedAnswer(prompt, answer, is_good, cut),
    columns={"prompt_ids": IDS, "completion_ids": IDS, "label": pa.bool_()},
)
RANKINGS = Layout[EncodedRanking](
    measure=EncodedRanking.size,
    pack=pack_ranking,
    unpack=unpack_ranking,
    columns={
        **dict.fromkeys(("ids", "ends", "lengths", "compared"), IDS),
        "targets": pa.list_(pa.float64()),
        "best": pa.int32(),
        "source": pa.string(),
    },
)
LABELLED_TEXTS = Layout[LabelledExample](
    measure=lambda example: (len(example.ids), 1, example.cut),
    pack=lambda example: (example.ids, example.label),
    unpack=lambda cut, ids, label: LabelledExample(ids, label, cut),
    columns={"ids": IDS, "label": pa.int32()},
)
