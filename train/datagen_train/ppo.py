"""Proximal policy optimisation for language models: sample answers, score them, learn, repeat.

PPO is arXiv 1707.06347, GAE arXiv 1506.02438. On language models: Ziegler et al. (arXiv 1909.08593, with the adaptive
KL coefficient), InstructGPT (arXiv 2203.02155), "The N+ Implementation Details of RLHF with PPO" (arXiv 2403.17031). KL
estimators: J. Schulman, "Approximating KL Divergence", 2020.

One training step here is one iteration of the papers: `Ppo.training_step` and `Ppo.update_policy`. The losses and
advantages are the pure functions below the class. The reference model is a frozen copy of the start, or the policy
without its adapters.

Departures. A cut answer pays a penalty (2403.17031 replaces its score by -1: --missing-end-score -1). The critic shares
the policy's trunk unless the reward is a reward model with the policy's tokenizer; then the critic starts from it.
Data order, schedule and checkpoints are `Trainer`'s; its `optimizer.step()` after an iteration finds no gradients.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any, NamedTuple

import torch
from accelerate.utils import gather_object
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import TrainingArguments

from datagen.records.reader import PROMPTS
from datagen.records.record import Record
from datagen_train.data.ptx import PtxData, read_ptx
from datagen_train.data.sources import Data
from datagen_train.data.split import Split
from datagen_train.errors import CheckFailed, TrainingStopped
from datagen_train.models.actor_critic import SHARED, ActorCritic, default_critic, load_critic
from datagen_train.models.heads import hidden_width, value_head
from datagen_train.models.load import frozen_reference, without_dropout
from datagen_train.models.precision import name_dtype
from datagen_train.models.sharding import saved_state
from datagen_train.options import TrainOptions
from datagen_train.policy_options import KL_HORIZON, PPO_ADAPTIVE_KL_COEF, PPO_KL_COEF, PpoOptions
from datagen_train.rates import Rates
from datagen_train.rewards.specs import Rewards, RunningStd, Scored, identity, split_weight
from datagen_train.run.alarms import Alarms
from datagen_train.run.impartial import refuse_partial_judges
from datagen_train.run.library_names import overrides
from datagen_train.run.on_policy import (
    STATE,
    EncodedPrompt,
    OnPolicyTrainer,
    encode_prompts,
    load_policy,
    loop_arguments,
)
from datagen_train.run.progress import Terminal, token_counter
from datagen_train.run.rollout import Rollout, answer_seeds, repetition, score_tokens
from datagen_train.run.sampler import Sampler, compare, open_sampler, truncated_weight
from datagen_train.run.session import Session, open_session

RATES = Rates(full=3e-6, lora=3e-5, tiny=3e-4, toy_steps=20)
"""2403.17031 for full models."""
KL_STEP = 0.2
"""1909.08593: bound of one relative error of the adaptive coefficient."""
EARLY_STOP = 1.5
"""Times --target-kl, above which the updates of an iteration end."""
RATIO_BOUND = 10.0
"""Mean ratio of a mini-batch above which it is skipped: one outlier would undo what was learned."""
LOG_RATIO_BOUND = 20.0
"""Log-ratios are clamped to this before exp, which overflows at 88 in float32."""
RATIO_TOLERANCE, REFERENCE_TOLERANCE = 1e-2, 1e-3
"""Largest distance of the first ratio from 1, and of the first KL per token from 0, in float32."""
MIN_VARIANCE = 1e-8
TRAINED = "trained.safetensors"
"""The file of a checkpoint with the trained weights of policy and critic."""
UPDATE_METRICS = (
    "loss", "policy_loss", "value_loss", "ptx_loss", "ratio", "approx_kl", "clip_fraction", "value_clip_fraction",
    "grad_norm",
)  # fmt: skip
"""Metrics that are means over the updates of an iteration."""


def run(data: Data, options: TrainOptions, algorithm: PpoOptions, terminal: Terminal) -> dict[str, Any]:
    """Train on files of rows; return the report."""
    refuse_partial_judges(algorithm.reward, options.model, allow_self=algorithm.allow_self)
    digests = identity(algorithm.reward)
    with (
        open_session("ppo", data, PROMPTS, options, algorithm, RATES, terminal, digests) as session,
        Rewards(algorithm.reward) as rewards,
    ):
        return train(session, algorithm, rewards)


def train(session: Session, options: PpoOptions, rewards: Rewards) -> dict[str, Any]:
    """Load the policy, its critic and the prompts; train."""
    rows, distribution = load_policy(session, rewards, options.temperature, options.stop_token, options.suppress)
    split = encode_prompts(session, rows, options.max_tokens)
    policy, vocabulary = session.loaded.model, session.loaded.tokenizer.get_vocab()
    spec = options.critic or default_critic([split_weight(reward)[1] for reward in options.reward], vocabulary)
    if spec == SHARED:
        trunk, head = None, value_head(hidden_width(policy))
    else:
        trunk, head = load_critic(spec, vocabulary)
    session.terminal.say(f"critic: {'a value head on the policy' if trunk is None else spec}")
    model = without_dropout(ActorCritic(policy, trunk, head, distribution))
    if session.options.checkpointing:
        model.enable_checkpointing()
    ptx = read_ptx(options.ptx_data, session.encoder) if options.ptx_data else None
    if ptx:
        session.terminal.say(f"--ptx-data: {len(ptx.sequences)} sequences, {ptx.dropped} rows dropped")
    with closing(open_sampler(session, options, distribution)) as sampler:
        trainer = Ppo(session, options, split, rewards, model, sampler, ptx)
        return session.train(trainer, conclude=lambda start, end: {"alarms": trainer.alarms.raised})


class UpdateSums(NamedTuple):
    """Sums over the answer tokens of a mini-batch, which are logged as means."""

    ratio: Tensor
    approx_kl: Tensor
    clipped: Tensor
    value_clipped: Tensor
    policy_loss: Tensor
    value_loss: Tensor


@overrides("_load_from_checkpoint", "_load_best_model")
class Ppo(OnPolicyTrainer):
    """Trains a policy and its critic; `training_step` is one iteration of PPO."""

    model: ActorCritic

    def __init__(
        self,
        session: Session,
        options: PpoOptions,
        split: Split[Record, EncodedPrompt],
        rewards: Rewards,
        model: ActorCritic,
        sampler: Sampler,
        ptx: PtxData | None,
    ) -> None:
        rows = [{"row": torch.tensor(i)} for i in range(len(split.train))]
        reference = frozen_reference(session.loaded.model)
        super().__init__(
            session, options, split, rewards,
            model=model,
            args=TrainingArguments(**loop_arguments(session, split)),
            data_collator=lambda rows: {"row": torch.stack([row["row"] for row in rows])},
            train_dataset=rows,
            eval_dataset=rows[:1] if split.held_out else None,  # `evaluate` answers the held-out prompts
        )  # fmt: skip
        self.suppressed = model.distribution.suppressed
        self.reference = None if reference is None else self.place(reference)
        self.sampler, self.ptx = sampler, ptx
        coef = PPO_ADAPTIVE_KL_COEF if options.adaptive_kl else PPO_KL_COEF
        self.kl = KlController(
            coef if options.kl_coef is None else options.kl_coef, options.adaptive_kl, options.kl_horizon
        )
        self.alarms, self.reward_std = Alarms(options.adaptive_kl), RunningStd()
        self.pending: dict[str, list[float]] = defaultdict(list)
        """Metrics of the iterations since the last log."""
        self.tokens = 0
        """Of the prompts and answers so far, in this process."""

    def training_step(self, model: Any, inputs: dict[str, Tensor], num_items_in_batch: Any = None) -> Tensor:
        """Run one iteration on a batch of prompts, `inputs["row"]`; return its mean loss."""
        options, step, terminal = self.options, self.state.global_step + 1, self.session.terminal
        model.train()  # there is no dropout; gradient checkpointing needs this mode

        # 1. Sample an answer to each prompt of the batch (1909.08593, section 2).
        indices = inputs["row"].tolist()
        rows, prompts = [self.prompts[i].row for i in indices], [self.prompts[i].ids for i in indices]
        seeds = answer_seeds(self.args.seed, step, indices)
        terminal.phase("sampling")
        completions, of_sampler = self.sampler.sample(prompts, seeds, token_counter(terminal))
        self.tokens += sum(map(len, prompts)) + sum(len(completion.ids) for completion in completions)

        # 2. Compute log-probabilities of policy and reference, values and entropies of all tokens, once.
        rollout = score_tokens(self.model, self.reference, rows, prompts, completions, self.accelerator.autocast)
        if step == 1:
            self.check_reference(rollout)
        gap = {}
        if of_sampler is not None:
            log_ratio, gap["sampler_gap"] = compare(rollout.log_probs, rollout.mask, of_sampler, self.accelerator)
            rollout.weights = truncated_weight(log_ratio)

        # 3. Score the answers. One without a score is masked out: nothing is learned from it.
        texts, ids = [completion.text for completion in completions], [completion.ids for completion in completions]
        terminal.phase("scoring")
        scored = self.rewards.score(rows, texts, ids, self.state)
        self.check_scored(scored)
        device = rollout.mask.device
        rollout.mask &= torch.tensor([score is not None for score in scored.total], device=device)[:, None]
        rollout.scores = torch.tensor(self.shape_scores(scored, rollout.ended), device=device)

        # 4. Rewards of the tokens: a KL penalty at each, the score at the last (2203.02155, equation 2).
        kl = k1(rollout.log_probs, rollout.reference)
        rewards = token_rewards(rollout.scores, kl, rollout.mask, self.kl.coef)
        if options.whiten_rewards:
            rewards = whiten(rewards, rollout.mask, self.all_reduce, shift=False)

        # 5. Advantages by GAE (1506.02438, equation 16), whitened over all tokens of all processes.
        advantages, returns = gae(rewards, rollout.values, rollout.mask, options.gamma, options.lam)
        whitened = whiten(advantages, rollout.mask, self.all_reduce)

        # 6. Several epochs of mini-batch updates with clipped losses (1707.06347, algorithm 1).
        terminal.phase("updating")
        updates = self.update_policy(model, rollout, whitened, returns, step)

        # 7. Adapt the KL coefficient (1909.08593, section 2.2); log.
        metrics = describe(rollout, scored, rewards, returns) | updates | {"kl_coef": self.kl.coef} | gap
        metrics = self.log_iteration(step, metrics)
        self.kl.update(metrics["kl"], len(completions) * self.args.world_size)
        self.write_samples(step, rollout.samples(scored))
        return torch.tensor(metrics["loss"], device=self.args.device)

    def update_policy(
        self, model: Any, rollout: Rollout, advantages: Tensor, returns: Tensor, step: int
    ) -> dict[str, float]:
        """Update policy and critic on all mini-batches of all epochs; return the means over the updates."""
        sums: Counter[str] = Counter()
        first_ratio = None
        for number, rows in enumerate(self.minibatches(len(rollout.completions), step)):
            self.session.terminal.count(number, self.options.ppo_epochs * self.options.minibatches)
            metrics = self.backward(model, rollout, advantages, returns, rows, f"{self.args.seed}:{step}:{number}")
            if first_ratio is None:
                first_ratio = metrics["ratio"]
                self.check_ratio(first_ratio)
            # End the updates once the policy has moved too far from the one that sampled the answers.
            if self.options.target_kl is not None and metrics["approx_kl"] > EARLY_STOP * self.options.target_kl:
                sums["stopped_early"] += 1
                break
            # Skip a mini-batch whose mean ratio is far from 1.
            if metrics["ratio"] > RATIO_BOUND:
                sums["skipped"] += 1
                self.optimizer.zero_grad()
                continue
            # One optimiser step, with the gradient norm clipped.
            metrics["grad_norm"] = float(self.accelerator.clip_grad_norm_(model.parameters(), self.args.max_grad_norm))
            self.optimizer.step()
            self.optimizer.zero_grad()
            sums.update({**metrics, "updates": 1})
        self.optimizer.zero_grad()
        counts = {name: sums[name] for name in ("updates", "skipped", "stopped_early")}
        means = {name: sums[name] / max(1, sums["updates"]) for name in UPDATE_METRICS}
        return {**means, **counts, "ratio_first": first_ratio or 1.0}

    def minibatches(self, answers: int, step: int) -> Iterator[list[int]]:
        """Yield the indices of each mini-batch; each epoch shuffles the answers anew."""
        for epoch in range(self.options.ppo_epochs):
            order = list(range(answers))
            Random(f"{self.args.seed}:{step}:{epoch}:minibatches").shuffle(order)
            for start in range(self.options.minibatches):
                if rows := order[start :: self.options.minibatches]:
                    yield rows

    def backward(
        self, model: Any, rollout: Rollout, advantages: Tensor, returns: Tensor, rows: list[int], purpose: str
    ) -> dict[str, float]:
        """Accumulate the gradients of a mini-batch over its micro-batches; return its means over tokens."""
        options, accumulate = self.options, self.session.options.accumulate
        micro_batches = [part for i in range(accumulate) if (part := rows[i::accumulate])]
        tokens = self.all_reduce(rollout.mask[rows].sum().float()).clamp_min(1)
        sums, ptx_loss = torch.zeros(len(UpdateSums._fields), device=tokens.device), 0.0
        for number, indices in enumerate(micro_batches):
            batch = rollout.batch(indices, tokens.device)
            mask, width = batch.mask, batch.mask.shape[1]
            ptx = self.ptx.draw(f"{purpose}:{number}", len(indices), tokens.device) if self.ptx else None
            output, micro_ptx_loss = model(batch, ptx)
            old_log_probs, old_values, advantage, target = (
                tensor[indices, :width] for tensor in (rollout.log_probs, rollout.values, advantages, returns)
            )

            # The clipped policy loss (1707.06347, equation 7) and value loss, and that of PPO-ptx (2203.02155).
            policy = policy_terms(output.log_probs, old_log_probs, advantage, options.clip)
            errors, value_clipped = value_terms(output.values, old_values, target, options.clip_value)
            weighted = policy.loss * rollout.weights[indices, :width]
            policy_loss, value_loss = masked_sum(weighted, mask), masked_sum(errors, mask)
            loss = (policy_loss + options.vf_coef * value_loss) * self.args.world_size / tokens
            self.accelerator.backward(loss + options.ptx_coef * micro_ptx_loss / len(micro_batches))

            watched = (policy.ratio, policy.approx_kl, policy.clipped.float(), value_clipped.float())
            sums += torch.stack([*(masked_sum(values, mask) for values in watched), policy_loss, value_loss]).detach()
            ptx_loss += float(micro_ptx_loss.detach()) / len(micro_batches)
        mean = UpdateSums(*(self.all_reduce(sums) / tokens))
        return {
            "loss": float(mean.policy_loss + options.vf_coef * mean.value_loss) + options.ptx_coef * ptx_loss,
            "policy_loss": float(mean.policy_loss),
            "value_loss": float(mean.value_loss),
            "ptx_loss": ptx_loss,
            "ratio": float(mean.ratio),
            "approx_kl": float(mean.approx_kl),
            "clip_fraction": float(mean.clipped),
            "value_clip_fraction": float(mean.value_clipped),
        }

    def shape_scores(self, scored: Scored, ended: list[bool]) -> list[float]:
        """Return the scores to learn from: less the baseline, scaled, clipped, with the penalty for truncation."""
        options = self.options
        scores = [0.0 if score is None else score - options.reward_baseline for score in scored.total]
        if options.scale_reward:
            known = [score - options.reward_baseline for score in scored.total if score is not None]
            std = self.reward_std.update(gather_object(known) if self.args.world_size > 1 else known)
            scores = [score / std for score in scores]
        if options.clip_reward is not None:
            scores = [min(max(score, -options.clip_reward), options.clip_reward) for score in scores]
        penalty, replacement = options.missing_end_penalty, options.missing_end_score
        cut_scores = [score - penalty if replacement is None else replacement for score in scores]
        return [score if end else cut for score, cut, end in zip(scores, cut_scores, ended, strict=True)]

    def check_reference(self, rollout: Rollout) -> None:
        """Before the first step the policy is the reference: their KL must be 0."""
        kl = float(masked_mean(k3(rollout.log_probs, rollout.reference), rollout.mask))
        if not self.args.bf16 and kl > REFERENCE_TOLERANCE:
            raise CheckFailed(
                f"reference: before the first step the KL to it is {kl:.4f} a token, not 0: it is another model than "
                "the start, or dropout is on"
            )

    def check_ratio(self, ratio: float) -> None:
        """Before the first update of an iteration the policy is the one that sampled: the ratio must be 1."""
        if not self.args.bf16 and abs(ratio - 1) > RATIO_TOLERANCE:
            raise TrainingStopped(
                f"ratio: that of the first mini-batch is {ratio:.4f}, and must be 1: dropout, padding or suppressed "
                "tokens differ between sampling and learning"
            )

    def all_reduce(self, sums: Tensor) -> Tensor:
        """Sum a tensor over all processes."""
        return self.accelerator.reduce(sums, "sum") if self.args.world_size > 1 else sums

    def log_iteration(self, step: int, metrics: dict[str, float]) -> dict[str, float]:
        """Average an iteration's metrics over all processes, keep them for the next log, and raise alarms."""
        means = self.all_reduce(torch.tensor(list(metrics.values()), device=self.args.device)) / self.args.world_size
        metrics = dict(zip(metrics, means.tolist(), strict=True))
        for name, value in metrics.items():
            self.pending[name].append(value)
        for text in self.alarms.iteration(step, metrics):
            self.session.terminal.say(text)
        self.session.terminal.update(metrics)
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the means over all iterations since the last log; the library knows only their losses."""
        if "loss" in logs:
            logs |= {name: fmean(values) for name, values in self.pending.items()}
            self.pending.clear()
            logs["num_tokens"] = self.tokens * self.args.world_size
        super().log(logs, start_time)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save a checkpoint if the library calls, else the policy, ready to be used, and its critic."""
        folder = Path(output_dir or self.args.output_dir)
        if _internal_call:
            if self.args.should_save:
                self.save_state(folder)
            return
        policy, critic = saved_state(self.model.policy, self.saved_dtype), self.model.critic_states()
        if self.args.should_save:
            self.model.policy.save_pretrained(folder, state_dict=policy)
            name_dtype(folder, self.saved_dtype)
            self.session.loaded.tokenizer.save_pretrained(folder)
            self.model.save_critic(folder / "value", *critic)

    def save_state(self, folder: Path) -> None:
        """Write what a run goes on from; the parts of a sharded model are written with the optimiser's states."""
        folder.mkdir(parents=True, exist_ok=True)
        if not self.is_sharded:
            trained = {name: p.detach().contiguous() for name, p in self.model.named_parameters() if p.requires_grad}
            save_file(trained, folder / TRAINED)
        state = {"kl": asdict(self.kl), "spread": asdict(self.reward_std), "alarms": self.alarms.as_dict()}
        (folder / STATE).write_text(json.dumps({**state, "pending": self.pending}))

    def _load_weights(self, checkpoint: Path) -> None:
        if self.is_sharded:
            super()._load_from_checkpoint(str(checkpoint))
            return
        weights = load_file(checkpoint / TRAINED)
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(weights[name])

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self._load_weights(Path(resume_from_checkpoint))
        state = self.read_state(Path(resume_from_checkpoint))
        self.kl, self.reward_std = KlController(**state["kl"]), RunningStd(**state["spread"])
        self.pending = defaultdict(list, state["pending"])

    def _load_best_model(self) -> None:
        self._load_weights(Path(str(self.state.best_model_checkpoint)))


