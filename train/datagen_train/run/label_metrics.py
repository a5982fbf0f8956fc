"""How well labels are recognised: accuracy, and precision, recall and F1 of each label."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from datagen.report.markdown import plain
from datagen_train.data.labels import LabelledExample
from datagen_train.models.reward_model import Numbers
from datagen_train.run.metrics import f1


@dataclass(frozen=True)
class LabelQuality:
    """How well one label is recognised."""

    precision: float
    """Of the texts that were given the label, the share that has it; 0 if none was given it."""
    recall: float
    """Of the texts that have the label, the share that was given it."""
    f1: float
    texts: int
    """That have the label."""


def measure_labels(logits: Numbers, examples: Sequence[LabelledExample], labels: Sequence[str]) -> dict[str, float]:
    """Return loss, accuracy and macro F1: the mean over the labels that the texts have.

    Args:
        logits: (texts, labels).
        examples: the texts.
        labels: the names of the labels.
    """
    truth = np.array([example.label for example in examples])
    qualities = by_label(logits, examples, labels)
    return {
        "loss": float(cross_entropy(torch.from_numpy(logits), torch.from_numpy(truth))),
        "accuracy": float((logits.argmax(1) == truth).mean()),
        "macro_f1": sum(quality.f1 for quality in qualities.values()) / len(qualities),
    }


def by_label(logits: Numbers, examples: Sequence[LabelledExample], labels: Sequence[str]) -> dict[str, LabelQuality]:
    """Return the quality of each label that the texts have, by its name."""
    truth, predicted = np.array([example.label for example in examples]), logits.argmax(1)
    qualities = {}
    for label in sorted(set(truth.tolist())):
        hits = int(((predicted == label) & (truth == label)).sum())
        given, texts = int((predicted == label).sum()), int((truth == label).sum())
        share = hits / given if given else 0.0
        qualities[labels[label]] = LabelQuality(share, hits / texts, f1(hits, given, texts), texts)
    return qualities


def quality_table(qualities: Mapping[str, LabelQuality]) -> str:
    """Return the qualities as a table in Markdown."""
    lines = ["| label | precision | recall | F1 | texts |", "|---|---|---|---|---|"]
    lines += [
        f"| {plain(label)} | {quality.precision:.3f} | {quality.recall:.3f} | {quality.f1:.3f} | {quality.texts} |"
        for label, quality in qualities.items()
    ]
    return "\n".join(lines)
