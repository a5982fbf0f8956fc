"""Options of the trainers on a policy's own answers, with their help texts. Nothing heavy is imported here."""

from dataclasses import dataclass
from typing import ClassVar

from datagen.engine.options import option
from datagen.errors import InputError
from datagen.llm.spec import SECRET
from datagen_train.options import ALLOW_SELF_HELP, REWARD_HELP, TrainerOptions, TrainOptions

REWARD, SAMPLING, PPO, GRPO, DISTILL = "Reward", "Sampling", "PPO", "GRPO", "Distillation"
"""Headings in `--help`."""
UNSCORED = ("drop", "fail")
PPO_KL_COEF, PPO_ADAPTIVE_KL_COEF = 0.05, 0.15
"""A fixed coefficient as in 2403.17031; the start of an adaptive one in 1909.08593."""
KL_TARGET, KL_HORIZON = 6.0, 10_000
"""1909.08593: nats per answer; answers in which the coefficient about doubles at most."""
GRPO_KL_COEF = {"grpo": 0.04, "rloo": 0.05}
"""2402.03300, section 4.2; TRL's for RLOO."""
GRPO_LOSSES = ("dapo", "grpo", "dr_grpo", "bnpo", "cispo", "sapo", "luspo", "vespo")
UNCLIPPED = ("sapo", "vespo")
"""Losses that weigh the ratio smoothly."""
IMPORTANCE = ("token", "sequence")
OF_SEQUENCES = ("grpo", "luspo")
"""Losses that go with one ratio for a whole answer; the others would weigh an answer by its length, or have a ratio of
their own."""
GRPO_CLIP = 0.2
GSPO_CLIP, GSPO_CLIP_HIGH = 3e-4, 4e-4
"""2507.18071, section 5.1: ratios of whole answers, per token, lie much closer to 1."""
CISPO_CLIP_HIGH = 5.0
"""Largest ratio of CISPO: 2510.13786; 2506.13585 names no number."""
GRPO_SCALES = ("group", "batch", "none")
ALSO_HELP = (
    "File of rows with responses: another skill, whose exact match and ROUGE-L are measured beside the reward at every "
    "evaluation. Nothing is trained on it."
)


@dataclass(frozen=True)
class PolicyOptions(TrainerOptions):
    """Options of the trainers on a policy's own answers."""

    can_shard: ClassVar[bool] = True
    reward: list[str] = option([], REWARD_HELP, file=True, panel=REWARD)
    allow_self: bool = option(False, ALLOW_SELF_HELP, panel=REWARD)
    unscored: str = option("drop", "Answers without a score: drop (counted) or fail.", choices=UNSCORED, panel=REWARD)
    also: str | None = option(None, ALSO_HELP, file=True, panel=REWARD)

    max_tokens: int = option(64, "Maximum length of an answer in tokens.", least=1, panel=SAMPLING)
    temperature: float = option(1.0, "Temperature of the policy in sampling and training.", least=0.01, panel=SAMPLING)
    stop_token: list[str] = option([], "Additional token that ends an answer. Repeatable.", panel=SAMPLING)
    sampler: str | None = option(
        None, "vLLM server of the base model that samples the answers, http://HOST:8000/v1; needs --lora.",
        panel=SAMPLING,
    )  # fmt: skip

    def check(self, training: TrainOptions) -> None:
        super().check(training)
        if training.is_tiny:
            algorithm = type(self).__name__.removesuffix("Options").upper()
            raise InputError(f"{algorithm} starts from a trained model: --model FOLDER of datagen train sft")
        if training.lora_dropout:
            raise InputError("--lora-dropout: a policy is trained without dropout, or its ratios would be random")
        if not self.reward:
            raise InputError("--reward: name what scores the answers, such as a reward model's folder")
        if self.also and not (training.held_out or training.eval_data):
            raise InputError("--also: with --held-out 0 nothing is measured; raise --held-out, or name --eval-data")
        if self.sampler is not None:
            check_sampler(self.sampler, training)

    def answers_held_out(self, training: TrainOptions) -> bool:
        return True


def check_sampler(url: str, training: TrainOptions) -> None:
    """Raise InputError if `--sampler` names no server, or one that could not be handed what is trained."""
    if not url.startswith(("http://", "https://")) or SECRET.search(url):
        raise InputError("--sampler: name the URL of a vLLM server, http://HOST:8000/v1, without a user or a query")
    if not training.lora:
        raise InputError("--sampler: a server is handed adapters, not whole models: add --lora")


