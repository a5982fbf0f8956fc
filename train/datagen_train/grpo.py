"""Group relative policy optimisation (GRPO, arXiv 2402.03300) and RLOO (arXiv 2402.14740): PPO without a critic.

One training step samples G answers to each prompt of the batch, and compares every answer with its group. With the
rewards r_1 ... r_G of a group, the ratio rho = pi(token) / pi_old(token) and the advantage A of the token's answer,

    GRPO   A_i = (r_i - mean(r)) / std(r)                          (2402.03300, section 4.1.2)
           loss = - mean over tokens of  min(rho A, clip(rho, 1 - eps, 1 + eps) A) - beta KL     (equations 3 and 4)
    RLOO   A_i = r'_i - mean of the other r'_j,    r' = r - beta KL of the answer     (2402.14740, section 3.2)
           loss = - mean over answers of  min(rho A, clip(rho, 1 - eps, 1 + eps) A), with rho of the whole answer

A group whose answers all got the same reward teaches nothing; the metric `no_signal` is the share of such groups.

Where answers are used more than once (--updates), ratios leave 1, and GRPO's relatives differ. With the bounds lo
(1 - --clip) and hi (1 + --clip-high) of the ratio, and the advantage A, the objective of a token is

    dapo, grpo, dr_grpo, bnpo   min(rho A, clip(rho, lo, hi) A); they differ in what the sum is divided by
                                hi > 2 - lo is clip-higher                                       (DAPO, 2503.14476)
    cispo                       min(rho, --clip-high) A log pi, the first factor without gradient
                                                                                         (MiniMax-M1, 2506.13585)
    sapo                        sigma(tau (rho - 1)) 4 A / tau, tau = 1 where A > 0, else 1.05   (SAPO, 2511.20347)
    vespo                       phi(w) A log pi, w the ratio of the answer, phi(w) = w^k exp(lambda - lambda w) without
                                gradient, (k, lambda) = (2, 3) where A >= 0, else (3, 2)        (VESPO, 2602.10693)

With --importance sequence rho is one number for an answer of n tokens, (pi(answer) / pi_old(answer))^(1/n), and the
loss a mean over answers (GSPO, 2507.18071); with --loss luspo each answer is weighted by n (2602.05261).

The losses are TRL's. Prompts as tokens, sampling, rewards, measurements, samples and the reference model are those of
`train ppo`. Departures from TRL: --batch-size counts prompts, so groups are always complete; the reference is a frozen
copy of the start, not a model loaded again by name; a run in which most answers get no score ends. As in TRL, GRPO's
mean is over all tokens of a batch (2503.14476); in the first paper every answer weighs the same (--loss grpo).
"""

import json
import math
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from torch import Tensor
from transformers import Trainer
from transformers.trainer import TRAINER_STATE_NAME
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer
from trl.trainer import add_fused_lm_head

from datagen.errors import InputError
from datagen.records.reader import PROMPTS
from datagen.records.record import Record
from datagen_train.data.sources import Data
from datagen_train.data.split import Split
from datagen_train.models.load import frozen_reference, without_dropout
from datagen_train.options import TrainOptions
from datagen_train.policy_options import GRPO_KL_COEF, GrpoOptions
from datagen_train.rates import Rates
from datagen_train.rewards.specs import Rewards, identity
from datagen_train.run.folder import step_of
from datagen_train.run.impartial import refuse_partial_judges
from datagen_train.run.library_names import overrides, require_attributes
from datagen_train.run.on_policy import (
    STATE,
    EncodedPrompt,
    OnPolicyTrainer,
    encode_prompts,
    load_policy,
    loop_arguments,
)
from datagen_train.run.progress import Terminal, token_counter
from datagen_train.run.rollout import answer_seeds, repetition
from datagen_train.run.sampler import LogProbs, Sampler, compare, open_sampler, truncated_weight
from datagen_train.run.session import Session, open_session

RATES = Rates(full=1e-6, lora=1e-5, tiny=2e-4)
"""TRL's for full models; ten times as much for adapters."""
PATIENCE = 5
"""Iterations in a row without any signal, before the alarm."""
METRIC_NAMES = {
    "reward": "reward", "reward_std": "reward_std", "kl": "kl_token", "entropy": "entropy",
    "clip_ratio/region_mean": "clip_fraction", "cispo_clip_ratio": "clip_fraction",
    "completions/mean_length": "response_length", "completions/clipped_ratio": "cut",
}  # fmt: skip
"""TRL's metrics that are logged, and their names here."""
OURS = "ours/"
"""Prefix of the metrics that are added to TRL's."""
OVERRIDES = (
    "_tokenize_prompts", "_generate_single_turn", "_generate_and_score_completions", "_get_train_sampler",
    "_get_per_token_logps_and_entropies",
)  # fmt: skip
"""Methods of TRL's that are replaced, or called."""


