"""Group relative policy optimisation (arXiv 2402.03300) and RLOO (2402.14740): PPO's rewards without a critic.

One step of this trainer asks each prompt of the batch several times and compares every answer with the others of its
group. GRPO's advantage is the reward less the group's mean, over its standard deviation; RLOO's is the reward, with the
KL penalty in it, less the mean of the other answers. Both learn with PPO's clipped ratio, GRPO token by token and RLOO
for whole answers. A group whose answers all got the same reward teaches nothing: `no_signal` says how many do.

The algorithms are TRL's; the prompts as tokens, rewards, measurements, samples and the reference are those of
`train ppo`. Departures from TRL: --batch-size counts prompts, so groups are always whole; the reference is a frozen
copy of the start, not a model loaded again by name; a run that leaves most answers without a score ends. As in TRL, the
loss of GRPO is over all tokens of a batch (2503.14476); the first paper weighs every answer alike (--loss grpo).
"""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import Trainer
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer
from trl.trainer.utils import add_fused_lm_head

from datagen.engine.options import option
from datagen.errors import InputError
from datagen.llm.local.generation import generate
from datagen.records.reader import PROMPTS
from datagen.records.record import Record
from datagen_train.data.checks import CheckInput
from datagen_train.data.encode import Split
from datagen_train.dpo import reference
from datagen_train.errors import TrainingStopped
from datagen_train.models.load import without_dropout
from datagen_train.options import Rates, TrainOptions
from datagen_train.ppo_report import mean_of
from datagen_train.ppo_setup import arguments, choose_distribution, encode_prompts
from datagen_train.rewards.specs import MOST_UNSCORED, WHAT, Rewards, Scored, identity, texts_of
from datagen_train.run.alarms import Alarms
from datagen_train.run.on_policy import HELD_OUT, STATE, Asked, append_samples, measure_answers, rewind_samples
from datagen_train.run.session import Session, Terminal, open_session

RATES = Rates(full=1e-6, lora=1e-5, tiny=2e-4)
"""TRL's for whole models; ten times as much for adapters."""
KL_COEF = {"grpo": 0.04, "rloo": 0.05}
"""2402.03300, section 4.2; TRL's for RLOO."""
LOSSES = ("dapo", "grpo", "dr_grpo", "bnpo")
SCALES = ("group", "batch", "none")
PATIENCE = 5
"""Iterations in a row without any signal, before it is told."""
LEARNING, REWARD = "GRPO", "Reward"
OUR_WORDS = {
    "reward": "reward", "reward_std": "reward_std", "kl": "kl_token", "entropy": "entropy",
    "clip_ratio/region_mean": "clip_fraction", "completions/mean_length": "response_length",
    "completions/clipped_ratio": "cut",
}  # fmt: skip
"""TRL's metrics of an iteration, and how they are called here."""
OURS = "ours/"
"""Before the metrics that we add to TRL's."""


@dataclass(frozen=True)
class Options:
    """What `datagen train grpo` can be told beyond what all trainers can."""

    reward: list[str] = option([], WHAT, panel=REWARD)
    unscored: str = option("drop", "Answers that no score was given: drop (they are counted) or fail.", panel=REWARD)

    algorithm: str = option("grpo", "grpo, or rloo: the mean of the others as the baseline.", panel=LEARNING)
    group_size: int = option(8, "Answers to each prompt.", least=2, panel=LEARNING)
    max_tokens: int = option(64, "The longest answer in tokens.", least=1, panel=LEARNING)
    temperature: float = option(1.0, "Sampling temperature, while answering and learning.", least=0.01, panel=LEARNING)
    stop_token: list[str] = option([], "A token that ends an answer, beside the model's own.", panel=LEARNING)
    kl_coef: float | None = option(
        None, "Penalty on KL to the start; 0 does without a reference. "
        f"[{KL_COEF['grpo']}; rloo: {KL_COEF['rloo']}]", least=0, panel=LEARNING,
    )  # fmt: skip
    clip: float = option(0.2, "How far a ratio may be from 1.", least=0, panel=LEARNING)
    updates: int = option(1, "Steps that are made on the same answers.", least=1, panel=LEARNING)
    loss: str | None = option(
        None, f"How GRPO weighs tokens: {', '.join(LOSSES)}. [{LOSSES[0]}: all of a batch alike]", panel=LEARNING
    )
    scale_rewards: str | None = option(
        None, "What GRPO divides advantages by, the standard deviation of a group or a batch, or none. [group]",
        panel=LEARNING,
    )  # fmt: skip
    mask_cut: bool = option(False, "Learn nothing from answers that were cut.", panel=LEARNING)

    def identity(self) -> dict[str, Any]:
        """Name the rewards by what is in their files."""
        return {"reward": identity(self.reward)}

    @property
    def penalty(self) -> float:
        return KL_COEF[self.algorithm] if self.kl_coef is None else self.kl_coef


