"""Distillation: the student learns the teacher's distribution of every token (GKD, arXiv 2306.13649).

For a prompt x with an answer y, P the teacher's distribution of a token and Q the student's, with M = b P + (1-b) Q:

    D(x, y) = mean over the tokens of y of  d(P, Q)
    d = KL(P, Q)                            b = 0: forward, the student covers what the teacher may say
        KL(Q, P)                            b = 1: reverse, the student says what the teacher would as well
        b KL(P, M) + (1-b) KL(Q, M)         between them: generalised Jensen-Shannon divergence (equation 1)

    loss = mean over the answers of a batch of D(x, y)

A step takes answers that the student samples with probability --on-policy, else those of the rows (algorithm 1, where
it is lambda). No gradient flows through the sampling. The loss on held-out prompts is the divergence along the
teacher's own greedy answers: the same in every measurement, so that the best checkpoint can be chosen by it.

TRL's stable trainer of this name has no answers of rows, tokenises prompts itself, samples with one random state, and
refuses a teacher whose embedding has another number of unused rows; so the loop is ours. Checkpoints need no state of
their own: every draw depends on the seed, the step and the row alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import log
from random import Random
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, TrainingArguments

from datagen.errors import InputError
from datagen.llm.local.generation import Ids, generate
from datagen.records.reader import PROMPTS
from datagen.records.record import Record, request_text
from datagen.report.markdown import code
from datagen_train.data.sources import Data
from datagen_train.data.split import Split
from datagen_train.models.actor_critic import Batch, before_answer_tokens, forward_batch, make_batch
from datagen_train.models.load import has_bf16, load, model_identity, without_dropout
from datagen_train.options import ModelOptions, TrainOptions
from datagen_train.policy_options import DistillOptions
from datagen_train.rates import Rates
from datagen_train.run.held_out import HeldOut
from datagen_train.run.on_policy import HELD_OUT, EncodedPrompt, encode_prompts
from datagen_train.run.progress import ANSWERING, Terminal, token_counter
from datagen_train.run.rollout import SAMPLING_BATCH, answer_seeds
from datagen_train.run.session import Session, open_session
from datagen_train.run.whole_batch import WholeBatch

RATES = Rates(full=1e-5, lora=1e-4, tiny=1e-3)


@dataclass(frozen=True)
class Example:
    """A prompt with an answer, as token ids."""

    prompt: Ids
    answer: Ids


def run(data: Data, training: TrainOptions, options: DistillOptions, terminal: Terminal) -> dict[str, Any]:
    """Train on a file of prompts, with responses unless --on-policy is 1; return the report."""
    options.check(training)  # before the teacher is looked for
    if model_identity(str(options.teacher)) == model_identity(training.model):
        raise InputError(f"--teacher {options.teacher}: has the weights of --model; there is nothing to learn")
    with open_session("distill", data, PROMPTS, training, options, RATES, terminal) as session:
        # 1. Read the rows, and load the student. Dropout is off: it would be a divergence that no learning removes.
        rows: list[Record] = session.read()
        if options.on_policy < 1 and (missing := sum(row.response is None for row in rows)):
            raise InputError(
                f"{session.sources}: {missing} rows have no response to learn on; answer them first: datagen respond, "
                "or use --on-policy 1"
            )
        loaded = session.load(request_text(row.prompt) for row in rows)
        without_dropout(loaded.model)
        split = encode_prompts(session, rows, options.max_tokens)

        # 2. Load the teacher, and have it answer the held-out prompts.
        teacher = load_teacher(session, str(options.teacher))
        trainer = Distill(session, options, split, teacher)
        measured = trainer.answer_held_out(split.held_out)
        trainer.measure = session.generation_measure(measured)

        # 3. Train.
        return session.train(trainer, conclude=lambda start, end: {"about": [describe(options)]})


def load_teacher(session: Session, spec: str) -> PreTrainedModel:
    """Load the teacher, in bfloat16 where the device computes in it.

    Raises:
        InputError: it cannot be loaded, or its token ids have other meanings than the student's.
    """
    session.terminal.phase("loading the teacher")
    dtype = session.options.dtype
    if dtype == "auto":
        dtype = "bfloat16" if has_bf16() else "float32"
    loaded = load(spec, ModelOptions(dtype=dtype, attention=session.options.attention), [], session.options.seed)
    if loaded.tokenizer.get_vocab() != session.loaded.tokenizer.get_vocab():
        raise InputError(
            f"--teacher {spec}: has another vocabulary than {session.options.model}; distributions of tokens compare "
            "only within one. Learn from its answers: datagen respond, then datagen train sft"
        )
    settings: Any = loaded.model.generation_config
    settings.eos_token_id = sorted(session.encoder.ends)  # it answers as the student does
    return without_dropout(loaded.model).requires_grad_(False).eval()


def describe(options: DistillOptions) -> str:
    """Return the paragraph of the card."""
    return (
        f"Distilled from the teacher {code(options.teacher)} (arXiv 2306.13649): beta {options.beta:g}, "
        f"{options.on_policy:.0%} of the steps on answers of the student. Loss is the divergence from the teacher per "
        "token, along the teacher's greedy answers."
    )


class Distill(HeldOut, WholeBatch):
    """Trains a student on the divergence from its teacher."""

    def __init__(
        self,
        session: Session,
        options: DistillOptions,
        split: Split[Record, EncodedPrompt],
        teacher: PreTrainedModel,
    ) -> None:
        numbers = [{"row": torch.tensor(i)} for i in range(max(len(split.train), len(split.held_out)))]
        super().__init__(
            model=session.loaded.model,
            args=TrainingArguments(**session.arguments(split), remove_unused_columns=False),
            data_collator=lambda rows: {"row": torch.stack([row["row"] for row in rows])},
            processing_class=session.loaded.tokenizer,
            train_dataset=numbers[: len(split.train)],
            eval_dataset=numbers[: min(len(split.held_out), HELD_OUT)] or None,
        )
        self.session, self.options = session, options
        self._metrics: Any = {"train": {}, "eval": {}}  # those of TRL's trainers; this one has none but the loss
        self.teacher: Any = self.accelerator.prepare_model(teacher, evaluation_mode=True)
        self.examples = [with_answer(prompt) for prompt in split.train]
        self.held_out: list[Example] = []

    def answer_held_out(self, prompts: Sequence[EncodedPrompt]) -> list[Record]:
        """Have the teacher answer the first HELD_OUT prompts; return rows, with its answers where they have none."""
        self.session.terminal.phase(ANSWERING)
        chosen = prompts[:HELD_OUT]
        answers = self.generate(self.teacher, [prompt.ids for prompt in chosen])
        self.held_out = [Example(p.ids, a.ids) for p, a in zip(chosen, answers, strict=True)]
        return [
            prompt.row if prompt.row.response is not None else replace(prompt.row, response=answer.text)
            for prompt, answer in zip(chosen, answers, strict=True)
        ]

    def generate(self, model: Any, prompts: list[Ids], seeds: list[int] | None = None) -> list[Any]:
        """Answer prompts with a model: sampled with a seed for each, greedily without seeds."""
        return generate(
            self.accelerator.unwrap_model(model),
            self.session.loaded.tokenizer,
            prompts,
            max_tokens=self.options.max_tokens,
            temperature=self.options.temperature if seeds else 0.0,
            seeds=seeds,
            batch_size=SAMPLING_BATCH,
            on_tokens=token_counter(self.session.terminal),
        )

    def training_step(self, model: Any, inputs: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Learn on a batch of prompts, `inputs["row"]`, with answers of the student or of the rows."""
        step, examples = self.state.global_step + 1, [self.examples[i] for i in inputs["row"].tolist()]
        if Random(f"{self.args.seed}:{step}:on-policy").random() < self.options.on_policy:
            seeds = answer_seeds(self.args.seed, step, inputs["row"].tolist())
            self.session.terminal.phase("sampling")
            answers = self.generate(model, [example.prompt for example in examples], seeds)
            examples = [replace(e, answer=answer.ids) for e, answer in zip(examples, answers, strict=True)]
            self.session.terminal.phase("updating")
        tokens = sum(len(example.prompt) + len(example.answer) for example in examples)
        self.state.num_input_tokens_seen += tokens * self.args.world_size
        return super().training_step(model, self.batch(examples)._asdict(), *args, **kwargs)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the mean divergence of the answers of a batch; held-out prompts come with the teacher's answers."""
        batch = Batch(**inputs) if model.training else self.batch([self.held_out[i] for i in inputs["row"].tolist()])
        with torch.no_grad():
            teacher = answer_logits(self.teacher, batch, self.options.temperature)
        student = answer_logits(model, batch, self.options.temperature)
        loss = answer_means(divergence(student, teacher, self.options.beta), batch.mask).mean()
        loss = self.weigh(loss, inputs) if model.training else loss
        return (loss, None) if return_outputs else loss

    def count(self, inputs: dict[str, Any]) -> tuple[int, int]:
        return len(next(iter(inputs.values()))), 0

    def weight(self, name: str, inputs: dict[str, Any]) -> float:
        return len(inputs["row"])

    def batch(self, examples: Sequence[Example]) -> Batch:
        return make_batch([e.prompt for e in examples], [e.answer for e in examples], self.args.device)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs:
            logs["num_tokens"] = self.state.num_input_tokens_seen
        super().log(logs, *args, **kwargs)


