"""The reward model as a thing to use: its head, its scores, and the contract that it is saved with.

A score is read at one token, the end token of the answer, which is the last that is no padding; the model is the SFT
model without its language head, with a linear one in its place (InstructGPT, arXiv 2203.02155). The folder is what
`AutoModelForSequenceClassification` loads; reward.json beside the weights holds the rest: which tokenizer and template,
where to read, how long, and gain and bias, which set the mean of the reference answers to 0 and their spread to 1.

`load_reward` checks all of it, since a score that is read elsewhere is a number like any other.
"""

import json
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from datagen.errors import InputError
from datagen.llm.local.generation import in_batches, inference_mode, load_full_model
from datagen.llm.local.weights import adapter_base, weights_digest
from datagen.records.files import write_json
from datagen.records.record import Text, as_messages, digest
from datagen_train.data.encode import Encoder, UnusableRow
from datagen_train.data.rankings import TokenIds, end_token, padded, scored_ids
from datagen_train.models.load import load_tokenizer
from datagen_train.reward_loss import Numbers

CONTRACT = "reward.json"
VERSION = 1
SCORED_TOKEN = "the end token: the last token that is not padding"
MOST_TOKENS = 1 << 16
"""Padded tokens in a batch that is scored without gradients."""
PROBE = "1 + 23 = 24? Ja, größer; 你好 👋\n\tfor x in range(3): pass"
"""A text of all sorts: another tokenizer makes other tokens of it."""


def as_scorer(model: PreTrainedModel, seed: int) -> PreTrainedModel:
    """Put a score head in place of a causal model's language head; the trunk is the very same modules."""
    config = deepcopy(model.config)
    config.num_labels = 1
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
    scorer.score = make_head(head.in_features, seed).to(model.device)  # in float32, whatever the trunk is in
    scorer.config.pad_token_id = model.config.pad_token_id
    scorer.generation_config = None  # it generates nothing
    without_dropout(scorer)
    made: PreTrainedModel = scorer
    return made


def make_head(width: int, seed: int) -> torch.nn.Linear:
    """Draw the head: standard deviation 1 / sqrt(d + 1) (arXiv 2009.01325 as corrected in arXiv 2403.17031).

    It has no bias, which comparisons could not determine."""
    head = torch.nn.Linear(width, 1, bias=False)
    torch.nn.init.normal_(head.weight, std=(width + 1) ** -0.5, generator=torch.Generator().manual_seed(seed))
    return head


def without_dropout(model: PreTrainedModel) -> None:
    """Turn dropout off for good: two answers are compared under one model, not under two (arXiv 2403.17031)."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if "dropout" in name and isinstance(value, float):
                setattr(module, name, 0.0)
    for name, value in model.config.to_dict().items():
        if ("dropout" in name or "pdrop" in name) and isinstance(value, float):
            setattr(model.config, name, 0.0)


def raw_scores(model: PreTrainedModel, sequences: Sequence[TokenIds], *, pad: int, batch_size: int) -> Numbers:
    """Return the raw reward of each sequence, in order; a score does not depend on what is scored beside it."""
    scores = np.empty(len(sequences))
    half = model.dtype == torch.bfloat16  # the trunk; the head is in float32, as it was when it was trained
    with inference_mode(model), torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=half):
        for batch in in_batches([len(each) for each in sequences], batch_size, MOST_TOKENS):
            inputs = {k: v.to(model.device) for k, v in padded([sequences[i] for i in batch], pad).items()}
            scores[batch] = model(**inputs).logits[:, 0].double().cpu().numpy()
    return scores


@dataclass(frozen=True)
class Contract:
    """What a score depends on beside the weights."""

    tokenizer: str
    """Digest of its vocabulary and of what it makes of a text."""
    template: str
    """Digest of the chat template."""
    end: int
    pad: int
    max_length: int
    gain: float
    bias: float
    """score = gain * raw + bias."""
    references: int
    """How many answers gain and bias were set by."""
    model: str
    """What it was trained from; an adapter needs just that."""
    data: str
    """Digest of the rows."""
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
    """Read reward.json; raise InputError if it is not there or says something else."""
    if not is_reward_model(folder):
        raise InputError(f"{folder}: holds no {CONTRACT}, so it is no reward model; make one: datagen train reward")
    try:
        given = json.loads((folder / CONTRACT).read_bytes())
        contract = Contract(**given)
    except (ValueError, TypeError) as error:
        raise InputError(f"{folder / CONTRACT}: {error}; train the reward model again") from error
    if contract.version != VERSION or contract.scored_token != SCORED_TOKEN or contract.padding != "right":
        names = [field.name for field in fields(Contract) if field.name in ("version", "scored_token", "padding")]
        raise InputError(f"{folder / CONTRACT}: {', '.join(names)} are of another version; train the model again")
    return contract


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Name a tokenizer by its vocabulary and what it does, not by how its files are written."""
    return digest([sorted(tokenizer.get_vocab().items()), tokenizer(PROBE, add_special_tokens=False)["input_ids"]])[:16]


