"""The policy and its critic as one module, and how prompts and answers are laid out for them.

    critic   shared    a value head on the policy's own trunk: no second model            (head at zero, 1909.08593)
             own       a model of its own, from a reward model (2203.02155, 2403.17031) or from any folder

Prompts are padded to the left, answers to the right, and positions counted from the first real token. So the answers
of a batch stand in the same columns, and the head that turns states into logits is given those columns alone.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, PreTrainedModel

from datagen.errors import InputError
from datagen.llm.local.generation import Ids
from datagen_train.models.tokens import attention_mask, pad
from datagen_train.ppo_loss import entropy, token_log_probs

SHARED = "shared"
HEAD, SCALE = "value_head.safetensors", "reward.json"


class Batch(NamedTuple):
    """Prompts with their answers: `ids` and `attention` of (rows, prompt + answer), the rest of (rows, answer)."""

    ids: Tensor
    attention: Tensor
    answer: Tensor
    mask: Tensor


class Output(NamedTuple):
    """What is known about every token of the answers, each of (rows, answer)."""

    log_probs: Tensor
    entropy: Tensor
    values: Tensor


def lay_out(prompts: Sequence[Ids], answers: Sequence[Ids], device: torch.device) -> Batch:
    """Pad prompts to the left and answers to the right; the id under the padding is of no matter."""
    ids = torch.cat([pad(prompts, 0, left=True), pad(answers, 0)], dim=1).to(device)
    attention = torch.cat([attention_mask(prompts, left=True), attention_mask(answers)], dim=1).to(device)
    start = max(map(len, prompts))
    return Batch(ids, attention, ids[:, start:], attention[:, start:].bool())


@dataclass(frozen=True)
class Distribution:
    """How logits become the distribution that is sampled from, while answering and while learning alike."""

    temperature: float = 1.0
    suppressed: tuple[int, ...] = ()
    """Tokens that are never said, such as [UNK]."""

    def logits(self, logits: Tensor) -> Tensor:
        logits = logits.float() / self.temperature
        if self.suppressed:
            at = torch.tensor(self.suppressed, device=logits.device)
            logits = logits.index_fill(-1, at, torch.finfo(logits.dtype).min)
        return logits


def run_trunk(model: nn.Module, batch: Batch, **more: Any) -> Any:
    """Call a transformers model on whole sequences, with positions that know of the left padding."""
    known = forward_parameters(model)
    if "position_ids" in known:
        more["position_ids"] = (batch.attention.cumsum(1) - 1).clamp_min(0)
    if "logits_to_keep" in known:
        more["logits_to_keep"] = batch.answer.shape[1] + 1
    return model(input_ids=batch.ids, attention_mask=batch.attention, use_cache=False, **more)


def forward_parameters(model: Any) -> set[str]:
    """Return the names that a model's forward takes; adapters pass everything on."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return set(signature(inner.forward).parameters)


def before_each(states: Tensor, batch: Batch) -> Tensor:
    """Keep what stands before each of the answer's tokens, which is where it was predicted."""
    return states[:, -(batch.answer.shape[1] + 1) : -1]


def log_probs_of(policy: nn.Module, batch: Batch, distribution: Distribution) -> Tensor:
    """Return the log-probabilities of the answers' tokens, (rows, answer)."""
    logits = before_each(run_trunk(policy, batch).logits, batch)
    return token_log_probs(distribution.logits(logits), batch.answer)


class ActorCritic(nn.Module):
    """A policy and what predicts its rewards."""

    def __init__(
        self, policy: PreTrainedModel, critic: nn.Module | None, head: nn.Linear, distribution: Distribution
    ) -> None:
        """`critic` is a trunk, None to share the policy's; `head` turns its states into values."""
        super().__init__()
        self.policy, self.critic, self.head, self.distribution = policy, critic, head, distribution

    def forward(self, batch: Batch, more: tuple[Tensor, Tensor, Tensor] | None = None) -> tuple[Output, Tensor]:
        """Look at answers; also return the loss of other sequences (ids, mask, labels), as one call for DDP."""
        said = run_trunk(self.policy, batch, **({} if self.critic else {"output_hidden_states": True}))
        logits = self.distribution.logits(before_each(said.logits, batch))
        states = run_trunk(self.critic, batch).last_hidden_state if self.critic else said.hidden_states[-1]
        values = self.head(before_each(states, batch).to(self.head.weight.dtype))[..., 0].float()
        with torch.no_grad():
            spread = entropy(logits)
        output = Output(token_log_probs(logits, batch.answer), spread, values)
        if more is None:
            return output, values.new_zeros(())
        ids, mask, labels = more
        return output, self.policy(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss


@contextmanager
def as_reference(policy: Any) -> Iterator[nn.Module]:
    """Use the policy without its adapters: the reference, at no cost of memory."""
    with policy.disable_adapter():
        yield policy


def make_head(width: int) -> nn.Linear:
    """Make a value head that expects nothing yet."""
    head = nn.Linear(width, 1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def load_critic(path: str, vocabulary: dict[str, int]) -> tuple[nn.Module, nn.Linear]:
    """Load a critic: what an earlier run saved as `value`, a reward model, or any trunk (with a head at zero)."""
    from datagen_train.models.load import load_tokenizer

    folder = Path(path)
    whose = folder.parent if (folder / HEAD).exists() else folder
    if load_tokenizer(str(whose)).get_vocab() != vocabulary:
        raise InputError(f"--critic {path}: has another tokenizer than the policy; a critic must see the same tokens")
    if (folder / HEAD).exists() and not (folder / "config.json").exists():
        raise InputError(f"--critic {path}: is a value head without a trunk (it was trained with --critic shared)")
    try:
        if is_classifier(path):
            return from_reward_model(path)
        trunk = AutoModel.from_pretrained(path, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise InputError(f"--critic {path}: cannot be loaded: {str(error).strip().splitlines()[0][:300]}") from error
    head = make_head(trunk.config.get_text_config().hidden_size)
    if (folder / HEAD).exists():
        head.load_state_dict(load_file(folder / HEAD))
    return trunk, head


def is_classifier(path: str) -> bool:
    names = AutoConfig.from_pretrained(path).architectures or []
    return any("SequenceClassification" in name for name in names)


def from_reward_model(path: str) -> tuple[nn.Module, nn.Linear]:
    """Take a reward model's trunk and head, in the normalised units that rewards come in."""
    model: Any = AutoModelForSequenceClassification.from_pretrained(path, dtype=torch.float32)
    score = getattr(model, "score", None)
    if not isinstance(score, nn.Linear) or score.out_features != 1:
        raise InputError(f"--critic {path}: is a classifier, not a reward model with one score")
    gain, bias = read_scale(Path(path) / SCALE)
    head = make_head(score.in_features)
    with torch.no_grad():
        head.weight.copy_(gain * score.weight)
        head.bias.fill_(bias if score.bias is None else bias + gain * float(score.bias))
    return model.base_model, head


def read_scale(contract: Path) -> tuple[float, float]:
    """Return (gain, bias) by which a reward model's raw scores are normalised."""
    known = json.loads(contract.read_text()) if contract.exists() else {}
    return float(known.get("gain", 1.0)), float(known.get("bias", 0.0))


def save_value(model: ActorCritic, folder: Path) -> None:
    """Save the critic beside the policy, so that another run can begin with it (--critic FOLDER/value)."""
    folder.mkdir(exist_ok=True)
    save_file({name: value.contiguous() for name, value in model.head.state_dict().items()}, folder / HEAD)
    if model.critic is not None:
        saved: Any = model.critic
        saved.save_pretrained(folder)