def run(data: Data, options: TrainOptions, algorithm: GrpoOptions, terminal: Terminal) -> dict[str, Any]:
    """Train on files of rows; return the report."""
    refuse_partial_judges(algorithm.reward, options.model, allow_self=algorithm.allow_self)
    digests = identity(algorithm.reward)
    with (
        open_session("grpo", data, PROMPTS, options, algorithm, RATES, terminal, digests) as session,
        Rewards(algorithm.reward) as rewards,
    ):
        return train(session, algorithm, rewards)


def train(session: Session, options: GrpoOptions, rewards: Rewards) -> dict[str, Any]:
    """Load the policy and the prompts; train."""
    rows, distribution = load_policy(session, rewards, options.temperature, options.stop_token)
    without_dropout(session.loaded.model)
    split = encode_prompts(session, rows, options.max_tokens)
    shared, prompts = session.options, len(split.train)
    if prompts < shared.batch_size * shared.nproc:  # TRL drops an incomplete batch, and would train on nothing
        raise InputError(
            f"--batch-size {shared.batch_size}: there are only {prompts} prompts to train on"
            f"{f' for {shared.nproc} processes' if shared.nproc > 1 else ''}; lower it"
        )
    with closing(open_sampler(session, options, distribution)) as sampler:
        trainer: Any = (Grpo if options.algorithm == "grpo" else Rloo)(session, options, split, rewards, sampler)
        return session.train(trainer, conclude=lambda start, end: {"alarms": trainer.alarms.raised})