@dataclass(frozen=True)
class PpoOptions(PolicyOptions):
    """Options of `datagen train ppo` alone."""

    reward_baseline: float = option(0.0, "Baseline that is subtracted from every score.", panel=REWARD)
    scale_reward: bool = option(False, "Divide scores by their running standard deviation.", panel=REWARD)
    clip_reward: float | None = option(None, "Clip scores to +/- this value, after scaling.", least=0, panel=REWARD)
    missing_end_penalty: float = option(1.0, "Penalty on the score of a truncated answer.", least=0, panel=REWARD)
    missing_end_score: float | None = option(None, "Score of a truncated answer, instead of its own.", panel=REWARD)

    suppress: list[str] = option([], "Token that is never sampled, such as [UNK]. Repeatable.", panel=SAMPLING)

    critic: str | None = option(
        None, "Critic (value model): shared, a value head on the policy; or the folder of a reward model, a critic "
        "or a model. [the reward model if its tokenizer fits, else shared]", file=True, panel=PPO,
    )  # fmt: skip
    ppo_epochs: int = option(4, "Epochs over the answers of an iteration.", least=1, panel=PPO)
    minibatches: int = option(1, "Mini-batches per PPO epoch.", least=1, panel=PPO)
    clip: float = option(0.2, "PPO clip range of the policy ratio.", least=0, panel=PPO)
    clip_value: float = option(0.2, "Clip range of the values around those of the rollout.", least=0, panel=PPO)
    vf_coef: float = option(0.1, "Weight of the value loss.", least=0, panel=PPO)
    gamma: float = option(1.0, "Discount factor.", least=0, most=1, panel=PPO)
    lam: float = option(0.95, "GAE lambda: 0 = one-step critic, 1 = Monte-Carlo returns.", least=0, most=1, panel=PPO)
    kl_coef: float | None = option(
        None, f"Coefficient of the KL penalty. [{PPO_KL_COEF}; with --adaptive-kl initially {PPO_ADAPTIVE_KL_COEF}]",
        least=0, panel=PPO,
    )  # fmt: skip
    adaptive_kl: float | None = option(
        None, f"Adaptive KL control: target KL in nats per answer; {KL_TARGET:.0f} in the paper.",
        least=0.001, panel=PPO,
    )  # fmt: skip
    kl_horizon: int = option(KL_HORIZON, "Horizon of adaptive KL control, in answers.", least=1, panel=PPO)
    target_kl: float | None = option(
        None, "End the updates of an iteration once the approximate KL is above 1.5 times this.", panel=PPO
    )
    whiten_rewards: bool = option(False, "Whiten the rewards of tokens: scale them to variance 1.", panel=PPO)
    ptx_data: str | None = option(None, "PPO-ptx: rows or documents whose loss is added.", file=True, panel=PPO)
    ptx_coef: float = option(1.0, "PPO-ptx: weight of the loss on --ptx-data.", least=0, panel=PPO)


