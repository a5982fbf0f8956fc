"""PPO-ptx (InstructGPT, arXiv 2203.02155, equation 2): other sequences whose language-modelling loss is added to PPO's.

It keeps the policy from forgetting what it learned in pre-training or SFT.
"""

from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor

from datagen.errors import InputError, nothing_usable
from datagen.records.files import open_input
from datagen.records.reader import DOCUMENTS, PROMPTS, Reader
from datagen.records.record import BadLine, Document, Record
from datagen_train.data.encode import IGNORED, Encoded, Encoder, encode_row
from datagen_train.data.split import encode_usable
from datagen_train.models.tokens import attention_mask, pad


@dataclass(frozen=True)
class PtxData:
    """The encoded sequences."""

    sequences: list[Encoded]
    dropped: int
    """Rows that could not be encoded."""

    def draw(self, purpose: str, count: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Draw sequences at random; return (ids, mask, labels), each of shape (count, longest)."""
        sequences = Random(purpose).choices(self.sequences, k=count)
        ids = [sequence.ids for sequence in sequences]
        labels = pad([sequence.labels for sequence in sequences], IGNORED)
        return pad(ids, 0).to(device), attention_mask(ids).to(device), labels.to(device)


def read_ptx(name: str, encoder: Encoder) -> PtxData:
    """Read and encode the rows of a file that have a response or, if there are none, its documents.

    Raises:
        InputError: No row can be used.
    """
    with open_input(name) as file:
        rows: list[Record | Document] = []
        try:
            items = Reader(name, file, PROMPTS).read()
            rows += [item for item in items if not isinstance(item, BadLine) and item.response is not None]
        except InputError:
            rows.clear()
        if not rows:
            file.seek(0)
            rows += [item for item in Reader(name, file, DOCUMENTS).read() if not isinstance(item, BadLine)]
    sequences, dropped = encode_usable(rows, lambda row: encode_row(encoder, row))
    if not sequences:
        raise nothing_usable(f"--ptx-data {name}")
    return PtxData(sequences, dropped.total())
