"""A model divided among the processes of a run: fully sharded data parallelism, PyTorch's FSDP2.

Each process holds 1/N of every parameter, of its gradient and of its optimiser states. A layer is gathered just before
it computes and is freed right after, in the forward and in the backward pass, so that a device holds one whole layer at
a time. Gradients are averaged over the processes, as without sharding: a step is the same step.

The division is that of `torch.distributed.fsdp.fully_shard`, on the device that the run has, a CPU or a GPU.
"accelerate" would do the same on a GPU, and sets the wish aside without a message on a CPU.

To gather a layer all processes have to compute it. So all of them make the same number of forward passes, which
`in_step` and `as_many_everywhere` see to where they would differ.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from datagen.errors import InputError
from datagen_train.errors import CheckFailed
from datagen_train.models.heads import Head
from datagen_train.models.load import has_bf16
from datagen_train.models.precision import weights

Item = TypeVar("Item")
Model = TypeVar("Model", bound=nn.Module)


def shard(model: Model, device: torch.device) -> Model:
    """Divide a model among the processes, in place, and move each part to its device.

    Heads are gathered in float32, in which they compute; on a GPU all else is gathered in bfloat16.

    Raises:
        InputError: no list of layers is found in the model.
        CheckFailed: it is not divided: a parameter is whole in some process.
    """
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    half = MixedPrecisionPolicy(param_dtype=torch.bfloat16 if has_bf16() else None, reduce_dtype=torch.float32)
    for module in list(model.modules()):
        if isinstance(module, Head):
            fully_shard(module, mesh=mesh, reshard_after_forward=True)
    for root in networks(model):
        for layer in layers(root):
            fully_shard(layer, mesh=mesh, reshard_after_forward=True, mp_policy=half)
        fully_shard(root, mesh=mesh, reshard_after_forward=True, mp_policy=half)
    check_sharded(model)
    return model


def networks(model: nn.Module) -> list[Any]:
    """Return the networks that are called as a whole: the model itself, or those that it only joins.

    With adapters it is the one that they are in: `generate` calls that.
    """
    parts: list[Any] = [model] if hasattr(model, "config") else list(model.children())
    called = [part for part in parts if not isinstance(part, Head)]
    return [part.get_base_model() if hasattr(part, "get_base_model") else part for part in called]


def layers(network: Any) -> list[nn.Module]:
    """Return the layers of a network: the list that is as long as its config says."""
    count = int(network.config.get_text_config().num_hidden_layers)
    lists = (module for module in network.modules() if isinstance(module, nn.ModuleList) and len(module) == count)
    first = next(lists, None)  # the outermost one comes first
    if first is None:
        raise InputError(f"--fsdp: {type(network).__name__} has no list of {count} layers; leave --fsdp out")
    return list(first)


def check_sharded(model: nn.Module) -> None:
    """Raise CheckFailed if the parts of all processes together are not exactly the model."""
    here, whole = local_parameters(model), sum(parameter.numel() for parameter in model.parameters())
    everywhere = torch.tensor(here, device=next(model.parameters()).device)
    torch.distributed.all_reduce(everywhere)
    if int(everywhere) != whole:
        raise CheckFailed(f"--fsdp: the processes hold {int(everywhere)} parameters of {whole}: it is not divided")


def local_parameters(model: nn.Module) -> int:
    """Return how many parameters this process holds."""
    return sum(local(parameter).numel() for parameter in model.parameters())


def local(tensor: Tensor) -> Tensor:
    """Return the part of a tensor that this process holds: all of it where it is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def is_sharded(model: nn.Module) -> bool:
    """Is the model divided among the processes?"""
    return any(isinstance(module, FSDPModule) for module in model.modules())


def saved_state(model: nn.Module, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """Return the weights by name, as they are saved; of tied weights the first one alone.

    Those of a sharded model are gathered on the CPU of the first process, and the others get none: all of them have to
    call it.

    Args:
        dtype: of the weights that are rounded (models/precision.py); None: as they are.
    """
    rounded = {id(parameter) for parameter in weights(model)} if dtype is not None else set()
    named, first = list(model.named_parameters(remove_duplicate=False)), dict(model.named_parameters())
    tied = {name for name, _ in named if name not in first}
    casts = {name for name, parameter in named if id(parameter) in rounded}
    gather = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state: dict[str, Any] = (
        dict(get_model_state_dict(model, options=gather)) if is_sharded(model) else model.state_dict()
    )
    return {name: value.to(dtype) if name in casts else value for name, value in state.items() if name not in tied}


@contextmanager
def in_step(model: Any) -> Iterator[None]:
    """Keep the forward passes of a sharded model in step while each process makes as many as its data need.

    One that has finished goes on with passes over a single token until all have. A model that is whole is left alone.
    """
    if not is_sharded(model):
        yield
        return
    token = torch.zeros((1, 1), dtype=torch.long, device=model.device)

    def count_working(here: int) -> Tensor:
        working = torch.tensor(here, device=token.device)
        torch.distributed.all_reduce(working)
        return working

    def before_pass(*_: Any) -> None:
        count_working(1)

    hook = model.register_forward_pre_hook(before_pass, prepend=True)
    yield
    hook.remove()
    with torch.no_grad():
        while count_working(0):
            model(input_ids=token, attention_mask=torch.ones_like(token), use_cache=False)


def as_many_everywhere(batches: Sequence[Item], fill: Item, device: torch.device) -> list[Item]:
    """Add a batch until this process has as many as any other."""
    most = torch.tensor(len(batches), device=device)
    torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX)
    return [*batches, *[fill] * (int(most) - len(batches))]