def run(data: str, options: TrainOptions, own: Options, terminal: Terminal) -> dict[str, Any] | None:
    """Train; return the report, or None where exactly this was done before."""
    refuse(options, own)
    with open_session("grpo", data, PROMPTS, options, own, RATES, terminal) as session:
        if session is None:
            return None
        with Rewards(own.reward) as rewards:
            return train(session, own, rewards)


def refuse(options: TrainOptions, own: Options) -> None:
    """Raise InputError for what cannot be, before anything is loaded."""
    if options.is_tiny:
        raise InputError("GRPO starts from a trained model: --model FOLDER of datagen train sft")
    if options.lora_dropout:
        raise InputError("--lora-dropout: a policy is trained without dropout, or its ratios would be chance")
    choices = {
        "unscored": (own.unscored, ("drop", "fail")),
        "algorithm": (own.algorithm, tuple(KL_COEF)),
        "loss": (own.loss or LOSSES[0], LOSSES),
        "scale-rewards": (own.scale_rewards or SCALES[0], SCALES),
    }
    for name, (given, known) in choices.items():
        if given not in known:
            raise InputError(f"--{name} {given}: expected one of {', '.join(known)}")
    if own.algorithm == "rloo" and (own.loss or own.scale_rewards):
        raise InputError("--loss and --scale-rewards are GRPO's; rloo has one loss and does not scale")
    if options.batch_size % options.accumulate:
        raise InputError(f"--batch-size {options.batch_size} is no multiple of --accumulate {options.accumulate}")


def train(session: Session, own: Options, rewards: Rewards) -> dict[str, Any]:
    if rewards.judges:
        session.report_check("judge", rewards.judges)
    rows: list[Record] = session.read()
    loaded = session.load(texts_of(rows))
    choose_distribution(session, own.temperature, own.stop_token, ())
    without_dropout(loaded.model)
    split = encode_prompts(session, rows, own.max_tokens)
    session.check(CheckInput(loaded, [each.turn for each in split.train + split.held_out], session.account))
    check_batch(session, split)
    trainer = make(session, own, split, rewards)
    return session.train(trainer, conclude=lambda: {"alarms": trainer.alarms.told})


def check_batch(session: Session, split: Split[Record, Asked]) -> None:
    """TRL drops a batch that is not full, and would train on nothing."""
    options, prompts = session.options, len(split.train)
    if prompts < options.batch_size * options.nproc:
        raise InputError(
            f"--batch-size {options.batch_size}: there are only {prompts} prompts to train on"
            f"{f' for {options.nproc} processes' if options.nproc > 1 else ''}; lower it"
        )


