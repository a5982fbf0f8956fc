"""The reward model: the SFT model with a score head, how token ids are scored, and the contract saved with it.

The model is the SFT model without its language head and with a linear head to one number instead (InstructGPT, arXiv
2203.02155). A score is read at one token: the end token of the answer, which is the last token that is not padding.
There alone the id of the padding counts: the library finds this token by it, so it differs from the end token. The
folder is right by itself: `apply_chat_template` ends in the end token, and `AutoModelForSequenceClassification` gives
the score, of standard deviation 1 over the reference answers; to have their mean at 0 a constant is added, since such a
model has no place for it. `reward.json` beside the weights is the contract: digests of the tokenizer and the chat
template, the token where the score is read, the longest sequence, the constant.

A score that is read at another token is a number like any other. So whoever loads the model here checks the contract
(rewards/reward_model.py).
"""

import json
import re
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from datagen.errors import InputError
from datagen.llm.local.generation import in_batches, inference_mode, load_full_model
from datagen.llm.local.loading import load_adapter, load_network, refuse_missing
from datagen.llm.local.weights import CONTRACT, adapter_base, is_adapter, weights_digest
from datagen.records.files import write_json
from datagen.records.record import digest
from datagen_train.errors import first_line
from datagen_train.models.heads import Head, score_head
from datagen_train.models.load import without_dropout
from datagen_train.models.template import end_answers
from datagen_train.models.tokens import attention_mask, pad, turn_closer

VERSION = 2
SCORED_TOKEN = "the end token: the last token that is not padding"
MAX_TOKENS = 1 << 16
"""Padded tokens in a batch that is scored without gradients."""
SPACE = "\N{LATIN CAPITAL LETTER G WITH DOT ABOVE}"
"""How byte-level vocabularies write a space."""
RESERVED = re.compile(r"reserved|unused|fim_pad|finetune.{0,40}pad", re.IGNORECASE)
"""Reserved tokens of a vocabulary."""
PROBE = "1 + 23 = 24? Ja, größer; 你好 👋\n\tfor x in range(3): pass"
"""A text of many kinds of characters; different tokenizers make different tokens of it."""
TokenIds = np.ndarray[Any, np.dtype[np.int32]]
Numbers = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Contract:
    """What a score depends on beside the weights."""

    tokenizer: str
    """Digest of its vocabulary and of the tokens it makes of a probe text."""
    template: str
    """Digest of the chat template."""
    end: int
    pad: int
    max_length: int
    bias: float
    """What is added to the logit: the reference answers then have mean 0."""
    gain: float
    """What the head was multiplied by: they have standard deviation 1. One answer is better than another one with
    probability sigmoid(difference of their scores / gain)."""
    references: int
    """Number of reference answers."""
    model: str
    """The model it was trained from; an adapter needs exactly this one."""
    data: str
    """Digest of the training rows."""
    held_out_accuracy: float | None = None
    padding: str = "right"
    scored_token: str = SCORED_TOKEN
    version: int = VERSION

    def write(self, folder: Path) -> None:
        write_json(folder / CONTRACT, asdict(self))


def is_reward_model(path: str | Path) -> bool:
    """Is this the folder of a reward model?"""
    return (Path(path) / CONTRACT).is_file()


def read_contract(folder: Path) -> Contract:
    """Read reward.json; raise InputError if it is missing, unreadable or of another version."""
    if not is_reward_model(folder):
        raise InputError(f"{folder}: holds no {CONTRACT}, so it is no reward model; make one: datagen train reward")
    try:
        contract = Contract(**json.loads((folder / CONTRACT).read_bytes()))
    except (ValueError, TypeError) as error:
        raise InputError(f"{folder / CONTRACT}: {error}; train the reward model again") from error
    if contract.version != VERSION or contract.scored_token != SCORED_TOKEN or contract.padding != "right":
        raise InputError(
            f"{folder / CONTRACT}: padding, scored_token, version are of another version; train the model again"
        )
    return contract