# Losses and advantages: pure functions on tensors of shape (answers, tokens). `mask` is true at an answer's tokens, its
# end token included; what is elsewhere is never read, not even multiplied by zero, which would keep a NaN. `all_reduce`
# sums a tensor over all processes.


def masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Return the sum where the mask is true."""
    return torch.where(mask, values, 0.0).sum()


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean where the mask is true; 0 where it is true nowhere."""
    return masked_sum(values, mask) / mask.sum().clamp_min(1)


def k1(log_probs: Tensor, reference: Tensor) -> Tensor:
    """Estimate KL(policy, reference) per token (Schulman 2020): unbiased, may be negative. For the rewards."""
    return log_probs - reference


def k3(log_probs: Tensor, reference: Tensor) -> Tensor:
    """Estimate KL(policy, reference) per token (Schulman 2020): unbiased, never negative. For the metrics."""
    log_ratio = (reference - log_probs).clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND)
    return log_ratio.exp() - 1 - log_ratio


def token_rewards(scores: Tensor, kl: Tensor, mask: Tensor, coef: float) -> Tensor:
    """Return the reward of each token: -coef * KL at every token, plus the answer's score at its last token."""
    rewards = torch.where(mask, -coef * kl, 0.0)
    last = mask.sum(1) - 1
    answers = (last >= 0).nonzero()[:, 0]
    rewards[answers, last[answers]] += scores[answers]
    return rewards


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Return (advantages, returns) by generalised advantage estimation (1506.02438, equations 11, 12 and 16).

        delta_t = r_t + gamma V_{t+1} - V_t,    A_t = delta_t + gamma lambda A_{t+1},    return_t = A_t + V_t

    `values[:, t]` is the critic's prediction before token t. After the last token the value is 0, also for a cut
    answer: the score already pays for the cut, so there is no bootstrap.
    """
    rewards, values = torch.where(mask, rewards, 0.0), torch.where(mask, values, 0.0)
    advantages = torch.zeros_like(values)
    next_value = next_advantage = torch.zeros_like(values[:, 0])
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        next_advantage = torch.where(mask[:, t], delta + gamma * lam * next_advantage, 0.0)
        next_value = values[:, t]
        advantages[:, t] = next_advantage
    return advantages, advantages + values


AllReduce = Callable[[Tensor], Tensor]


def moments(values: Tensor, mask: Tensor, all_reduce: AllReduce = lambda sums: sums) -> tuple[Tensor, Tensor]:
    """Return mean and (biased, as in the code of 1909.08593) variance over all valid tokens of all processes."""
    total, count = all_reduce(torch.stack([masked_sum(values, mask), mask.sum().to(values.dtype)]))
    mean = total / count.clamp_min(1)
    return mean, all_reduce(masked_sum((values - mean) ** 2, mask)) / count.clamp_min(1)


def whiten(values: Tensor, mask: Tensor, all_reduce: AllReduce = lambda sums: sums, *, shift: bool = True) -> Tensor:
    """Scale to variance 1, and with `shift` to mean 0 (1909.08593: rewards keep their mean, advantages do not)."""
    mean, variance = moments(values, mask, all_reduce)
    white = (values - mean) * (variance + MIN_VARIANCE).rsqrt()
    return torch.where(mask, white if shift else white + mean, 0.0)


class PolicyTerms(NamedTuple):
    """The policy loss per token, and what is logged of it."""

    loss: Tensor
    ratio: Tensor
    clipped: Tensor
    approx_kl: Tensor
    """KL between the policy that sampled the answers and the current one, estimated by k3."""


def policy_terms(log_probs: Tensor, old: Tensor, advantages: Tensor, clip: float) -> PolicyTerms:
    """Return the clipped surrogate objective (1707.06347, equation 7) as a loss per token."""
    log_ratio = (log_probs - old).clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND)
    ratio = log_ratio.exp()
    unclipped, clipped = -advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip)
    return PolicyTerms(torch.maximum(unclipped, clipped), ratio, clipped > unclipped, ratio - 1 - log_ratio)


def value_terms(values: Tensor, old: Tensor, returns: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """Return (half the squared error, was clipped) per token; a value may move by `clip` from that of the rollout."""
    clipped = old + (values - old).clamp(-clip, clip)
    unclipped_error, clipped_error = (values - returns) ** 2, (clipped - returns) ** 2
    return 0.5 * torch.maximum(unclipped_error, clipped_error), clipped_error > unclipped_error


@dataclass
class KlController:
    """The coefficient of the KL penalty; with a target it adapts (1909.08593, section 2.2)."""

    coef: float
    target: float | None = None
    """Nats per answer."""
    horizon: int = KL_HORIZON

    def update(self, kl: float, answers: int) -> None:
        """Adapt the coefficient to the mean KL of some answers."""
        if self.target is not None:
            error = min(max(kl / self.target - 1, -KL_STEP), KL_STEP)
            self.coef *= 1 + error * answers / self.horizon


def describe(rollout: Rollout, scored: Scored, rewards: Tensor, returns: Tensor) -> dict[str, float]:
    """Return the metrics of a rollout, over the answers' tokens alone."""
    mask, answers = rollout.mask, rollout.mask.any(1)
    kl = torch.where(mask, k1(rollout.log_probs, rollout.reference), 0.0).sum(1)[answers]
    kl_k3 = torch.where(mask, k3(rollout.log_probs, rollout.reference), 0.0).sum(1)[answers]
    scores = torch.tensor([score for score in scored.total if score is not None])
    lengths = torch.tensor([float(len(completion.ids)) for completion in rollout.completions])
    scored_lengths = lengths[[score is not None for score in scored.total]]
    vary = len(scores) > 1 and float(scores.std()) >= 1e-6 and float(scored_lengths.std()) >= 1e-6
    return {
        "reward": float(scores.mean()),
        "reward_std": float(scores.std()) if len(scores) > 1 else 0.0,
        "reward_shaped": float(rollout.scores[answers].mean()),
        "reward_after_kl": float(torch.where(mask, rewards, 0.0).sum(1)[answers].mean()),
        **scored.part_means(),
        **scored.metrics,
        "unscored": float(scored.total.count(None)),
        "kl": float(kl.mean()),
        "kl_error": (float(kl.std()) if len(kl) > 1 else 0.0) / len(kl) ** 0.5,
        "kl_k3": float(kl_k3.mean()),
        "kl_token": float(masked_mean(k1(rollout.log_probs, rollout.reference), mask)),
        "fluency": float(masked_mean(rollout.reference, mask)),
        "repetition": repetition([completion.ids for completion in rollout.completions]),
        "entropy": float(masked_mean(rollout.entropy, mask)),
        "ended": sum(rollout.ended) / len(rollout.ended),
        "response_length": float(lengths.mean()),
        "length_correlation": float(torch.corrcoef(torch.stack([scores, scored_lengths]))[0, 1]) if vary else 0.0,
        "explained_variance": explained_variance(rollout.values, returns, mask),
    }


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """Return the share of the returns' variance that the critic predicts: 1 at best, negative if it misleads."""
    _, unexplained = moments(returns - values, mask)
    _, variance = moments(returns, mask)
    return float(1 - unexplained / variance.clamp_min(MIN_VARIANCE))