class GroupTrainer(OnPolicyTrainer):
    """What TRL's trainers on groups of answers need to run on our token ids, rewards and reference model.

    TRL gets no prompt texts. The "prompt" of a row is its number, which stands for our token ids and for the row that
    the rewards are given.
    """

    config_type: ClassVar[Any]
    loss_options: ClassVar[bool] = False
    """Whether the algorithm has --loss, --importance and --scale-rewards."""
    beta: float
    _metrics: dict[str, dict[str, list[float]]]

    def __init__(
        self,
        session: Session,
        options: GrpoOptions,
        split: Split[Record, EncodedPrompt],
        rewards: Rewards,
        sampler: Sampler,
    ) -> None:
        model, shared = session.loaded.model, session.options
        penalty = GRPO_KL_COEF[options.algorithm] if options.kl_coef is None else options.kl_coef
        reference = frozen_reference(model) if penalty else None
        arguments = loop_arguments(session, split) | {
            "per_device_train_batch_size": shared.batch_size // shared.accumulate * options.group_size,  # in answers
            "gradient_accumulation_steps": shared.accumulate,
            "gradient_checkpointing": shared.checkpointing,
            "num_generations": options.group_size,
            "num_generations_eval": 1,
            "max_completion_length": options.max_tokens,
            "temperature": options.temperature,
            "beta": 0.0,  # or TRL would load a reference of its own
            **options.ratio_arguments(),
            "num_iterations": options.updates,
            "mask_truncated_completions": options.mask_cut,
        }
        if self.loss_options:
            arguments |= options.loss_arguments()
        numbers = Dataset.from_dict({"prompt": [str(i) for i in range(len(split.train))]})
        super().__init__(
            session, options, split, rewards,
            model=model,
            reward_funcs=[self.score],
            args=self.config_type(**arguments),
            train_dataset=numbers,
            eval_dataset=numbers.select([0]) if split.held_out else None,  # `evaluate` answers the held-out prompts
        )  # fmt: skip
        require_attributes(self, "_metrics", "_step")
        if "ref" in getattr(model, "peft_config", {}):
            model.delete_adapter("ref")  # TRL's copy of new adapters; the model without adapters is the start as well
        if penalty:
            self.set_reference(reference, penalty)
        self.sampler = sampler
        self.seeds: list[int] = []
        """Of the answers that are sampled next."""
        self.texts: list[str] = []
        """Of the answers that were sampled last."""
        self.of_sampler: LogProbs | None = None
        """Log-probabilities under which a server sampled them."""
        self.silent = 0
        """Iterations in a row without any signal."""
        self.unwatched: dict[str, float] = {}
        """Metrics of answers that were sampled in this step, for the alarms at its end."""
        self._past_epochs = 0
        """Of the run that is resumed."""

    def set_reference(self, reference: Any, coef: float) -> None:
        """Penalise the KL to a reference model; None is the policy without its adapters."""
        self.beta = coef
        if reference is not None:
            add_fused_lm_head(reference, temperature=self.args.temperature)
            self.ref_model = self.accelerator.prepare_model(self.place(reference), evaluation_mode=True)

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        """TRL's sampler draws one order of the prompts after the other: pass by those of the epochs that are done."""
        sampler: Any = super()._get_train_sampler(dataset)
        for _ in range(self._past_epochs):
            next(iter(sampler))
        return sampler

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        """Return the token ids of prompts that are given by their numbers, and settle the seed of each answer."""
        numbers, size = list(map(int, prompts)), self.options.group_size
        places = [number * size + i % size for i, number in enumerate(numbers)]
        self.seeds = answer_seeds(self.args.seed, self.state.global_step + 1, places)
        return [self.prompts[number].ids for number in numbers], None, {}

    def sample(self, prompts: list[list[int]]) -> list[list[int]]:
        """Sample an answer to each prompt."""
        terminal = self.session.terminal
        terminal.phase("sampling")
        answers, self.of_sampler = self.sampler.sample(prompts, self.seeds, token_counter(terminal))
        self.texts = [answer.text for answer in answers]
        return [answer.ids for answer in answers]

    def score(
        self, prompts: list[str], completions: list[str], completion_ids: list[list[int]], **_: Any
    ) -> list[float | None]:
        """Score the answers of some groups, one group after the other. TRL calls this as its reward function.

        Its `completions` hold what a model thought as well, which rewards are not shown.
        """
        rows, step = [self.prompts[int(number)].row for number in prompts], self.state.global_step + 1
        self.session.terminal.phase("scoring")
        scored = self.rewards.score(rows, self.texts, completion_ids, self.state)
        self.check_scored(scored)
        size = self.options.group_size

        # A group teaches something only if its rewards differ.
        groups = [scored.total[start : start + size] for start in range(0, len(completions), size)]
        no_signal = sum(len(set(group) - {None}) < 2 for group in groups) / len(groups)
        unscored = scored.total.count(None)
        metrics = {"no_signal": no_signal, "unscored": unscored, **scored.part_means(), **scored.metrics}
        self.keep_metrics({**metrics, "repetition": repetition(completion_ids)})
        self.silent = self.silent + 1 if no_signal == 1 else 0
        if self.silent == PATIENCE and "no signal" not in self.alarms.raised:
            text = (
                f"in {PATIENCE} iterations all answers of each group got the same reward: nothing is learned. Raise "
                "--group-size or --temperature, or take a reward that tells answers apart"
            )
            self.session.terminal.say(self.alarms.alarm(step, "no signal", text))
        samples = [
            {"prompt": row.prompt, "response": text, "reward": reward}
            for row, text, reward in zip(rows, self.texts, scored.total, strict=True)
        ]
        self.write_samples(step, samples[::size])  # the first of each group
        scores = [score for score in scored.total if score is not None]
        self.session.terminal.update({"reward": sum(scores) / max(1, len(scores))})
        self.session.terminal.phase("updating")
        return scored.total

    def keep_metrics(self, metrics: Mapping[str, float]) -> None:
        """Add to the metrics of the iterations since the last log."""
        for name, value in metrics.items():
            self._metrics["train"][OURS + name].append(value)

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        metrics = self._metrics["train"]
        self.unwatched = {
            "repetition": metrics[f"{OURS}repetition"][-1],
            "ended": 1 - metrics["completions/clipped_ratio"][-1],
        }
        if self.beta:
            sums = torch.stack([self.reference_log_prob(output), output["completion_mask"].sum().float()])
            log_prob, tokens = self.accelerator.reduce(sums, "sum").tolist()
            if tokens:  # with --mask-cut there may be none
                self.unwatched["fluency"] = log_prob / tokens
                self.keep_metrics({"fluency": log_prob / tokens})
        if self.of_sampler is not None:
            self.correct(output, self.of_sampler)
        return output

    def correct(self, output: dict[str, Any], of_sampler: LogProbs) -> None:
        """Weigh the advantages of answers that a server sampled (run/sampler.py), and keep the gap."""
        ids, mask = (
            torch.cat([output[f"prompt_{name}"], output[f"completion_{name}"]], dim=1) for name in ("ids", "mask")
        )
        answers = output["completion_mask"]
        with torch.no_grad():
            log_probs, _, _ = self._get_per_token_logps_and_entropies(
                self.model, ids, mask, answers.shape[1], self.args.per_device_train_batch_size
            )
        log_ratio, gap = compare(log_probs, answers.bool(), of_sampler, self.accelerator)
        output["advantages"] = self.weigh(output["advantages"], log_ratio)
        self.unwatched["sampler_gap"] = gap
        self.keep_metrics({"sampler_gap": gap})

    def reference_log_prob(self, output: dict[str, Any]) -> Tensor:
        """Return the log-probability under the reference of all answers of this process together."""
        raise NotImplementedError

    def weigh(self, advantages: Tensor, log_ratio: Tensor) -> Tensor:
        """Return the advantages (answers,) times importance weights, from log(pi_old / pi_sampler) of each token."""
        raise NotImplementedError

    def watch(self) -> None:
        """At the end of a step whose answers were sampled in it: raise alarms."""
        kl = {"kl_token": self._metrics["train"]["kl"][-1]} if self.beta else {}  # of the last micro-batch
        for text in self.alarms.iteration(self.state.global_step + 1, self.unwatched | kl):
            self.session.terminal.say(text)
        self.unwatched = {}

    def training_step(self, *arguments: Any, **keywords: Any) -> Tensor:
        """Keep the loss with the other metrics, which are in checkpoints; the library forgets its running sum."""
        loss = super().training_step(*arguments, **keywords)
        self.keep_metrics({"loss": float(loss) * self.args.gradient_accumulation_steps})
        if self.unwatched and self.accelerator.sync_gradients:
            self.watch()
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the means of the iterations since the last log; TRL would add them to measurements as well."""
        if "loss" in logs:
            logs |= self.logged_means()
            if "cut" in logs:
                logs["ended"] = 1 - logs.pop("cut")
            self._metrics["train"].clear()
            logs["num_tokens"] = self.state.num_input_tokens_seen
        Trainer.log(self, logs, start_time)

    def logged_means(self) -> dict[str, float]:
        """Return the means of the metrics since the last log, over all processes: TRL gathers its own, not ours."""
        means = {}
        for name, values in self._metrics["train"].items():
            known = [value for value in values if not math.isnan(value)]
            if known and (name in METRIC_NAMES or name.startswith(OURS)):
                means[METRIC_NAMES.get(name, name.removeprefix(OURS))] = fmean(known)
        of_processes = gather_object([means])
        return {name: fmean(other[name] for other in of_processes if name in other) for name in means}

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save a checkpoint with the state of this class if the library calls, else the model."""
        super().save_model(output_dir, _internal_call)
        if _internal_call and self.args.should_save:
            state = {"alarms": self.alarms.as_dict(), "silent": self.silent, "metrics": self._metrics["train"]}
            Path(output_dir or self.args.output_dir, STATE).write_text(json.dumps(state))

    def train(self, resume_from_checkpoint: str | None = None, **keywords: Any) -> Any:
        """Train from the start, or from a checkpoint with its state."""
        if resume_from_checkpoint is not None:
            checkpoint = Path(resume_from_checkpoint)
            state = self.read_state(checkpoint)
            self.silent = state["silent"]
            self._past_epochs = int(json.loads((checkpoint / TRAINER_STATE_NAME).read_bytes())["epoch"])
            self._metrics["train"].update(state["metrics"])
            self._step = step_of(checkpoint) * self.args.gradient_accumulation_steps  # TRL counts its phases from here
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **keywords)


