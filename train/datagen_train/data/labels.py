"""Labelled texts as token ids."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from datagen.records.labelled import Labelled
from datagen_train.errors import UnusableRow
from datagen_train.models.reward_model import TokenIds
from datagen_train.models.tokens import attention_mask, pad


@dataclass(frozen=True)
class LabelledExample:
    """A text as token ids, with the number of its label."""

    ids: TokenIds
    label: int
    cut: bool


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str, longest: int) -> tuple[TokenIds, bool]:
    """Return the token ids of a text, as a pipeline of the library makes them, and whether it was cut.

    Raises:
        UnusableRow: the text has no tokens, or ends in the token that pads: the head reads the last other one.
    """
    ids: list[int] = tokenizer(text, verbose=False)["input_ids"]
    if cut := len(ids) > longest:
        ids = tokenizer(text, truncation=True, max_length=longest)["input_ids"]
    if not ids:
        raise UnusableRow("a text without tokens")
    if ids[-1] == tokenizer.pad_token_id:
        raise UnusableRow("a text that ends in the token that pads")
    return np.array(ids, dtype=np.int32), cut


def encode_labelled(
    tokenizer: PreTrainedTokenizerBase, row: Labelled, numbers: Mapping[str, int], longest: int
) -> LabelledExample:
    """Encode a labelled text; raise UnusableRow also for a label that has no number."""
    if row.label not in numbers:
        raise UnusableRow("a label that is not in the rows to train on")
    ids, cut = encode_text(tokenizer, row.prompt, longest)
    return LabelledExample(ids, numbers[row.label], cut)


def collate_labelled(batch: Sequence[LabelledExample], pad_id: int) -> dict[str, Tensor]:
    """Return a batch: `input_ids` and `attention_mask` of shape (texts, longest), `labels` of shape (texts,)."""
    sequences = [example.ids for example in batch]
    labels = torch.tensor([example.label for example in batch])
    return {"input_ids": pad(sequences, pad_id), "attention_mask": attention_mask(sequences), "labels": labels}