def settings(session: Session, own: Options, split: Split[Record, Asked]) -> dict[str, Any]:
    """Return TRL's settings. Its batches count answers, ours prompts."""
    options, made = session.options, arguments(session, split)
    of_grpo = {"loss_type": own.loss or LOSSES[0], "scale_rewards": own.scale_rewards or SCALES[0]}
    return made | {
        "per_device_train_batch_size": options.batch_size // options.accumulate * own.group_size,
        "gradient_accumulation_steps": options.accumulate,
        "gradient_checkpointing": options.checkpointing,
        "num_generations": own.group_size,
        "num_generations_eval": 1,
        "max_completion_length": own.max_tokens,
        "temperature": own.temperature,
        "beta": 0.0,  # or TRL would load a reference of its own
        "epsilon": own.clip,
        "num_iterations": own.updates,
        "mask_truncated_completions": own.mask_cut,
        **(of_grpo if own.algorithm == "grpo" else {}),
    }


def make(session: Session, own: Options, split: Split[Record, Asked], rewards: Rewards) -> Any:
    trainer, config = (Grpo, GRPOConfig) if own.algorithm == "grpo" else (Rloo, RLOOConfig)
    start = reference(session.loaded) if own.penalty else None
    numbers = Dataset.from_dict({"prompt": [str(i) for i in range(len(split.train))]})
    made: Any = trainer(
        model=session.loaded.model,
        reward_funcs=[score_for(holder := [], rewards)],
        args=config(**settings(session, own, split)),
        processing_class=session.loaded.tokenizer,
        train_dataset=numbers,
        eval_dataset=numbers.select([0]) if split.held_out else None,  # `evaluate` looks at the held-out rows
    )
    holder.append(made)
    if "ref" in getattr(session.loaded.model, "peft_config", {}):
        session.loaded.model.delete_adapter("ref")  # TRL's copy of fresh adapters: without them is the start, too
    made.begin(session, own, split, rewards)
    if own.penalty:
        made.refer_to(start, own.penalty)
    return made


def score_for(holder: list[Any], rewards: Rewards) -> Any:
    """Return the reward as TRL calls it; the trainer, made after it, stands in `holder`."""

    def total(prompts: list[str], completions: list[str], completion_ids: list[list[int]], **_: Any) -> Any:
        return holder[0].score([int(number) for number in prompts], completions, completion_ids)

    return total


