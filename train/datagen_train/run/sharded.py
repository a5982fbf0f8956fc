"""Training a sharded model (--fsdp): what the library's trainer does otherwise where the processes divide a model.

The library has this case for a model that `from_pretrained` has divided: it does not move it, does not wrap it in DDP,
and lets it average its gradients. Here it is told of one that was divided after heads and adapters had been added.

A checkpoint has no copy of the model in one place: each process writes its parts of the trained weights and of the
optimiser's states, as safetensors. `torch.distributed.checkpoint` divides them anew where another number of processes
goes on. The trained model is written whole, as that of any other run.
"""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from transformers import Trainer
from transformers.trainer import SCHEDULER_NAME

from datagen_train.models.precision import name_dtype
from datagen_train.models.sharding import local_parameters, saved_state, shard
from datagen_train.run.library_names import overrides, require_attributes

SHARDS = "shards"
"""The folder of a checkpoint with the parts of all processes."""
WEIGHTS = "weights."
"""Begins the names of the trained weights in a checkpoint."""
FLAT = StateDictOptions(flatten_optimizer_state_dict=True)


@overrides(
    "_move_model_to_device",
    "_defer_fsdp_gradient_reduction",
    "_save",
    "_save_optimizer_and_scheduler",
    "_load_from_checkpoint",
    "_load_optimizer_and_scheduler",
    "_load_best_model",
)
class Sharded(Trainer):
    """A trainer of a model that is whole in each process or, with `fsdp`, divided among them."""

    is_sharded = False
    saved_dtype: torch.dtype | None = None
    """Of the weights that are saved (models/precision.py). None: as they are; so it is for checkpoints."""

    def __init__(self, *, fsdp: bool = False, **arguments: Any) -> None:
        """With `fsdp` the model and the reference model are divided; the rest is what the library's trainer takes."""
        self.is_sharded = fsdp
        if fsdp and arguments.get("ref_model") is not None:
            shard(arguments["ref_model"], arguments["args"].device)
        super().__init__(**arguments)
        if fsdp:
            require_attributes(self, "is_distributed_loading_by_transformers")
            self.is_distributed_loading_by_transformers = True

    @property
    def is_divided(self) -> bool:
        """Must all processes make the same passes? So it is with DeepSpeed as well, which may divide the model."""
        return self.is_sharded or bool(self.is_deepspeed_enabled)

    def count_local(self) -> int:
        """Return how many parameters of the model this process holds."""
        return local_parameters(self.model)

    def place(self, model: Any) -> Any:
        """Return a frozen model as it is used beside the trained one: on the device, or divided as well."""
        return shard(model, self.args.device) if self.is_sharded else model.to(self.args.device)

    def _move_model_to_device(self, model: nn.Module, device: torch.device) -> None:
        if self.is_sharded:  # here, since TRL may have added adapters to it
            shard(model, device)
        else:
            super()._move_model_to_device(model, device)

    def _defer_fsdp_gradient_reduction(self) -> AbstractContextManager[None]:
        """Average the gradients of every micro-batch: to wait for the last one, each process would keep whole ones."""
        return nullcontext()

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model. A checkpoint of a sharded one gets its weights with the optimiser's states."""
        folder = Path(output_dir or str(self.args.output_dir))
        if not self.is_sharded:
            super().save_model(output_dir, _internal_call)
        elif _internal_call:
            folder.mkdir(parents=True, exist_ok=True)
        else:
            state = saved_state(self.model, self.saved_dtype)
            if self.args.should_save:
                super()._save(str(folder), state_dict=state)
                name_dtype(folder, self.saved_dtype)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.is_sharded:
            return super()._save_optimizer_and_scheduler(output_dir)
        state = get_optimizer_state_dict(self.model, self.optimizer.optimizer, options=FLAT)
        write_shards(Path(output_dir), self._weights() | moments(state))
        if self.args.should_save:
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)
        return None

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if not self.is_sharded or checkpoint is None:
            return super()._load_optimizer_and_scheduler(checkpoint)
        optimizer, folder = self.optimizer.optimizer, Path(checkpoint)
        state = get_optimizer_state_dict(self.model, optimizer, options=FLAT)
        read_shards(folder, moments(state))
        set_optimizer_state_dict(self.model, optimizer, state, options=FLAT)
        self.lr_scheduler.load_state_dict(torch.load(folder / SCHEDULER_NAME, weights_only=True))
        for group, rate in zip(optimizer.param_groups, self.lr_scheduler.get_last_lr(), strict=True):
            group["lr"] = rate
        return None

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self.is_sharded:
            read_shards(Path(resume_from_checkpoint), self._weights())
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        if self.is_sharded:
            read_shards(Path(str(self.state.best_model_checkpoint)), self._weights())
        else:
            super()._load_best_model()

    def _weights(self) -> dict[str, Tensor]:
        """Return this process's parts of the trained weights; what is not trained is in the base model."""
        trained = ((name, weight) for name, weight in self.model.named_parameters() if weight.requires_grad)
        return {WEIGHTS + name: weight.detach() for name, weight in trained}


def moments(state: dict[str, Any]) -> dict[str, Any]:
    """Return the tensors of an optimiser's state; the rest are options of the run."""
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def write_shards(folder: Path, parts: dict[str, Tensor]) -> None:
    """Write the parts of all processes."""
    save(parts, storage_writer=HuggingFaceStorageWriter(str(folder / SHARDS), save_distributed=True))


def read_shards(folder: Path, parts: dict[str, Tensor]) -> None:
    """Fill the parts of this process, in place."""
    load(parts, storage_reader=HuggingFaceStorageReader(str(folder / SHARDS)))
