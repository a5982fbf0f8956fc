"""Packing puts several short rows in one sequence. It is used only where the attention keeps the rows apart.

Whether it does depends on the attention implementation, the library's version and the model. So it is measured: two
rows packed must give the logits that they give alone.
"""

from collections.abc import Sequence

import torch

from datagen_train.data.encode import Encoded
from datagen_train.errors import CheckFailed
from datagen_train.models.load import Loaded

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2}
"""Largest allowed difference between logits, by the data type of the weights."""


def check_packing(loaded: Loaded, sequences: Sequence[Encoded]) -> float:
    """Compare the logits of two rows packed with those of the same rows alone.

    Returns:
        The largest difference.

    Raises:
        CheckFailed: it is larger than rounding explains.
    """
    first, second = (torch.tensor([sequence.ids]) for sequence in (sequences[0], sequences[-1]))
    model = loaded.model
    was_training = model.training
    model.eval()
    with torch.no_grad():
        alone = torch.cat([model(ids.to(model.device)).logits[0] for ids in (first, second)])
        positions = torch.cat([torch.arange(ids.shape[1]) for ids in (first, second)])[None]
        packed = torch.cat([first, second], dim=1).to(model.device)
        together = model(packed, position_ids=positions.to(model.device), use_cache=False).logits[0]
    model.train(was_training)
    difference = float((alone - together).abs().max())
    if difference > TOLERANCE.get(model.dtype, TOLERANCE[torch.bfloat16]):
        raise CheckFailed(
            f"packing: rows in one sequence see each other (logits differ by {difference:.2g}); leave --packing out"
        )
    return difference
