"""A reward model of `datagen train reward` as a reward: it scores texts exactly as it was trained to.

Prompt and answer are encoded with the model's own tokenizer and chat template, and the score is read where its contract
says (models/reward_model.py). 0 is the mean of the reference answers, 1 their standard deviation.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from datagen.errors import InputError
from datagen.records.record import Text, as_messages
from datagen_train.data.encode import Encoder
from datagen_train.data.rankings import scored_ids
from datagen_train.errors import UnusableRow
from datagen_train.models.load import load_tokenizer
from datagen_train.models.reward_model import (
    Contract,
    end_token,
    load_weights,
    raw_scores,
    read_contract,
    tokenizer_digests,
)
from datagen_train.rewards.functions import Score, completion_text


class RewardModel:
    """Scores answers to prompts; also a reward function of TRL's protocol.

    Args:
        model: The weights, on the device that computes.
        tokenizer: The tokenizer that the contract names.
        contract: What a score depends on beside the weights.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, contract: Contract) -> None:
        self.model, self.tokenizer, self.contract = model, tokenizer, contract
        self.encoder = Encoder(tokenizer, {contract.end, tokenizer.eos_token_id}, contract.max_length, "drop")

    def __call__(self, prompts: Sequence[Text], completions: Sequence[Any], **_: Any) -> list[Score]:
        return list(self.score(list(prompts), [completion_text(completion) for completion in completions]))

    def score(self, prompts: Sequence[Text], responses: Sequence[str], *, batch_size: int = 32) -> list[float]:
        """Return one score per answer: what the model gives, and the contract's constant.

        Args:
            prompts: Texts, or lists of messages.
            responses: The answer to each prompt.
            batch_size: Answers in one forward pass.

        Returns:
            One number per answer, in order; 0 is the mean of the reference answers, 1 their standard deviation.

        Raises:
            InputError: A prompt cannot be encoded or leaves no room for an answer; the message gives its number.
        """
        return [logit + self.contract.bias for logit in self.raw(prompts, responses, batch_size=batch_size)]

    def raw(self, prompts: Sequence[Text], responses: Sequence[str], *, batch_size: int = 32) -> list[float]:
        """Return what the model itself gives, as any other code reads it; arguments and errors as in `score`."""
        sequences = [self.encode(number, *pair) for number, pair in enumerate(zip(prompts, responses, strict=True), 1)]
        return list(map(float, raw_scores(self.model, sequences, pad_id=self.contract.pad, batch_size=batch_size)))

    def encode(self, number: int, prompt: Text, response: str) -> np.ndarray[Any, np.dtype[np.int32]]:
        """Encode prompt and answer up to the scored token; `number` is the prompt's place, from 1, for the error.

        Special tokens are removed from the answer: what a policy writes must neither end it early nor stop a run.
        """
        try:
            ids, _, _ = scored_ids(self.encoder, prompt, self.encoder.without_special(response))
        except UnusableRow as reason:
            start = as_messages(prompt)[-1]["content"][:40]
            raise InputError(f"reward model: prompt {number} ({start!r}) cannot be scored: {reason}") from reason
        return np.array(ids, dtype=np.int32)


def load_reward(path: str | Path) -> RewardModel:
    """Load a reward model and check it against its contract.

    Args:
        path: The folder that `datagen train reward` wrote; adapters need their base model.

    Returns:
        The model on the device at hand, in evaluation mode.

    Raises:
        InputError: The folder holds no reward model, or is not what its contract says.
    """
    logging.disable_progress_bar()
    folder = Path(path)
    contract = read_contract(folder)
    tokenizer = load_tokenizer(str(folder))
    for name, digest in tokenizer_digests(tokenizer).items():
        if digest != getattr(contract, name):
            raise InputError(
                f"{folder}: its {name} is not the one it was trained with, so scores would be read from other tokens; "
                "restore the folder or train again"
            )
    if (tokenizer.pad_token_id, end_token(tokenizer)) != (contract.pad, contract.end):
        raise InputError(f"{folder}: its pad or end token is not the one it was trained with; restore the folder")
    return RewardModel(load_weights(folder, contract), tokenizer, contract)