@dataclass(frozen=True)
class GrpoOptions(PolicyOptions):
    """Options of `datagen train grpo` alone."""

    algorithm: str = option(
        "grpo", "Algorithm: grpo, or rloo (leave-one-out baseline).", choices=tuple(GRPO_KL_COEF), panel=GRPO
    )
    group_size: int = option(8, "Group size: answers per prompt.", least=2, panel=GRPO)
    kl_coef: float | None = option(
        None, "Coefficient of the KL penalty; 0 needs no reference model. "
        f"[{GRPO_KL_COEF['grpo']}; rloo: {GRPO_KL_COEF['rloo']}]", least=0, panel=GRPO,
    )  # fmt: skip
    clip: float | None = option(
        None, f"Clip range of the policy ratio. [{GRPO_CLIP}; --importance sequence: {GSPO_CLIP:g}]",
        least=0, panel=GRPO,
    )  # fmt: skip
    clip_high: float | None = option(
        None, "Clip range above 1 (clip-higher; DAPO: 0.28); of --loss cispo the largest ratio. "
        f"[--clip; --importance sequence: {GSPO_CLIP_HIGH:g}; cispo: {CISPO_CLIP_HIGH:g}]", least=0, panel=GRPO,
    )  # fmt: skip
    importance: str | None = option(
        None, "GRPO: policy ratio of each token, or one of the whole answer: sequence (GSPO). [token]",
        choices=IMPORTANCE, panel=GRPO,
    )  # fmt: skip
    updates: int = option(1, "Optimiser steps per batch of sampled answers.", least=1, panel=GRPO)
    loss: str | None = option(
        None, f"GRPO: the loss: {', '.join(GRPO_LOSSES)}. [{GRPO_LOSSES[0]}; --importance sequence: grpo]",
        choices=GRPO_LOSSES, panel=GRPO,
    )  # fmt: skip
    scale_rewards: str | None = option(
        None, "GRPO: standard deviation that advantages are divided by: group, batch or none. [group]",
        choices=GRPO_SCALES, panel=GRPO,
    )  # fmt: skip
    mask_cut: bool = option(False, "Mask truncated answers: they do not enter the loss.", panel=GRPO)

    def check(self, training: TrainOptions) -> None:
        super().check(training)
        if self.algorithm == "rloo" and (self.loss or self.scale_rewards or self.importance):
            raise InputError(
                "--loss, --scale-rewards and --importance are GRPO's; rloo has one loss, with the ratio of the whole "
                "answer, and does not scale"
            )
        self.check_clips()
        if self.importance == "sequence" and self.loss not in (None, *OF_SEQUENCES):
            raise InputError(f"--importance sequence goes with --loss {' or '.join(OF_SEQUENCES)}, not {self.loss}")
        if self.loss == "luspo" and self.importance != "sequence":
            raise InputError("--loss luspo needs --importance sequence")

    def ratio_arguments(self) -> dict[str, float]:
        """Return TRL's arguments for the bounds of the ratio, with the constants of the papers."""
        is_sequence = self.importance == "sequence"
        clip = self.clip if self.clip is not None else GSPO_CLIP if is_sequence else GRPO_CLIP
        high = clip
        if self.clip_high is not None:
            high = self.clip_high
        elif self.loss == "cispo":
            high = CISPO_CLIP_HIGH
        elif is_sequence and self.clip is None:
            high = GSPO_CLIP_HIGH
        return {"epsilon": clip, "epsilon_high": high}

    def loss_arguments(self) -> dict[str, str]:
        """Return TRL's arguments for GRPO's loss."""
        importance = self.importance or IMPORTANCE[0]
        return {
            "loss_type": self.loss or (OF_SEQUENCES[0] if importance == "sequence" else GRPO_LOSSES[0]),
            "importance_sampling_level": importance,
            "scale_rewards": self.scale_rewards or GRPO_SCALES[0],
        }

    def check_clips(self) -> None:
        """Raise InputError for a clip range that the loss does not have."""
        clips = {"--clip": self.clip, "--clip-high": self.clip_high}
        given = [name for name, value in clips.items() if value is not None]
        if given and self.loss in UNCLIPPED:
            raise InputError(f"{' and '.join(given)}: --loss {self.loss} does not clip; leave it out")
        if self.loss == "cispo" and self.clip is not None:
            raise InputError("--clip: --loss cispo bounds the ratio above alone; use --clip-high, the largest ratio")
        if self.loss == "cispo" and self.clip_high is not None and self.clip_high < 1:
            raise InputError(f"--clip-high {self.clip_high:g}: is the largest ratio of --loss cispo, so at least 1")


@dataclass(frozen=True)
class DistillOptions(TrainerOptions):
    """Options of `datagen train distill` alone."""

    teacher: str | None = option(
        None, "Teacher: a folder or a Hugging Face name, with the tokenizer of --model.", file=True, panel=DISTILL
    )
    beta: float = option(
        1.0, "Divergence: 0 = KL(teacher, student), 1 = KL(student, teacher), between them generalised JSD.",
        least=0, most=1, panel=DISTILL,
    )  # fmt: skip
    on_policy: float = option(
        1.0, "Share of the steps on answers that the student samples (GKD lambda); the others take those of the rows.",
        least=0, most=1, panel=DISTILL,
    )  # fmt: skip
    max_tokens: int = option(64, "Maximum length of a sampled answer in tokens.", least=1, panel=DISTILL)
    temperature: float = option(
        1.0, "Temperature of sampling, and of both distributions that are compared.", least=0.01, panel=DISTILL
    )

    def check(self, training: TrainOptions) -> None:
        super().check(training)
        if not self.teacher:
            raise InputError("--teacher: name the model to learn from, such as a folder of datagen train sft")
        if "tiny" in (self.teacher.partition(":")[0], training.model.partition(":")[0]):
            raise InputError("--model and --teacher are trained models of one vocabulary, and tiny is untrained")
        if training.lora_dropout:
            raise InputError("--lora-dropout: distillation trains without dropout, or no student would be its teacher")
