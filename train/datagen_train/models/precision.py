"""The data type that a trained model is saved in: that of its base.

Weights are trained in float32, where small steps do not round to zero. A base in 16 bits gives a model in 16 bits: in
float32 it would take twice the memory afterwards, for bits that say little. Rounding changes the model, so it comes
before the last measurement: what the report says is true of the saved weights. Score heads and adapters stay as they
are.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from datagen.llm.local.loading import load_part
from datagen.records.files import replace_file
from datagen_train.models.heads import Head

HALF = (torch.bfloat16, torch.float16)


def stored_dtype(path: Path) -> torch.dtype | None:
    """Return the data type that a model's config says its weights are stored in; None if it says nothing.

    Raises:
        OSError, ValueError: there is no config that can be read.
    """
    dtype = load_part(AutoConfig, path).dtype
    return dtype if isinstance(dtype, torch.dtype) else None


def saved_dtype(path: Path) -> torch.dtype | None:
    """Return the 16-bit data type that a model trained from this one is saved in; None: that of its training."""
    dtype = stored_dtype(path)
    return dtype if dtype in HALF else None


def weights(model: Any) -> Iterator[torch.nn.Parameter]:
    """Yield the parameters that are saved in the type of the base: not those of heads; none with adapters."""
    if hasattr(model, "peft_config"):
        return
    for module in model.modules():
        if not isinstance(module, Head):
            yield from module.parameters(recurse=False)


def round_weights(model: Any, dtype: torch.dtype | None) -> None:
    """Round the weights to a data type, without a change of their own; nothing for None."""
    if dtype is not None:
        with torch.no_grad():
            for parameter in weights(model):
                parameter.copy_(parameter.to(dtype))


def name_dtype(folder: Path, dtype: torch.dtype | None) -> None:
    """Name a data type in the config of a saved model: the library names that of the model in memory.

    Nothing for None, and for adapters, which have no such config.
    """
    path = folder / "config.json"
    if dtype is not None and path.exists():
        config = json.loads(path.read_bytes()) | {"dtype": str(dtype).removeprefix("torch.")}
        replace_file(path, json.dumps(config, indent=2, sort_keys=True).encode() + b"\n")


@contextmanager
def held_in(model: Any, dtype: torch.dtype | None) -> Iterator[None]:
    """Hold the weights in a data type for a while, to save them; nothing for None. `round_weights` comes before."""
    before = [(parameter, parameter.data) for parameter in weights(model)] if dtype is not None else []
    try:
        for parameter, data in before:
            parameter.data = data.to(dtype)
        yield
    finally:
        for parameter, data in before:
            parameter.data = data
