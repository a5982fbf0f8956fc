"""The classifier: a model with a head that gives a logit for each label, as the library's pipelines load it.

A causal language model keeps its trunk, and its language head gives way to a new one, read at the last token. Any other
model, such as BERT, is loaded in its own form for classification, with the head of that form.
"""

from collections.abc import Iterable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from datagen.errors import InputError
from datagen.llm.local.hub import resolve_model
from datagen.llm.local.loading import load_network, refuse_missing
from datagen.llm.local.weights import architectures, model_files
from datagen_train.errors import first_line
from datagen_train.models.load import HEADS, Loaded, load, load_tokenizer, pick_dtype
from datagen_train.models.precision import saved_dtype
from datagen_train.models.reward_model import with_score_head
from datagen_train.options import ModelOptions

CAUSAL = ("ForCausalLM", "LMHeadModel")
"""Endings of the names of architectures that write text."""


def load_classifier(spec: str, options: ModelOptions, texts: Iterable[str], labels: Sequence[str], seed: int) -> Loaded:
    """Load a model with a new head for labels, and its tokenizer.

    Args:
        spec: as for `load`.
        options: data type, and whether adapters will be trained.
        texts: what the tokenizer of `tiny` is trained on.
        labels: the labels, in the order of the logits.
        seed: of the head, and of the weights of `tiny`.

    Raises:
        InputError: there is no such model, it cannot be read, or it has no form for classification.
    """
    if writes_text(spec):
        loaded = load(spec, options, texts, seed)
        loaded.model = with_score_head(loaded.model, seed, len(labels))
    else:
        loaded = load_encoder(spec, options, len(labels))
    config = loaded.model.config
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: number for number, label in enumerate(labels)}
    config.problem_type = "single_label_classification"
    return loaded


def writes_text(spec: str) -> bool:
    """Is this a causal language model, by the architecture that its config names?"""
    if spec.partition(":")[0] == "tiny":
        return True
    folder = resolve_model(spec)
    model_files(folder)
    return any(name.endswith(CAUSAL) for name in architectures(folder))


def load_encoder(spec: str, options: ModelOptions, labels: int) -> Loaded:
    """Load a model that writes no text in its form for classification; what it lacks of that is drawn anew."""
    folder: Path = resolve_model(spec)
    tokenizer = load_tokenizer(folder)
    if tokenizer.pad_token is None:
        raise InputError(f"model {spec}: its tokenizer has no pad token; choose another --model")
    model, missing = load_form(  # ignoring the head of another task
        spec, folder, dtype=pick_dtype(options), num_labels=labels, ignore_mismatched_sizes=True
    )
    beside_head = sorted(name for name in missing if not name.startswith(HEADS))
    if beside_head and options.lora:
        raise InputError(
            f"--lora adapts trained weights, and {beside_head[0]} of {spec} is new: leave --lora out, such models are "
            "small"
        )
    notes = [f"new weights beside the head: {', '.join(beside_head)}"] if beside_head else []
    return Loaded(model, tokenizer, notes, saved_dtype(folder))


def open_classifier(spec: str, dtype: Any = "auto") -> tuple[PreTrainedModel, PreTrainedTokenizerBase, list[str]]:
    """Load a trained classifier onto the GPU if there is one.

    Args:
        spec: a folder, or a name on the hub.
        dtype: of the weights; auto: that in which they were saved.

    Returns:
        The classifier, its tokenizer and its labels, in the order of the logits.

    Raises:
        InputError: it cannot be loaded, or its head is missing, which the library would make up.
    """
    folder = resolve_model(spec)
    tokenizer = load_tokenizer(folder)
    model, missing = load_form(spec, folder, dtype=dtype)
    refuse_missing(spec, missing)
    labels = [str(label) for _, label in sorted(model.config.id2label.items())]
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval(), tokenizer, labels


def load_form(spec: str, folder: Path, **options: Any) -> tuple[Any, list[str]]:
    """Load a model in its form for classification; return it and the names of the weights that are drawn anew.

    Raises:
        InputError: it cannot be loaded, or has no such form.
    """
    try:
        model, report = load_network(AutoModelForSequenceClassification, folder, output_loading_info=True, **options)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise InputError(f"model {spec}: cannot be loaded as a classifier: {first_line(error)}") from error
    return model, list(report["missing_keys"])


def without_adapters(model: Any) -> PreTrainedModel:
    """Return a model whose adapters are merged, as a copy if it has any."""
    merged: PreTrainedModel = deepcopy(model).merge_and_unload() if hasattr(model, "peft_config") else model
    return merged
