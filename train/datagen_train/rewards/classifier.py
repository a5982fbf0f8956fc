"""A sequence classifier of any kind as a reward: the logit, or the log-probability, of one of its labels.

It reads the answer's text with its own tokenizer, which adds the special tokens that it was trained with.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from datagen.errors import InputError
from datagen.llm.local.generation import in_batches, inference_mode
from datagen.llm.local.hub import resolve_model
from datagen.llm.local.loading import load_network, load_part
from datagen.records.record import Text
from datagen_train.errors import first_line
from datagen_train.rewards.functions import Score, completion_text

MAX_BATCH, MAX_TOKENS = 64, 1 << 15
"""Limits of a batch: texts, and padded tokens."""


class Classifier:
    """A sequence classifier that reads the answer alone.

    Args:
        path: A folder, or a name on the hub.
        label: The name or number of a label, with `,logprob` after it for the log-probability.

    Raises:
        InputError: The classifier cannot be loaded, or has no such label.
    """

    def __init__(self, path: str, label: str) -> None:
        folder = resolve_model(path)
        try:
            self._tokenizer = load_part(AutoTokenizer, folder)
            model: Any = load_network(AutoModelForSequenceClassification, folder)
        except (OSError, ValueError) as error:
            raise InputError(f"--reward classifier:{path}: cannot be loaded: {first_line(error)}") from error
        self._model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        name, _, suffix = label.partition(",")
        if suffix not in ("", "logprob"):
            raise InputError(f"--reward classifier:{path}#{label}: only ,logprob may stand after the label")
        self._log_prob = bool(suffix)
        self._label = label_index(path, name, {int(i): str(n) for i, n in model.config.id2label.items()})
        positions = getattr(model.config, "max_position_embeddings", None)
        self._max_length = min(positions or self._tokenizer.model_max_length, self._tokenizer.model_max_length)

    def __call__(self, prompts: Sequence[Text], completions: Sequence[Any], **_: Any) -> list[Score]:
        texts = [completion_text(completion) for completion in completions]
        ids = [self._tokenizer(text, truncation=True, max_length=self._max_length)["input_ids"] for text in texts]
        scores: list[Score] = [None] * len(texts)
        filled = [i for i, tokens in enumerate(ids) if tokens]  # a text without tokens gets no score
        with inference_mode(self._model):
            for group in in_batches([len(ids[i]) for i in filled], MAX_BATCH, MAX_TOKENS):
                batch = [filled[i] for i in group]
                padded = self._tokenizer.pad({"input_ids": [ids[i] for i in batch]}, return_tensors="pt")
                logits = self._model(**padded.to(self._model.device)).logits.float()
                values = (logits.log_softmax(-1) if self._log_prob else logits)[:, self._label]
                for i, score in zip(batch, values.tolist(), strict=True):
                    scores[i] = score
        return scores


def label_index(path: str, name: str, names: Mapping[int, str]) -> int:
    """Return the index of a label, by its name or number; a classifier with one label needs no name."""
    if name in names.values():
        return next(index for index, label in names.items() if label == name)
    if name.isdecimal() and int(name) in names:
        return int(name)
    if not name and len(names) == 1:
        return 0
    raise InputError(f"--reward classifier:{path}#{name}: name one of its labels: {', '.join(names.values())}")