def template_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    return digest(tokenizer.chat_template)[:16]


class RewardModel:
    """Scores answers to prompts."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, contract: Contract) -> None:
        self.model, self.tokenizer, self.contract = model, tokenizer, contract
        self.encoder = Encoder(tokenizer, {contract.end, tokenizer.eos_token_id}, contract.max_length)

    def score(self, prompts: Sequence[Text], responses: Sequence[str], *, batch_size: int = 32) -> list[float]:
        """Return one score per answer, normalised: 0 is the mean of the reference answers, 1 their spread."""
        gain, bias = self.contract.gain, self.contract.bias
        return [gain * raw + bias for raw in self.raw(prompts, responses, batch_size=batch_size)]

    def raw(self, prompts: Sequence[Text], responses: Sequence[str], *, batch_size: int = 32) -> list[float]:
        """Return the scores as the head gives them.

        Special tokens in an answer are taken out: what a policy writes must not end it early, nor stop a run. A prompt
        that cannot be encoded, or leaves no room for an answer, is an InputError that names its place, from 1.
        """
        sequences = [self._encode(n, *each) for n, each in enumerate(zip(prompts, responses, strict=True), 1)]
        return list(map(float, raw_scores(self.model, sequences, pad=self.contract.pad, batch_size=batch_size)))

    def _encode(self, number: int, prompt: Text, response: str) -> TokenIds:
        try:
            ids, _, _ = scored_ids(self.encoder, prompt, self.encoder.without_special(response))
        except UnusableRow as reason:
            said = as_messages(prompt)[-1]["content"][:40]
            raise InputError(f"reward model: prompt {number} ({said!r}) cannot be scored: {reason}") from reason
        return np.array(ids, dtype=np.int32)


def load_reward(path: str | Path) -> RewardModel:
    """Load a reward model onto the device at hand; raise InputError if it is not what its contract says.

    Weights are in float32 on a CPU, else as they were saved.
    """
    logging.disable_progress_bar()
    folder = Path(path)
    contract = read_contract(folder)
    tokenizer = load_tokenizer(str(folder))
    for name, found in (("tokenizer", tokenizer_digest(tokenizer)), ("template", template_digest(tokenizer))):
        if found != getattr(contract, name):
            raise InputError(
                f"{folder}: its {name} is not the one it was trained with, so scores would be read from other tokens; "
                "restore the folder or train again"
            )
    if (tokenizer.pad_token_id, end_token(tokenizer)) != (contract.pad, contract.end):
        raise InputError(f"{folder}: its pad or end token is not the one it was trained with; restore the folder")
    model: Any = _open(folder, contract, tokenizer, "auto" if torch.cuda.is_available() else torch.float32)
    return RewardModel(model.to("cuda" if torch.cuda.is_available() else "cpu").eval(), tokenizer, contract)


def _open(folder: Path, contract: Contract, tokenizer: PreTrainedTokenizerBase, dtype: Any) -> PreTrainedModel:
    base = adapter_base(folder)
    if base is None:
        return _load_whole(folder, dtype)
    if Path(base).is_dir() and weights_digest(Path(base)) != contract.model:
        raise InputError(f"{folder}: its base {base} is not the model that it was trained on; merge adapters early")
    from peft import PeftModel

    whole = load_full_model(base, dtype)
    if len(tokenizer) > whole.get_input_embeddings().num_embeddings:
        whole.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    whole.config.pad_token_id = contract.pad
    return PeftModel.from_pretrained(as_scorer(whole, seed=0), str(folder))


def _load_whole(folder: Path, dtype: Any) -> PreTrainedModel:
    """Load weights; raise if the head or anything else is missing, which the library would make up."""
    try:
        loaded: Any = AutoModelForSequenceClassification.from_pretrained(
            str(folder), dtype=dtype, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{folder}: cannot be loaded: {str(error).strip().splitlines()[0][:300]}") from error
    model: PreTrainedModel = loaded[0]
    if missing := sorted(loaded[1]["missing_keys"]):
        raise InputError(f"{folder}: {len(missing)} weights are missing, such as {missing[0]}; train it again")
    return model