class Groups(Trainer):
    """What TRL's trainers on groups of answers leave out. They get no words: a row's prompt is its number, which stands
    here for our own token ids, and for the row that the reward is asked about."""

    prompt_ids: list[list[int]]
    """By the number of the row."""
    beta: float
    _metrics: dict[str, dict[str, list[float]]]

    def refer_to(self, reference: Any, coef: float) -> None:
        """Penalise leaving a reference (None: the policy without its adapters). TRL would load one by its name."""
        self.beta = coef
        if reference is not None:
            add_fused_lm_head(reference, temperature=self.args.temperature)
            self.ref_model = self.accelerator.prepare_model(reference, evaluation_mode=True)

    def training_step(self, *given: Any, **more: Any) -> torch.Tensor:
        """Note the loss with the other metrics, which a checkpoint keeps; the library forgets its running sum."""
        loss = super().training_step(*given, **more)
        self._metrics["train"][OURS + "loss"].append(float(loss) * self.args.gradient_accumulation_steps)
        return loss

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return [self.prompt_ids[int(number)] for number in prompts], None, {}

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log an iteration under our names; TRL puts them into whatever is logged next, a measurement too."""
        if "loss" in logs:
            logs |= in_our_words(self._metrics["train"])
            self._metrics["train"].clear()
        Trainer.log(self, logs, start_time)

    def begin(self, session: Session, own: Options, split: Split[Record, Asked], rewards: Rewards) -> None:
        self.session, self.own, self.rewards, self.alarms = session, own, rewards, Alarms()
        self.rows = [each.row for each in split.train]
        self.held_out = split.held_out[: session.options.generate or HELD_OUT]
        self.prompt_ids = [each.prompt for each in split.train]
        self.samples: Path = session.folder.run / "samples.jsonl"
        self.silent = 0

    def score(self, numbers: list[int], answers: list[str], ids: list[list[int]]) -> list[float | None]:
        """Score the answers of whole groups, one group after the other."""
        rows = [self.rows[number] for number in numbers]
        scored = self.rewards.score(rows, answers, ids, self.state)
        self.check_scored(scored)
        groups = [scored.total[at : at + self.own.group_size] for at in range(0, len(ids), self.own.group_size)]
        no_signal = sum(len(set(group) - {None}) < 2 for group in groups) / len(groups)
        parts = {f"reward/{name}": mean_of(part) for name, part in scored.parts.items() if len(scored.parts) > 1}
        metrics = {"no_signal": no_signal, "unscored": scored.total.count(None), **parts, **scored.metrics}
        for name, value in metrics.items():
            self._metrics["train"][OURS + name].append(value)
        self.warn(no_signal)
        self.write_samples(scored, rows, answers)
        return scored.total

    def check_scored(self, scored: Scored) -> None:
        missing = scored.total.count(None)
        if missing and (self.own.unscored == "fail" or missing > MOST_UNSCORED * len(scored.total)):
            name = next(name for name, part in scored.parts.items() if None in part)
            raise TrainingStopped(f"reward {name}: {missing} of {len(scored.total)} answers got no score")

    def warn(self, no_signal: float) -> None:
        """Tell, once, that nothing is learned."""
        self.silent = self.silent + 1 if no_signal == 1 else 0
        if self.silent == PATIENCE and "no signal" not in self.alarms.told:
            text = (
                f"in {PATIENCE} iterations all answers of each group got the same reward: nothing is learned. Raise "
                "--group-size or --temperature, or take a reward that tells answers apart"
            )
            self.alarms.told["no signal"] = f"step {self.state.global_step + 1}: {text}"
            self.session.terminal.say(f"ALARM no signal, step {self.state.global_step + 1}: {text}.")

    def write_samples(self, scored: Scored, rows: list[Record], answers: list[str]) -> None:
        step = self.state.global_step + 1
        if self.is_world_process_zero() and step % self.args.logging_steps == 0:
            told = zip(rows, answers, scored.total, strict=True)
            samples = [{"prompt": row.prompt, "response": answer, "reward": reward} for row, answer, reward in told]
            append_samples(self.samples, step, samples[:: self.own.group_size])

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Answer held-out prompts greedily; return their reward, and exact match where it is known what is right."""
        rows, prompts = [each.row for each in self.held_out], [each.prompt for each in self.held_out]
        made = generate(
            self.accelerator.unwrap_model(self.model), self.session.loaded.tokenizer, prompts,
            max_tokens=self.own.max_tokens,
        )  # fmt: skip
        metrics = measure_answers(self.rewards, rows, made, self.state)
        self.log(metrics)
        for text in self.alarms.measurement(self.state.global_step, metrics):
            self.session.terminal.say(text)
        self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        if self.args.should_save:
            state = {"alarms": asdict(self.alarms), "silent": self.silent, "metrics": self._metrics["train"]}
            folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            (folder / STATE).write_text(json.dumps(state))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        folder = Path(resume_from_checkpoint)
        state, step = json.loads((folder / STATE).read_text()), int(folder.name.rpartition("-")[2])
        self.alarms, self.silent = Alarms(**state["alarms"]), state["silent"]
        self._metrics["train"].update(state["metrics"])
        self._step = step * self.args.gradient_accumulation_steps  # TRL would count its phases from here
        if self.is_world_process_zero():
            rewind_samples(self.samples, step)


class Grpo(Groups, GRPOTrainer):
    """GRPO."""


class Rloo(Groups, RLOOTrainer):
    """RLOO."""


def in_our_words(metrics: dict[str, list[float]]) -> dict[str, float]:
    """Average iterations; what was not a number in one of them is left out."""
    made = {}
    for name, values in metrics.items():
        known = [value for value in values if not math.isnan(value)]
        if known and (name in OUR_WORDS or name.startswith(OURS)):
            made[OUR_WORDS.get(name, name.removeprefix(OURS))] = sum(known) / len(known)
    if "cut" in made:
        made["ended"] = 1 - made.pop("cut")
    return made
