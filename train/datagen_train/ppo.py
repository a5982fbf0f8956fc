"""Proximal policy optimisation: answer, score, learn, and again (arXiv 1707.06347; for language models 2203.02155).

One step of this trainer is one iteration of the papers. Read `Ppo.training_step` beside them:

    1  sample an answer to each prompt of the batch                      rollout.py, 1909.08593
    2  look at it with policy, critic and reference, once                rollout.py
    3  score it: a reward model, a classifier, a function, a service     rewards.py
    4  reward = score at the last token - KL penalty at every token      ppo_loss.token_rewards
    5  advantages by GAE, whitened over all tokens of all processes      ppo_loss.gae, whiten
    6  some epochs over minibatches: clipped policy and value losses     ppo_loss.policy_terms, value_terms
    7  adapt the KL coefficient                                          ppo_loss.KlController

The reference is a frozen copy of the start, or the policy without its adapters. Departures from the papers: a cut
answer is charged a penalty (2403.17031 replaces its score by -1: --missing-end-score -1); the critic shares the
policy's trunk unless the reward is a reward model with its tokenizer, from which it is then made.

The loop around this is the library's: rows, schedule, checkpoints. Its own optimiser step finds no gradients left.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple

import torch
from accelerate.utils import gather_object
from torch import Tensor
from transformers import TrainingArguments

from datagen.engine.options import option
from datagen.errors import InputError
from datagen.records.reader import PROMPTS
from datagen.records.record import Record
from datagen_train.data.checks import CheckInput
from datagen_train.errors import CheckFailed, TrainingStopped
from datagen_train.options import Rates, TrainOptions
from datagen_train.ppo_loss import (
    ADAPTIVE_KL_COEF,
    KL_COEF,
    KL_HORIZON,
    KL_TARGET,
    KlController,
    gae,
    k1,
    k3,
    masked_mean,
    masked_sum,
    policy_terms,
    token_rewards,
    value_terms,
    whiten,
)
from datagen_train.ppo_report import describe, told
from datagen_train.ppo_setup import (
    Extra,
    arguments,
    choose_distribution,
    encode_prompts,
    make_model,
    read_extra,
    reference,
)
from datagen_train.rewards.specs import MOST_UNSCORED, WHAT, Rewards, Scored, identity, texts_of
from datagen_train.run.on_policy import Asked, OnPolicy
from datagen_train.run.rollout import Rollout, look, sample, seed_of
from datagen_train.run.session import Session, Terminal, open_session

RATES = Rates(full=3e-6, lora=3e-5, tiny=6e-4)
"""2403.17031 for whole models."""
EARLY_STOP = 1.5
"""Times --target-kl, beyond which an iteration's learning ends."""
RATIO_BOUND = 10.0
"""Mean ratio of a minibatch beyond which it is skipped: one outlier would undo what was learned."""
RATIO_TOLERANCE, REFERENCE_TOLERANCE = 1e-2, 1e-3
"""How far the first ratio may be from 1, and the first KL a token from 0, in float32."""
LEARNING, REWARD = "PPO", "Reward"
LEARNED = ("loss", "policy_loss", "value_loss", "ptx_loss", "ratio", "approx_kl", "clip_fraction",
           "value_clip_fraction", "grad_norm")  # fmt: skip
"""Metrics that are means over the updates of an iteration."""


