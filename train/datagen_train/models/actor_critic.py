"""The policy and its critic as one module, and the batches of prompts and answers they run on.

    critic   shared      a value head on the policy's own trunk, no second model     (initialised to zero, 1909.08593)
             separate    its own trunk: a reward model (2203.02155, 2403.17031) or any other model

Prompts are padded on the left, answers on the right, and positions are counted from the first real token. So all
answers of a batch are in the same columns, and logits are computed for these columns alone.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForSequenceClassification, PreTrainedModel

from datagen.errors import InputError
from datagen.llm.local.generation import Ids
from datagen.llm.local.loading import load_network
from datagen.llm.local.weights import CONTRACT, is_classifier
from datagen_train.errors import first_line
from datagen_train.models.heads import Head, hidden_width, value_head
from datagen_train.models.load import load_tokenizer
from datagen_train.models.sharding import saved_state
from datagen_train.models.tokens import attention_mask, pad

SHARED = "shared"
HEAD = "value_head.safetensors"


class Batch(NamedTuple):
    """Prompts with their answers."""

    ids: Tensor
    """(rows, prompt + answer), prompts padded on the left and answers on the right."""
    attention: Tensor
    """(rows, prompt + answer): 1 at the tokens, 0 at the padding."""
    answer: Tensor
    """(rows, answer): the ids of the answers."""
    mask: Tensor
    """(rows, answer): true at the answers' tokens."""


class Output(NamedTuple):
    """What the model computes of every answer token; of shape (rows, answer) where nothing else is said."""

    log_probs: Tensor
    values: Tensor
    logits: Tensor
    """(rows, answer, vocabulary): what the answers are sampled from."""

    def entropy(self) -> Tensor:
        """Return the entropy of the distribution of each token, in nats. It costs another copy of the logits."""
        log_probs = self.logits.log_softmax(-1)
        return -(log_probs.exp() * log_probs).sum(-1)


def make_batch(prompts: Sequence[Ids], answers: Sequence[Ids], device: torch.device) -> Batch:
    """Pad prompts on the left and answers on the right; the id under the padding does not matter."""
    ids = torch.cat([pad(prompts, 0, left=True), pad(answers, 0)], dim=1).to(device)
    attention = torch.cat([attention_mask(prompts, left=True), attention_mask(answers)], dim=1).to(device)
    start = max(map(len, prompts))
    return Batch(ids, attention, ids[:, start:], attention[:, start:].bool())


@dataclass(frozen=True)
class Distribution:
    """The distribution that answers are sampled from; sampling and learning use the same one."""

    temperature: float = 1.0
    suppressed: tuple[int, ...] = ()
    """Tokens that are never sampled, such as [UNK]."""

    def logits(self, logits: Tensor) -> Tensor:
        """Divide logits by the temperature, in float32, and suppress tokens."""
        logits = logits.float()
        if self.temperature != 1:
            logits = logits / self.temperature
        if self.suppressed:
            tokens = torch.tensor(self.suppressed, device=logits.device)
            logits = logits.index_fill(-1, tokens, torch.finfo(logits.dtype).min)
        return logits


def forward_batch(model: Any, batch: Batch, **arguments: Any) -> Any:
    """Call a transformers model on a batch, with positions that skip the left padding."""
    inner = getattr(model, "module", model)  # DDP and adapters pass everything on
    inner = inner.get_base_model() if hasattr(inner, "get_base_model") else inner
    accepted = signature(inner.forward).parameters
    if "position_ids" in accepted:
        arguments["position_ids"] = (batch.attention.cumsum(1) - 1).clamp_min(0)
    if "logits_to_keep" in accepted:
        arguments["logits_to_keep"] = batch.answer.shape[1] + 1
    return model(input_ids=batch.ids, attention_mask=batch.attention, use_cache=False, **arguments)


def before_answer_tokens(states: Tensor, batch: Batch) -> Tensor:
    """Keep the positions just before each answer token, where that token is predicted."""
    return states[:, -(batch.answer.shape[1] + 1) : -1]


def token_log_probs(logits: Tensor, tokens: Tensor) -> Tensor:
    """Return the log-probability of each token, in float32."""
    logits = logits.float()
    return logits.gather(-1, tokens[..., None])[..., 0] - logits.logsumexp(-1)


def answer_log_probs(policy: nn.Module, batch: Batch, distribution: Distribution) -> Tensor:
    """Return the log-probabilities of the answers' tokens, (rows, answer)."""
    logits = before_answer_tokens(forward_batch(policy, batch).logits, batch)
    return token_log_probs(distribution.logits(logits), batch.answer)


