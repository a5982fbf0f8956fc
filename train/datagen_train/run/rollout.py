"""Rollouts: answers sampled from the policy, and everything that is known about them before learning begins.

The log-probabilities are taken by the forward that learns, at the same temperature and with the same tokens
suppressed (2403.17031): those that came up while sampling differ by rounding, and the ratio would not begin at 1. The
reference and the critic look once, in batches sorted by length and larger than those that learn.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from hashlib import sha256

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from datagen.llm.local.generation import Generated, Ids, generate, in_batches
from datagen.records.record import Record
from datagen_train.models.actor_critic import ActorCritic, Batch, as_reference, lay_out, log_probs_of

BATCH, MOST_TOKENS, MOST_LOGITS = 256, 1 << 15, 1 << 27
"""Answers looked at together without gradients: at most so many, so many padded tokens, so many logits."""
GENERATED_TOGETHER = 256
Context = Callable[[], AbstractContextManager[object]]


@dataclass
class Rollout:
    """Answers to prompts. Tensors are (answers, tokens), or (answers,)."""

    rows: list[Record]
    prompts: list[Ids]
    made: list[Generated]
    mask: Tensor
    """True at the tokens that are learned from: none, where an answer has no score."""
    log_probs: Tensor
    reference: Tensor
    values: Tensor
    entropy: Tensor
    scores: Tensor = field(default_factory=lambda: torch.empty(0))
    """As they enter the rewards; 0 where there is none, which the mask leaves out."""

    @property
    def answers(self) -> list[Ids]:
        return [each.ids for each in self.made]

    @property
    def lengths(self) -> Tensor:
        return torch.tensor([float(len(each.ids)) for each in self.made])

    @property
    def ended(self) -> list[bool]:
        return [each.finish_reason == "stop" for each in self.made]

    def batch(self, rows: Sequence[int], device: torch.device) -> Batch:
        """Lay some of the answers out, no wider than the longest of them."""
        made = lay_out([self.prompts[i] for i in rows], [self.made[i].ids for i in rows], device)
        return made._replace(mask=self.mask[list(rows), : made.mask.shape[1]])


def seed_of(seed: int, step: int, row: int) -> int:
    """Draw an answer by where it stands alone: the same after a resume, in any batch, on any process."""
    return int.from_bytes(sha256(f"{seed}:{step}:{row}".encode()).digest()[:7])


def sample(
    model: ActorCritic, tokenizer: PreTrainedTokenizerBase, prompts: list[Ids], seeds: list[int], max_tokens: int
) -> list[Generated]:
    """Answer every prompt, sampled from the whole distribution; each stops at the first token that ends it."""
    return generate(
        model.policy,
        tokenizer,
        prompts,
        max_tokens=max_tokens,
        temperature=model.distribution.temperature,
        suppressed=model.distribution.suppressed,
        seeds=seeds,
        batch_size=GENERATED_TOGETHER,
    )


@torch.no_grad()
def look(
    model: ActorCritic,
    reference: torch.nn.Module | None,
    rows: list[Record],
    prompts: list[Ids],
    made: list[Generated],
    context: Context = nullcontext,
) -> Rollout:
    """Look at answers with policy, critic and reference (None: the policy without its adapters)."""
    device = model.head.weight.device
    shape = (len(made), max(len(each.ids) for each in made))
    log_probs, values, entropy, known = (torch.zeros(shape, device=device) for _ in range(4))
    mask = torch.zeros(shape, dtype=torch.bool, device=device)
    vocabulary = int(model.policy.config.get_text_config().vocab_size)
    most = min(MOST_TOKENS, max(1, MOST_LOGITS // vocabulary))
    for at in in_batches([len(p) + len(m.ids) for p, m in zip(prompts, made, strict=True)], BATCH, most):
        batch = lay_out([prompts[i] for i in at], [made[i].ids for i in at], device)
        with context():
            output, _ = model(batch)
            expected = reference_log_probs(model, reference, batch)
        width = batch.mask.shape[1]
        for whole, part in (
            (log_probs, output.log_probs), (values, output.values), (entropy, output.entropy), (known, expected),
        ):  # fmt: skip
            whole[at, :width] = torch.where(batch.mask, part.float(), 0.0)
        mask[at, :width] = batch.mask
    return Rollout(rows, prompts, made, mask, log_probs, known, values, entropy)


def reference_log_probs(model: ActorCritic, reference: torch.nn.Module | None, batch: Batch) -> Tensor:
    """Return what the reference gives the answers' tokens."""
    if reference is not None:
        return log_probs_of(reference, batch, model.distribution)
    with as_reference(model.policy) as bare:
        return log_probs_of(bare, batch, model.distribution)