@dataclass(frozen=True)
class Options:
    """What `datagen train ppo` can be told beyond what all trainers can."""

    reward: list[str] = option([], WHAT, panel=REWARD)
    reward_baseline: float = option(0.0, "Subtract this from every score.", panel=REWARD)
    scale_reward: bool = option(False, "Divide scores by the standard deviation of all so far.", panel=REWARD)
    clip_reward: float | None = option(None, "Bound of the scores, after scaling.", least=0, panel=REWARD)
    missing_end_penalty: float = option(1.0, "Taken off the score of an answer that was cut.", least=0, panel=REWARD)
    missing_end_score: float | None = option(
        None, "The score of an answer that was cut, in place of its own.", panel=REWARD
    )
    unscored: str = option("drop", "Answers that no score was given: drop (they are counted) or fail.", panel=REWARD)

    max_tokens: int = option(64, "The longest answer in tokens.", least=1, panel=LEARNING)
    temperature: float = option(1.0, "Sampling temperature, while answering and learning.", least=0.01, panel=LEARNING)
    stop_token: list[str] = option([], "A token that ends an answer, beside the model's own.", panel=LEARNING)
    suppress: list[str] = option([], "A token that is never said, such as [UNK].", panel=LEARNING)
    critic: str | None = option(
        None, "What predicts rewards: shared, a value head on the policy; or the folder of a reward model, a critic "
        "or a model. [the reward model if its tokenizer fits, else shared]", panel=LEARNING,
    )  # fmt: skip
    ppo_epochs: int = option(4, "Passes over the answers of an iteration.", least=1, panel=LEARNING)
    minibatches: int = option(1, "Parts of the answers that a step is made on.", least=1, panel=LEARNING)
    clip: float = option(0.2, "How far a ratio may be from 1.", least=0, panel=LEARNING)
    clip_value: float = option(0.2, "How far a value may move in an iteration.", least=0, panel=LEARNING)
    vf_coef: float = option(0.1, "Weight of the value loss.", least=0, panel=LEARNING)
    gamma: float = option(1.0, "Discount of later rewards.", least=0, most=1, panel=LEARNING)
    lam: float = option(0.95, "GAE: between the critic (0) and the rewards alone (1).", least=0, most=1, panel=LEARNING)
    kl_coef: float | None = option(
        None, f"Penalty on KL to the start. [{KL_COEF}, or {ADAPTIVE_KL_COEF} to begin with if it adapts]", least=0,
        panel=LEARNING,
    )  # fmt: skip
    adaptive_kl: float | None = option(
        None, f"Adapt the penalty to keep KL at so many nats an answer; {KL_TARGET:.0f} in the paper.", least=0.001,
        panel=LEARNING,
    )  # fmt: skip
    kl_horizon: int = option(KL_HORIZON, "Answers in which the penalty may double, about.", least=1, panel=LEARNING)
    target_kl: float | None = option(
        None, "End an iteration's learning once the policy has moved further than 1.5 times this.", panel=LEARNING
    )
    whiten_rewards: bool = option(False, "Scale the rewards of all tokens to variance 1.", panel=LEARNING)
    ptx_data: str | None = option(None, "Rows or documents whose loss is mixed in, against forgetting.", panel=LEARNING)
    ptx_coef: float = option(1.0, "Weight of that loss.", least=0, panel=LEARNING)

    def identity(self) -> dict[str, Any]:
        """Name the rewards by what is in their files."""
        return {"reward": identity(self.reward)}

    @property
    def controller(self) -> KlController:
        coef = self.kl_coef if self.kl_coef is not None else ADAPTIVE_KL_COEF if self.adaptive_kl else KL_COEF
        return KlController(coef, self.adaptive_kl, self.kl_horizon)


def run(data: str, options: TrainOptions, own: Options, terminal: Terminal) -> dict[str, Any] | None:
    """Train; return the report, or None where exactly this was done before."""
    if options.is_tiny:
        raise InputError("PPO starts from a trained model: --model FOLDER of datagen train sft")
    if own.unscored not in ("drop", "fail"):
        raise InputError(f"--unscored {own.unscored}: expected drop or fail")
    if options.lora_dropout:
        raise InputError("--lora-dropout: a policy is trained without dropout, or its ratios would be chance")
    with open_session("ppo", data, PROMPTS, options, own, RATES, terminal) as session:
        if session is None:
            return None
        with Rewards(own.reward) as rewards:
            return train(session, own, rewards)


def train(session: Session, own: Options, rewards: Rewards) -> dict[str, Any]:
    if rewards.judges:
        session.report_check("judge", rewards.judges)
    rows: list[Record] = session.read()
    loaded = session.load(texts_of(rows))
    distribution = choose_distribution(session, own.temperature, own.stop_token, own.suppress)
    split = encode_prompts(session, rows, own.max_tokens)
    session.check(CheckInput(loaded, [each.turn for each in split.train + split.held_out], session.account))
    model = make_model(session, own.critic, own.reward, distribution)
    trainer = Ppo(
        session, model, TrainingArguments(**arguments(session, split)), rewards, own.max_tokens,
        split.train, split.held_out, kl=own.controller,
    )  # fmt: skip
    trainer.own, trainer.reference = own, reference(loaded)
    trainer.extra = read_extra(session, own.ptx_data) if own.ptx_data else None
    return session.train(trainer, conclude=lambda: {"alarms": trainer.alarms.told})