def with_answer(prompt: EncodedPrompt) -> Example:
    """Return a prompt with the answer of its row."""
    return Example(prompt.ids, list(prompt.conversation.ids[len(prompt.ids) :]))


def answer_logits(model: Any, batch: Batch, temperature: float) -> Tensor:
    """Return a model's logits before each answer token, (rows, answer, vocabulary), at a temperature."""
    return before_answer_tokens(forward_batch(model, batch).logits, batch).float() / temperature


def divergence(student: Tensor, teacher: Tensor, beta: float) -> Tensor:
    """Return the generalised Jensen-Shannon divergence of every token (2306.13649, equation 1), in nats.

    Args:
        student, teacher: logits, (rows, tokens, vocabulary). Of the larger vocabulary only the shared first part is
            compared: behind it are rows of the embedding that belong to no token.
        beta: 0 is KL(teacher, student), 1 is KL(student, teacher).
    """
    shared = min(student.shape[-1], teacher.shape[-1])
    q, p = student[..., :shared].log_softmax(-1), teacher[..., :shared].log_softmax(-1)
    if beta == 0:
        return kl(p, q)
    if beta == 1:
        return kl(q, p)
    mixture = torch.logaddexp(p + log(beta), q + log(1 - beta))
    return beta * kl(p, mixture) + (1 - beta) * kl(q, mixture)


def kl(p: Tensor, q: Tensor) -> Tensor:
    """Return KL(p, q) of log-probabilities, over the last axis."""
    return (p.exp() * (p - q)).sum(-1)


def answer_means(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of every answer over its tokens, (rows,); what the mask leaves out is not read."""
    return torch.where(mask, values, 0.0).sum(1) / mask.sum(1)
