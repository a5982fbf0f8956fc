"""Rollouts: answers sampled from the policy, and what is computed of each token before learning begins.

The log-probabilities come from the same forward pass as in learning, at the same temperature and with the same tokens
suppressed (arXiv 2403.17031): those of the sampler differ by rounding, and the ratio would not start at 1. Policy,
critic and reference run once over all answers, in batches sorted by length.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from hashlib import sha256
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from datagen.llm.local.generation import Generated, Ids, generate, in_batches
from datagen.records.record import Record
from datagen_train.models.actor_critic import ActorCritic, Batch, Distribution, answer_log_probs, make_batch
from datagen_train.models.sharding import as_many_everywhere, in_step, is_sharded
from datagen_train.rewards.specs import Scored

MAX_BATCH, MAX_TOKENS, MAX_LOGITS = 256, 1 << 15, 1 << 27
"""Limits of a batch without gradients: answers, padded tokens, numbers in the logits."""
SAMPLING_BATCH = 256
"""Answers that are sampled together."""
NGRAM = 4
"""Tokens of an n-gram in `repetition`."""


@dataclass
class Rollout:
    """Answers to a batch of prompts. Tensors have the shape (answers, tokens), or (answers,)."""

    rows: list[Record]
    prompts: list[Ids]
    completions: list[Generated]
    mask: Tensor
    """True at the tokens to learn from; an answer without a score has none."""
    log_probs: Tensor
    """Of the policy that sampled the answers; natural logarithms."""
    reference: Tensor
    """Log-probabilities of the reference model."""
    values: Tensor
    """The critic's prediction before each token."""
    entropy: Tensor
    """Of the policy's distribution at each token, in nats."""
    weights: Tensor
    """What each token counts for: 1, or its importance weight if a server sampled it (run/sampler.py)."""
    scores: Tensor = field(default_factory=lambda: torch.empty(0))
    """(answers,): the shaped scores; 0 for an answer without one, which the mask leaves out."""

    @property
    def ended(self) -> list[bool]:
        """Whether each answer ended by itself (and was not cut at the longest length)."""
        return [completion.finish_reason == "stop" for completion in self.completions]

    def samples(self, scored: Scored) -> list[dict[str, Any]]:
        """Return the answers with their scores, as rows of samples.jsonl."""
        kl = torch.where(self.mask, self.log_probs - self.reference, 0.0).sum(1).tolist()
        return [
            {
                "prompt": row.prompt,
                "response": completion.text,
                **({"reasoning": completion.reasoning} if completion.reasoning else {}),
                "finish_reason": completion.finish_reason,
                "reward": scored.total[i],
                "parts": {name: part[i] for name, part in scored.parts.items()},
                "kl": kl[i],
                **{name: values[i] for name, values in scored.extra.items()},
            }
            for i, (row, completion) in enumerate(zip(self.rows, self.completions, strict=True))
        ]

    def batch(self, rows: Sequence[int], device: torch.device) -> Batch:
        """Return some of the answers as a batch, padded to the longest of them."""
        batch = make_batch([self.prompts[i] for i in rows], [self.completions[i].ids for i in rows], device)
        return batch._replace(mask=self.mask[list(rows), : batch.mask.shape[1]])


def answer_seeds(seed: int, step: int, rows: Sequence[int]) -> list[int]:
    """Return the seed of the answer to each row in a step: the same in any batch, and on any process."""
    digests = (sha256(f"{seed}:{step}:{row}".encode()).digest() for row in rows)
    return [int.from_bytes(digest[:7]) for digest in digests]


def sample(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    distribution: Distribution,
    prompts: list[Ids],
    seeds: list[int],
    max_tokens: int,
    on_tokens: Callable[[int], None] | None = None,
) -> list[Generated]:
    """Sample one answer to each prompt from the full distribution, up to its first end token or `max_tokens`.

    `on_tokens` is that of `generate`.
    """
    with in_step(policy):
        return generate(
            policy,
            tokenizer,
            prompts,
            max_tokens=max_tokens,
            temperature=distribution.temperature,
            suppressed=distribution.suppressed,
            seeds=seeds,
            batch_size=SAMPLING_BATCH,
            on_tokens=on_tokens,
        )


@torch.no_grad()
def score_tokens(
    model: ActorCritic,
    reference: torch.nn.Module | None,
    rows: list[Record],
    prompts: list[Ids],
    completions: list[Generated],
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Rollout:
    """Forward pass without gradients: log-probs, values, entropy.

    Args:
        model: Policy and critic.
        reference: The frozen reference model; None is the policy without its adapters.
        rows: The rows of the prompts.
        prompts: Token ids of each prompt.
        completions: One answer to each prompt.
        autocast: The context of mixed precision.

    Returns:
        A rollout without scores; its tensors have the shape (answers, tokens of the longest answer).
    """
    device = model.head.weight.device
    shape = (len(completions), max(len(completion.ids) for completion in completions))
    log_probs, values, entropy, reference_log_probs = (torch.zeros(shape, device=device) for _ in range(4))
    mask = torch.zeros(shape, dtype=torch.bool, device=device)
    vocabulary = int(model.policy.config.get_text_config().vocab_size)
    max_tokens = min(MAX_TOKENS, max(1, MAX_LOGITS // vocabulary))
    lengths = [len(prompt) + len(answer.ids) for prompt, answer in zip(prompts, completions, strict=True)]
    batches = in_batches(lengths, MAX_BATCH, max_tokens)
    if is_sharded(model):
        batches = as_many_everywhere(batches, batches[-1], device)
    for indices in batches:
        batch = make_batch([prompts[i] for i in indices], [completions[i].ids for i in indices], device)
        with autocast():
            output, _ = model(batch)
            if reference is not None:
                of_reference = answer_log_probs(reference, batch, model.distribution)
            else:
                with model.policy.disable_adapter():
                    of_reference = answer_log_probs(model.policy, batch, model.distribution)
        width = batch.mask.shape[1]
        for tensor, part in (
            (log_probs, output.log_probs), (values, output.values), (entropy, output.entropy()),
            (reference_log_probs, of_reference),
        ):  # fmt: skip
            tensor[indices, :width] = torch.where(batch.mask, part.float(), 0.0)
        mask[indices, :width] = batch.mask
    weights = torch.ones(shape, device=device)
    return Rollout(rows, prompts, completions, mask, log_probs, reference_log_probs, values, entropy, weights)


def repetition(answers: Sequence[Ids]) -> float:
    """Return the share of the n-grams of an answer that occurred before in it, as a mean over answers.

    This is seq-rep-4 of arXiv 1908.04319. Answers of fewer than 4 tokens have no n-gram, and do not count.
    """
    shares = []
    for ids in answers:
        ngrams = [tuple(ids[i : i + NGRAM]) for i in range(len(ids) - NGRAM + 1)]
        if ngrams:
            shares.append(1 - len(set(ngrams)) / len(ngrams))
    return fmean(shares) if shares else 0.0
