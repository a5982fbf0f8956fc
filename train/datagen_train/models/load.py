"""Loading a model to train: any causal language model with its tokenizer, LoRA adapters, frozen layers."""

import re
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from datagen.engine.options import template_values
from datagen.errors import InputError
from datagen.llm.local.hub import resolve_model
from datagen.llm.local.loading import load_network, load_part
from datagen.llm.local.weights import is_adapter, language_model, weights_digest
from datagen_train.errors import first_line
from datagen_train.models.named_templates import choose_template
from datagen_train.models.precision import saved_dtype
from datagen_train.models.template import set_defaults
from datagen_train.models.tokens import fit_tokenizer
from datagen_train.options import ModelOptions

Network = TypeVar("Network", bound=torch.nn.Module)
HEADS = ("score", "classifier")
"""Names of the heads of reward models and classifiers."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
HEAD_DROPOUTS = ("classifier", "summary")
"""Beginnings of the names of dropouts that a language model does not have."""


@dataclass
class Loaded:
    """A model ready to be trained, with its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    notes: list[str]
    """Changes to the tokenizer, for the report."""
    saved_dtype: torch.dtype | None = None
    """The 16-bit type that the trained weights are saved in (models/precision.py); None: that of training."""


def load(spec: str, options: ModelOptions, texts: Iterable[str], seed: int) -> Loaded:
    """Load a model and its tokenizer.

    Args:
        spec: `tiny` (models/tiny.py), a folder, or a hub name.
        options: data type and quantisation. Adapters and frozen layers come later, by `choose_trained`.
        texts: what the tokenizer of `tiny` is trained on; not read for other models.
        seed: of the weights of `tiny`.

    Raises:
        InputError: there is no such model, it cannot be read, or it is an adapter.
    """
    if spec == "tiny" or spec.startswith("tiny:"):
        from datagen_train.models.tiny import make_tiny

        model, tokenizer = make_tiny(spec, texts, seed)
        notes = ["tiny is a toy made from nothing, to try things with; --model names a real one"]
        notes += choose_template(tokenizer, options.template) if options.template else []
        set_defaults(tokenizer, template_values(options.chat_template_kwargs))
        return Loaded(model, tokenizer, notes)
    path = language_model(spec)
    if is_adapter(path):
        raise InputError(f"{path}: is a LoRA adapter; merge it first: datagen train merge {path}")
    loaded = Loaded(load_model(path, options), load_tokenizer(path), [], saved_dtype(path))
    name = spec.removeprefix("hf:")  # what an adapter names as its base: no folder of a cache, nor one seen from here
    loaded.model.name_or_path = str(Path(name).resolve()) if Path(name).is_dir() else name
    if options.template:
        loaded.notes += choose_template(loaded.tokenizer, options.template)
    loaded.notes += fit_tokenizer(loaded.model, loaded.tokenizer)
    set_defaults(loaded.tokenizer, template_values(options.chat_template_kwargs))
    return loaded


def model_identity(spec: str) -> str:
    """Return what identifies a model: the digest of its weights; the spec of one that is made from nothing."""
    return spec if spec.partition(":")[0] == "tiny" else weights_digest(resolve_model(spec))


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    try:
        tokenizer: PreTrainedTokenizerBase = load_part(AutoTokenizer, path)
    except (OSError, ValueError) as error:
        raise InputError(f"model {path}: its tokenizer cannot be loaded: {first_line(error)}") from error
    return tokenizer