@overrides(*OVERRIDES)
class Grpo(GroupTrainer, GRPOTrainer):
    """GRPO: TRL's loss and advantages."""

    config_type = GRPOConfig
    loss_options = True

    def _generate_single_turn(self, prompt_ids: list[list[int]], *_: Any) -> tuple[list[list[int]], None]:
        return self.sample(prompt_ids), None

    def reference_log_prob(self, output: dict[str, Any]) -> Tensor:
        log_probs: Tensor = output["ref_per_token_logps"]
        return torch.where(output["completion_mask"].bool(), log_probs.float(), 0.0).sum()

    def weigh(self, advantages: Tensor, log_ratio: Tensor) -> Tensor:
        """Return (answers, tokens): each token has its own weight."""
        return advantages[:, None] * truncated_weight(log_ratio)


@overrides(*OVERRIDES)
class Rloo(GroupTrainer, RLOOTrainer):
    """RLOO: TRL's loss and advantages."""

    config_type = RLOOConfig

    def _generate_single_turn(self, prompt_ids: list[list[int]], *_: Any) -> list[list[int]]:
        return self.sample(prompt_ids)

    def reference_log_prob(self, output: dict[str, Any]) -> Tensor:
        """TRL keeps the mean KL per token, log pi - log pi_ref over all processes, in place of the reference's part."""
        log_prob: Tensor = output["old_logps"].sum()
        return log_prob.float() - self._metrics["train"]["kl"][-1] * output["completion_mask"].sum()

    def weigh(self, advantages: Tensor, log_ratio: Tensor) -> Tensor:
        """Return (answers,): the ratio is that of the whole answer, and so is the weight."""
        return advantages * truncated_weight(log_ratio.sum(1))