def tokenizer_digests(tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """Return digests of the tokenizer (its vocabulary and behaviour, not its files) and of the chat template."""
    behaviour = [sorted(tokenizer.get_vocab().items()), tokenizer(PROBE, add_special_tokens=False)["input_ids"]]
    return {"tokenizer": digest(behaviour)[:16], "template": digest(tokenizer.chat_template)[:16]}


def end_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the token that every answer ends in: what the chat template closes a turn with, or the end of text."""
    closer = turn_closer(tokenizer)
    token = tokenizer.eos_token_id if closer is None else closer
    assert isinstance(token, int)
    return token


def with_score_head(model: PreTrainedModel, seed: int, labels: int = 1) -> PreTrainedModel:
    """Replace a causal model's language head by a new score head. The trunk is the same modules, without dropout.

    Without dropout, two answers are compared under one model and not under two (arXiv 2403.17031).

    Args:
        model: the causal model.
        seed: of the head.
        labels: how many numbers the head gives: 1 for a reward model.

    Raises:
        InputError: The architecture has no form with a linear score head.
    """
    config = deepcopy(model.config)
    config.num_labels = labels
    try:
        with torch.device("meta"):
            scorer: Any = AutoModelForSequenceClassification.from_config(config)
    except ValueError as error:
        raise InputError(
            f"a {config.model_type} model has no form that gives a score: choose another --model"
        ) from error
    name = scorer.base_model_prefix
    trunk, head = getattr(model, name, None), getattr(scorer, "score", None)
    if type(trunk) is not type(getattr(scorer, name)) or not isinstance(head, torch.nn.Linear):
        raise InputError(f"{type(scorer).__name__}: is not this model with a linear head; choose another --model")
    setattr(scorer, name, trunk)
    scorer.score = score_head(head.in_features, seed, labels).to(model.device)  # in float32, whatever the trunk is in
    scorer.config.pad_token_id = model.config.pad_token_id
    scorer.generation_config = None  # it generates nothing
    for name, value in scorer.config.to_dict().items():
        if ("dropout" in name or "pdrop" in name) and isinstance(value, float):
            setattr(scorer.config, name, 0.0)
    reward_model: PreTrainedModel = without_dropout(scorer)
    return reward_model


def close_answers(tokenizer: PreTrainedTokenizerBase) -> None:
    """Make the chat template end an answered conversation with the token where the score is read, and nothing more."""
    end_answers(tokenizer, str(tokenizer.decode([end_token(tokenizer)])), is_closed=turn_closer(tokenizer) is not None)


def separate_padding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Choose a pad token that no answer ends in, for a model that will score.

    A reserved token, that for unknown text, the start token, or else the last word of a byte-level vocabulary: its name
    there begins with a sign that stands for a space, so that no text is split otherwise for its sake.

    Returns:
        A note for the report; None if the pad token is such a token.

    Raises:
        InputError: There is no such token.
    """
    end = end_token(tokenizer)
    if tokenizer.pad_token_id != end:
        return None
    special = [*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()]
    reserved = sorted(token for token in special if RESERVED.search(token))
    words = sorted((number, token) for token, number in tokenizer.get_vocab().items() if token.startswith(SPACE))
    candidates = [*reserved, tokenizer.unk_token, tokenizer.bos_token, *(token for _, token in words[-1:])]
    usable = [token for token in candidates if token and tokenizer.convert_tokens_to_ids(token) != end]
    if not usable:
        raise InputError("the tokenizer has no token but the end token to pad with; choose another --model")
    tokenizer.pad_token = usable[0]
    model.config.pad_token_id = tokenizer.pad_token_id
    return f"pad token: {tokenizer.pad_token}, since a score is read at the end token"


def load_head(score: torch.nn.Linear, folder: Path) -> Head:
    """Return the score head in a folder, in float32 as it was saved: the library loads it in the type of the trunk."""
    head = Head(score.in_features, 1, bias=score.bias is not None)
    head.load_state_dict(score.state_dict())
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as tensors:
            for name in {"score.weight", "score.bias"}.intersection(tensors.keys()):
                head.get_parameter(name.removeprefix("score.")).data.copy_(tensors.get_tensor(name))
    return head


def raw_scores(model: PreTrainedModel, sequences: Sequence[TokenIds], *, pad_id: int, batch_size: int) -> Numbers:
    """Return the raw reward of each sequence, in order; it does not depend on the other sequences of the batch."""
    scores: Numbers = label_logits(model, sequences, pad_id=pad_id, batch_size=batch_size)[:, 0]
    return scores


def label_logits(model: PreTrainedModel, sequences: Sequence[TokenIds], *, pad_id: int, batch_size: int) -> Numbers:
    """Return the logits of a model with a head for labels, of shape (sequences, labels)."""
    logits = np.empty((len(sequences), model.config.num_labels))
    half = model.dtype == torch.bfloat16  # the trunk; the head is in float32, as in training
    with inference_mode(model), torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=half):
        for indices in in_batches([len(ids) for ids in sequences], batch_size, MAX_TOKENS):
            batch = [sequences[i] for i in indices]
            inputs = {"input_ids": pad(batch, pad_id), "attention_mask": attention_mask(batch)}
            on_device = {name: value.to(model.device) for name, value in inputs.items()}
            logits[indices] = model(**on_device).logits.double().cpu().numpy()
    return logits


def load_weights(folder: Path, contract: Contract) -> PreTrainedModel:
    """Load a reward model's weights, or its adapters on their base, onto the device at hand.

    Weights are in float32 on a CPU, else as they were saved.

    Raises:
        InputError: They cannot be loaded, some are missing (the library would make them up), or the base has changed.
    """
    gpu = torch.cuda.is_available()
    dtype: Any = "auto" if gpu else torch.float32
    model: Any
    if not is_adapter(folder):
        try:
            model, info = load_network(
                AutoModelForSequenceClassification, folder, dtype=dtype, output_loading_info=True
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise InputError(f"{folder}: cannot be loaded: {first_line(error)}") from error
        refuse_missing(folder, info["missing_keys"])
        model.score = load_head(model.score, folder)
    else:
        base = adapter_base(folder)
        if weights_digest(base) != contract.model:
            raise InputError(f"{folder}: its base {base} is not the model that it was trained on; merge adapters early")
        language_model = load_full_model(base, dtype)
        language_model.config.pad_token_id = contract.pad
        model = load_adapter(with_score_head(language_model, seed=0), folder)
    loaded: PreTrainedModel = model.to("cuda" if gpu else "cpu").eval()
    return loaded
