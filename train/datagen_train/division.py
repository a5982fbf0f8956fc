"""What a model divided among processes goes together with. Nothing heavy is imported here."""

import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from datagen.errors import InputError

OF_ACCELERATE = {"ACCELERATE_USE_FSDP": "--fsdp", "ACCELERATE_USE_DEEPSPEED": "--deepspeed FILE"}
"""Variables that `accelerate launch` sets, and our options, which check what they ask for."""


class Training(Protocol):
    """The options that are read here."""

    @property
    def nproc(self) -> int: ...
    @property
    def fsdp(self) -> bool: ...
    @property
    def deepspeed(self) -> str | None: ...
    @property
    def qlora(self) -> bool: ...
    @property
    def optimizer(self) -> str: ...
    @property
    def generate(self) -> int: ...


def check_sharding(training: Training, *, can_shard: bool, sampler: str | None) -> None:
    """Raise InputError where a model cannot be divided among processes."""
    if not can_shard:
        raise InputError("--fsdp: this trainer needs the whole model in each process; leave it out")
    if training.nproc == 1:
        raise InputError("--fsdp divides the model among several processes: add --nproc N, or use a launcher")
    if training.qlora:
        raise InputError("--fsdp: weights of 4 bits cannot be divided; use --lora, or leave --fsdp out")
    if training.optimizer != "adamw":
        raise InputError(f"--fsdp: the states of --optimizer {training.optimizer} cannot be divided; use adamw")
    if sampler:
        raise InputError("--sampler is handed whole adapters, and --fsdp divides them: leave one out")


def check_deepspeed(training: Training, *, takes_deepspeed: bool) -> None:
    """Raise InputError where DeepSpeed cannot train, and for a configuration that is no JSON object."""
    if not takes_deepspeed:
        raise InputError("--deepspeed: this trainer has a loop of its own; use --fsdp, or leave it out")
    if training.fsdp or training.generate:
        raise InputError(f"--deepspeed and {'--fsdp' if training.fsdp else '--generate'}: leave one out")
    try:
        is_object = isinstance(json.loads(Path(training.deepspeed or "").read_bytes()), dict)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"--deepspeed {training.deepspeed}: cannot be read: {error}") from error
    if not is_object:
        raise InputError(f"--deepspeed {training.deepspeed}: is no JSON object")
    if not find_spec("deepspeed"):
        raise InputError("--deepspeed needs a package and a CUDA device: pip install deepspeed")


def check_launcher() -> None:
    """Raise InputError if a launcher asks for what is an option here: the library may set its wish aside in silence."""
    for variable, option in OF_ACCELERATE.items():
        if os.environ.get(variable, "false").lower() in ("true", "1", "yes"):
            raise InputError(f"{variable}: say {option} to datagen, and leave it out of the launcher's configuration")