class ActorCritic(nn.Module):
    """A policy and the critic that predicts its rewards.

    Args:
        policy: The language model that is trained.
        critic: The critic's trunk; None shares the policy's.
        head: The linear layer from the trunk's last states to values.
        distribution: How logits become probabilities.
    """

    def __init__(
        self, policy: PreTrainedModel, critic: nn.Module | None, head: Head, distribution: Distribution
    ) -> None:
        super().__init__()
        self.policy, self.critic, self.head, self.distribution = policy, critic, head, distribution

    def forward(self, batch: Batch, ptx: tuple[Tensor, Tensor, Tensor] | None = None) -> tuple[Output, Tensor]:
        """Return the outputs at the answers' tokens, and the language-modelling loss of other sequences.

        `ptx` holds (ids, mask, labels) of these; without it the loss is 0. DDP wants both in one call.
        """
        policy = forward_batch(self.policy, batch, **({} if self.critic else {"output_hidden_states": True}))
        logits = self.distribution.logits(before_answer_tokens(policy.logits, batch))
        states = forward_batch(self.critic, batch).last_hidden_state if self.critic else policy.hidden_states[-1]
        values = self.head(before_answer_tokens(states, batch))[..., 0]
        output = Output(token_log_probs(logits, batch.answer), values, logits)
        if ptx is None:
            return output, values.new_zeros(())
        ids, mask, labels = ptx
        return output, self.policy(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss

    def enable_checkpointing(self) -> None:
        """Recompute the activations of policy and critic in the backward pass."""
        for trunk in (self.policy, self.critic):
            if trunk is not None:
                model: Any = trunk
                model.gradient_checkpointing_enable()
                model.enable_input_require_grads()

    def critic_states(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the weights of the critic's head and trunk, as `saved_state` does."""
        return saved_state(self.head), {} if self.critic is None else saved_state(self.critic)

    def save_critic(self, folder: Path, head: dict[str, Tensor], trunk: dict[str, Tensor]) -> None:
        """Save the critic by its weights, so that another run can start from it (--critic FOLDER)."""
        folder.mkdir(exist_ok=True)
        save_file({name: value.contiguous() for name, value in head.items()}, folder / HEAD)
        if self.critic is not None:
            critic: Any = self.critic
            critic.save_pretrained(folder, state_dict=trunk)


def default_critic(rewards: Iterable[str], vocabulary: dict[str, int]) -> str:
    """Return the folder of the only reward model among the rewards if it can be the critic, else "shared".

    It must be a complete model (no adapters) whose tokenizer is the policy's.
    """
    folders = [name for name in rewards if (Path(name) / CONTRACT).is_file()]
    complete = len(folders) == 1 and not (Path(folders[0]) / "adapter_config.json").exists()
    if complete and load_tokenizer(folders[0]).get_vocab() == vocabulary:
        return folders[0]
    return SHARED


def load_critic(path: str, vocabulary: dict[str, int]) -> tuple[nn.Module, Head]:
    """Load a critic's trunk and head: what an earlier run saved as `value`, a reward model, or any other model.

    Raises:
        InputError: The folder cannot be loaded, has no trunk, or has another tokenizer than the policy.
    """
    folder = Path(path)
    saved_value = (folder / HEAD).exists()
    if load_tokenizer(str(folder.parent if saved_value else folder)).get_vocab() != vocabulary:
        raise InputError(f"--critic {path}: has another tokenizer than the policy; a critic must see the same tokens")
    if saved_value and not (folder / "config.json").exists():
        raise InputError(f"--critic {path}: is a value head without a trunk (it was trained with --critic shared)")
    try:
        if is_classifier(folder):
            return _from_reward_model(path)
        trunk = load_network(AutoModel, path, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise InputError(f"--critic {path}: cannot be loaded: {first_line(error)}") from error
    head = value_head(hidden_width(trunk))
    if saved_value:
        head.load_state_dict(load_file(folder / HEAD))
    return trunk, head


def _from_reward_model(path: str) -> tuple[nn.Module, Head]:
    """Take a reward model's trunk and head, with the constant of its contract as the head's bias."""
    model: Any = load_network(AutoModelForSequenceClassification, path, dtype=torch.float32)
    score = getattr(model, "score", None)
    if not isinstance(score, nn.Linear) or score.out_features != 1:
        raise InputError(f"--critic {path}: is a classifier, not a reward model with one score")
    contract_file = Path(path) / CONTRACT
    bias = float(json.loads(contract_file.read_text())["bias"]) if contract_file.exists() else 0.0
    head = value_head(score.in_features)
    with torch.no_grad():
        head.weight.copy_(score.weight)
        head.bias.fill_(bias if score.bias is None else bias + float(score.bias))
    return model.base_model, head