def load_model(path: Path, options: ModelOptions) -> PreTrainedModel:
    """Load the weights, for QLoRA (arXiv 2305.14314) as 4-bit NormalFloat with double quantisation."""
    kwargs: dict[str, Any] = {"dtype": pick_dtype(options)}
    if options.attention:
        kwargs["attn_implementation"] = options.attention
    if options.dropout is not None:
        kwargs |= dict.fromkeys(dropout_fields(path), options.dropout)
    if options.qlora:
        if not torch.cuda.is_available():
            raise InputError("--qlora needs a CUDA device; on this machine use --lora")
        from transformers import BitsAndBytesConfig

        kwargs["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    try:
        model: PreTrainedModel = load_network(AutoModelForCausalLM, path, **kwargs)
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(f"model {path}: cannot be loaded: {first_line(error)}") from error
    return model


def dropout_fields(path: Path) -> list[str]:
    """Return the fields of a model's config that are rates of dropout; raise InputError if there is none."""
    settings = load_part(AutoConfig, path).to_dict()
    names = [
        name
        for name, value in settings.items()
        if ("dropout" in name or "pdrop" in name) and type(value) in (int, float) and not name.startswith(HEAD_DROPOUTS)
    ]
    if not names:
        raise InputError(f"--dropout: {path} has no dropout that its config could set; leave it out")
    return names


def pick_dtype(options: ModelOptions) -> torch.dtype:
    """Choose the data type of the weights. What is trained stays in float32: in bfloat16 small steps round to zero."""
    if options.dtype == "auto":
        return torch.bfloat16 if has_bf16() and (options.lora or options.qlora) else torch.float32
    if options.dtype not in DTYPES:
        raise InputError(f"--dtype {options.dtype}: expected auto, {' or '.join(DTYPES)}")
    return DTYPES[options.dtype]


def has_bf16() -> bool:
    """Is there a GPU that computes in bfloat16?"""
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported()


def choose_trained(model: PreTrainedModel, options: ModelOptions) -> PreTrainedModel:
    """Add LoRA adapters, or freeze what `--train-last` and `--train-layers` leave out.

    Raises:
        InputError: nothing would be trained, or the options name layers that the model does not have.
    """
    if options.lora or options.qlora:
        return with_lora(model, options)
    if options.train_last is None and options.train_layers is None:
        return model
    if options.train_layers is not None:
        try:
            pattern = re.compile(options.train_layers)
        except re.error as error:
            raise InputError(f"--train-layers {options.train_layers}: no regular expression: {error}") from error
    else:
        count, last = int(model.config.num_hidden_layers), options.train_last or 0
        if not 1 <= last <= count:
            raise InputError(f"--train-last {last}: the model has {count} layers")
        numbers = "|".join(str(n) for n in range(count - last, count))
        pattern = re.compile(rf"\.({numbers})\.|lm_head|\.norm\.|\.ln_f\.|final_layer")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(bool(pattern.search(name)))
    if not any(parameter.requires_grad for parameter in model.parameters()):
        names = ", ".join(name for name, _ in list(model.named_parameters())[-3:])
        raise InputError(f"--train-layers {options.train_layers}: finds no parameter; there are, for example: {names}")
    return model


def with_lora(model: PreTrainedModel, options: ModelOptions) -> PreTrainedModel:
    """Add low-rank adapters (arXiv 2106.09685) to the named linear modules; the language head stays as it is."""
    from peft import LoraConfig, TaskType, get_peft_model, prepare_model_for_kbit_training

    targets = options.lora_targets
    heads = [name for name in HEADS if hasattr(model, name)]  # new, so they are trained and saved in full
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS if heads else TaskType.CAUSAL_LM,
        modules_to_save=heads or None,
        r=options.lora_rank,
        lora_alpha=options.lora_alpha,
        lora_dropout=options.lora_dropout,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
        target_modules=targets if targets == "all-linear" else [name.strip() for name in targets.split(",")],
    )
    if options.qlora:
        model = prepare_model_for_kbit_training(model)
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        raise InputError(f"--lora-targets {targets}: {first_line(error)}") from error


def without_dropout(model: Network) -> Network:
    """Turn dropout off, also in modules that keep its rate as a number, as the attention of most models does."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name, value in list(vars(module).items()):
            if "dropout" in name and isinstance(value, float):
                setattr(module, name, 0.0)
    return model


def frozen_reference(model: PreTrainedModel) -> PreTrainedModel | None:
    """Return a frozen copy of a model as its reference; None with adapters, where the base is the reference."""
    return None if hasattr(model, "peft_config") else deepcopy(model).eval().requires_grad_(False)


def count_parameters(model: PreTrainedModel) -> tuple[int, int]:
    """Return (trained, all) parameters."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)