class Part(NamedTuple):
    """Sums over some answers' tokens, of what is logged as a mean."""

    ratio: Tensor
    moved: Tensor
    clipped: Tensor
    value_clipped: Tensor
    policy_loss: Tensor
    value_loss: Tensor


class Ppo(OnPolicy):
    """PPO. `training_step` is an iteration."""

    own: Options
    reference: torch.nn.Module | None
    extra: Extra | None

    def training_step(self, model: Any, inputs: dict[str, Tensor], num_items_in_batch: Any = None) -> Tensor:
        own, step = self.own, self.state.global_step + 1
        model.train()  # there is no dropout; checkpointing wants it
        rollout, scored = self.roll_out(inputs["row"].tolist(), step)
        kl = k1(rollout.log_probs, rollout.reference)
        rewards = token_rewards(rollout.scores, kl, rollout.mask, self.kl.coef)
        if own.whiten_rewards:
            rewards = whiten(rewards, rollout.mask, self.add_up, shift=False)
        advantages, returns = gae(rewards, rollout.values, rollout.mask, own.gamma, own.lam)
        white = whiten(advantages, rollout.mask, self.add_up)
        learned = self.learn(model, rollout, white, returns, step)
        metrics = self.note(step, describe(rollout, scored, rewards, returns) | learned | {"kl_coef": self.kl.coef})
        self.kl.update(metrics["kl"], len(rollout.made) * self.args.world_size)
        self.write_samples(step, [*told(rollout, scored)])
        return torch.tensor(metrics["loss"], device=self.args.device)

    def roll_out(self, rows: list[int], step: int) -> tuple[Rollout, Scored]:
        """Answer, look and score."""
        asked: list[Asked] = [self.asked[i] for i in rows]
        prompts = [each.prompt for each in asked]
        seeds = [seed_of(self.args.seed, step, i) for i in rows]
        made = sample(self.model, self.session.loaded.tokenizer, prompts, seeds, self.max_tokens)
        records = [each.row for each in asked]
        rollout = look(self.model, self.reference, records, prompts, made, self.accelerator.autocast)
        if step == 1:
            self.check_reference(rollout)
        scored = self.rewards.score(records, [each.text for each in made], rollout.answers, self.state)
        self.check_scored(scored)
        known = torch.tensor([score is not None for score in scored.total], device=rollout.mask.device)
        rollout.mask &= known[:, None]
        rollout.scores = torch.tensor(self.shape_scores(scored, rollout.ended), device=rollout.mask.device)
        return rollout, scored

    def shape_scores(self, scored: Scored, ended: list[bool]) -> list[float]:
        """Turn what the rewards said into what is learned from: baseline, scale, bounds, missing end."""
        own = self.own
        scores = [0.0 if score is None else score - own.reward_baseline for score in scored.total]
        if own.scale_reward:
            given = [score - own.reward_baseline for score in scored.total if score is not None]
            self.spread.update(gather_object(given) if self.args.world_size > 1 else given)
            scores = [score / self.spread.std for score in scores]
        if own.clip_reward is not None:
            scores = [min(max(score, -own.clip_reward), own.clip_reward) for score in scores]
        cut = [s - own.missing_end_penalty if own.missing_end_score is None else own.missing_end_score for s in scores]
        return [score if whole else less for score, less, whole in zip(scores, cut, ended, strict=True)]

    def learn(self, model: Any, rollout: Rollout, advantages: Tensor, returns: Tensor, step: int) -> dict[str, float]:
        """Make the steps of an iteration; return their means."""
        sums: Counter[str] = Counter()
        first_ratio = None
        for number, rows in enumerate(self.minibatches(len(rollout.made), step)):
            metrics = self.backward(model, rollout, advantages, returns, rows, f"{self.args.seed}:{step}:{number}")
            if first_ratio is None:
                first_ratio = metrics["ratio"]
                self.check_ratio(first_ratio)
            if self.own.target_kl is not None and metrics["approx_kl"] > EARLY_STOP * self.own.target_kl:
                sums["stopped_early"] += 1
                break
            if metrics["ratio"] > RATIO_BOUND:
                sums["skipped"] += 1
                self.optimizer.zero_grad()
                continue
            metrics["grad_norm"] = float(self.accelerator.clip_grad_norm_(model.parameters(), self.args.max_grad_norm))
            self.optimizer.step()
            self.optimizer.zero_grad()
            sums.update({**metrics, "updates": 1})
        self.optimizer.zero_grad()
        counted = {name: sums[name] for name in ("updates", "skipped", "stopped_early")}
        means = {name: sums[name] / max(1, sums["updates"]) for name in LEARNED}
        return {**means, **counted, "ratio_first": first_ratio or 1.0}

    def minibatches(self, answers: int, step: int) -> Iterator[list[int]]:
        """Part the answers anew for each epoch."""
        for epoch in range(self.own.ppo_epochs):
            order = list(range(answers))
            Random(f"{self.args.seed}:{step}:{epoch}:minibatches").shuffle(order)
            for part in range(self.own.minibatches):
                if rows := order[part :: self.own.minibatches]:
                    yield rows

    def backward(
        self, model: Any, rollout: Rollout, advantages: Tensor, returns: Tensor, rows: list[int], purpose: str
    ) -> dict[str, float]:
        """Add up the gradients of a minibatch, in as many parts as --accumulate says; return its means."""
        own, accumulate = self.own, self.session.options.accumulate
        parts = [part for i in range(accumulate) if (part := rows[i::accumulate])]
        tokens = self.add_up(rollout.mask[rows].sum().float()).clamp_min(1)
        sums, extra_loss = torch.zeros(len(Part._fields), device=tokens.device), 0.0
        for number, at in enumerate(parts):
            batch = rollout.batch(at, tokens.device)
            more = self.extra.draw(f"{purpose}:{number}", len(at), tokens.device) if self.extra else None
            output, loss_of_extra = model(batch, more)
            mask, width = batch.mask, batch.mask.shape[1]
            old, values, white, gained = (
                side[at, :width] for side in (rollout.log_probs, rollout.values, advantages, returns)
            )
            terms = policy_terms(output.log_probs, old, white, own.clip)
            errors, value_clipped = value_terms(output.values, values, gained, own.clip_value)
            policy_loss, value_loss = masked_sum(terms.loss, mask), masked_sum(errors, mask)
            loss = (policy_loss + own.vf_coef * value_loss) * self.args.world_size / tokens
            self.accelerator.backward(loss + own.ptx_coef * loss_of_extra / len(parts))
            looked_at = (terms.ratio, terms.moved, terms.clipped.float(), value_clipped.float())
            sums += torch.stack([*(masked_sum(each, mask) for each in looked_at), policy_loss, value_loss]).detach()
            extra_loss += float(loss_of_extra.detach()) / len(parts)
        mean = Part(*(self.add_up(sums) / tokens))
        return {
            "loss": float(mean.policy_loss + own.vf_coef * mean.value_loss) + own.ptx_coef * extra_loss,
            "policy_loss": float(mean.policy_loss),
            "value_loss": float(mean.value_loss),
            "ptx_loss": extra_loss,
            "ratio": float(mean.ratio),
            "approx_kl": float(mean.moved),
            "clip_fraction": float(mean.clipped),
            "value_clip_fraction": float(mean.value_clipped),
        }

    def check_reference(self, rollout: Rollout) -> None:
        """Before the first step the policy is the reference."""
        kl = float(masked_mean(k3(rollout.log_probs, rollout.reference), rollout.mask))
        if not self.args.bf16 and kl > REFERENCE_TOLERANCE:
            raise CheckFailed(
                f"reference: before the first step KL to it is {kl:.4f} a token (0 is due): it is another model than "
                "the start, or dropout is on"
            )

    def check_ratio(self, ratio: float) -> None:
        """Before the first update the policy is the one that answered."""
        if not self.args.bf16 and abs(ratio - 1) > RATIO_TOLERANCE:
            raise TrainingStopped(
                f"ratio: the first minibatch's is {ratio:.4f} (1 is due): what learns is not what answered; dropout, "
                "padding, or suppressed tokens differ"
            )

    def check_scored(self, scored: Scored) -> None:
        missing = scored.total.count(None)
        if missing and (self.own.unscored == "fail" or missing > MOST_UNSCORED * len(scored.total)):
            name = next(name for name, part in scored.parts.items() if None in part)
            raise TrainingStopped(f"reward {name}: {missing} of {len(scored.total)} answers got no score")
