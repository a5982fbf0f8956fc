"""The reward model: learn to score answers as those rank them who compared them (InstructGPT, arXiv 2203.02155).

    K answers to a prompt go through the model once each, and all their C(K,2) comparisons are learned from one batch
    element (reward_loss.py); an epoch is one pass, for more overfit
    the trunk is the SFT model's, the head is new and small, dropout is off: at the start the loss is about ln 2 and the
    accuracy about 1/2, which is looked at before the first step (arXiv 2009.01325, 2403.17031)
    then gain and bias set the reference answers to mean 0 and spread 1 (arXiv 2203.02155, 2403.17031); they are stored
    with the model, in the contract that whoever uses it has to keep (scoring.py)

Departures: held-out comparisons choose the best checkpoint, as in all trainers here; reference answers are the best
ones of the training rows unless --reference names others. What the papers call ties do not occur there: they are left
out, or learned as 1/2 with --ties soft.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from math import log
from random import Random
from typing import Any

import numpy as np
import torch
from transformers import Trainer, TrainingArguments

from datagen.engine.options import option
from datagen.errors import InputError
from datagen.records.files import input_digest, open_input
from datagen.records.ranked import RANKED, Ranked
from datagen.records.reader import PROMPTS, Reader
from datagen.records.record import BadLine, Record, canonical, request_text
from datagen_train.data.checks import CheckInput
from datagen_train.data.encode import Split, UnusableRow
from datagen_train.data.rankings import (
    EncodedRanking,
    RankingEncoder,
    TokenIds,
    as_sequences,
    collate,
    end_token,
    measure_ranking,
    scored_ids,
)
from datagen_train.models.scoring import (
    Contract,
    RewardModel,
    as_scorer,
    is_reward_model,
    load_reward,
    raw_scores,
    template_digest,
    tokenizer_digest,
)
from datagen_train.options import Rates, TrainOptions
from datagen_train.reward_loss import Numbers, accuracy, ranking_loss
from datagen_train.reward_report import by_prompt, describe, judge, paragraphs
from datagen_train.run.session import Session, Terminal, model_identity, open_session

__all__ = ["Options", "RewardModel", "load_reward", "run"]

RATES = Rates(full=1e-5, lora=1e-4, tiny=3e-3, epochs=1.0)
"""InstructGPT: 9e-6 for 6B, one epoch; a new head and adapters want more."""
TIES = ("skip", "soft")
START_LOSS, START_ACCURACY = 0.1, 0.15
"""How far the start may be from ln 2 and from 1/2; a small sample of comparisons gets more."""
MOST_REFERENCES = 2000
"""Answers that gain and bias are set by; their mean is then known to a fiftieth of the spread."""


@dataclass(frozen=True)
class Options:
    """What `datagen train reward` can be told beyond what all trainers can."""

    ties: str = option("skip", "Answers of equal rank: skip them, or learn them as 1/2 (soft).")
    margin: float = option(0.0, "Times the margin of a comparison, that its rewards must differ by.", least=0)
    reference: str | None = option(
        None, "Prompts with responses whose mean score is to be 0. [the best answers of the training rows]"
    )


def run(data: str, options: TrainOptions, own: Options, terminal: Terminal) -> dict[str, Any] | None:
    """Train; return the report, or None where exactly this was done before."""
    refuse(options, own)
    with open_session("reward", data, RANKED, options, own, RATES, terminal) as session:
        return train(session, own) if session else None


def refuse(options: TrainOptions, own: Options) -> None:
    """Raise if an option would do nothing, or harm."""
    if own.ties not in TIES:
        raise InputError(f"--ties {own.ties}: expected {' or '.join(TIES)}")
    if options.generate or options.best != "loss":
        raise InputError("a reward model answers nothing: leave out --generate and --best")
    if options.lora_dropout:
        raise InputError("--lora-dropout: a reward model is trained without dropout")
    if is_reward_model(options.model):
        raise InputError(f"--model {options.model}: is a reward model; start from the SFT model that it was made from")


def train(session: Session, own: Options) -> dict[str, Any]:
    rows: list[Ranked] = session.read()
    references = read_references(own.reference)
    loaded = session.load(texts(rows), partial(as_scorer, seed=session.options.seed))
    loaded.model.score.requires_grad_(True)  # whatever is frozen: the head is new
    encoder = RankingEncoder(session.encoder, own.ties, own.margin)
    split = session.encode(rows, lambda row: [encoder.encode(row)], measure_ranking)
    tell_left_out(session, encoder)
    tell_repeated(session, rows)
    session.check(CheckInput(loaded, as_sequences(split.train + split.held_out), session.account))
    trainer = make_trainer(session, split)

    def conclude() -> dict[str, Any]:
        raw = trainer.score([ids for each in split.held_out for ids in each.answers])
        told = describe(split.held_out, raw, session.options.seed) if split.held_out else {}
        contract = make_contract(session, trainer, reference_ids(session, split, references), told.get("accuracy"))
        if trainer.is_world_process_zero():
            contract.write(session.folder.path)
        normalised = {name: getattr(contract, name) for name in ("gain", "bias", "references")}
        ppo = ["datagen", "train", "ppo", "prompts.jsonl", "--model", session.options.model, "--reward"]
        reward = {**told, "left_out": dict(sorted(encoder.left_out.items())), **normalised}
        return {
            "reward": reward,
            "about": paragraphs(told),
            "next": shlex.join(ppo),
        }

    return session.train(trainer, lambda start: check_start(start, session, own, len(split.held_out)), conclude)


def texts(rows: Sequence[Ranked]) -> Any:
    """Return the words of the rows."""
    return chain.from_iterable((request_text(row.prompt), *row.responses) for row in rows)


def tell_left_out(session: Session, encoder: RankingEncoder) -> None:
    if encoder.left_out:
        reasons = "; ".join(f"{count}: {reason}" for reason, count in sorted(encoder.left_out.items()))
        session.terminal.say(f"answers left out: {reasons}")


def tell_repeated(session: Session, rows: Sequence[Ranked]) -> None:
    """Pairs of one prompt in several rows are learned apart, which is what a ranked row is there to avoid."""
    repeated = len(rows) - len({canonical(row.prompt) for row in rows})
    if repeated:
        session.report_check(
            "prompts", f"{repeated} of {len(rows)} rows repeat a prompt; one ranked row of them overfits less"
        )


class RewardTrainer(Trainer):
    """Learns from rankings; measures by scoring the held-out ones."""

    loss_is_scaled_for_ga = False
    """The loss is a mean over the prompts of a part of the batch."""

    def __init__(self, *, pad: int, **given: Any) -> None:
        super().__init__(data_collator=partial(collate, pad_id=pad), **given)
        self.pad = pad
        self._since_log: list[torch.Tensor] = []

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        comparisons = {name: inputs[name] for name in ("better", "worse", "weight", "target", "margin")}
        output = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
        scores = output.logits[:, 0].float()
        loss = ranking_loss(scores, **comparisons)
        difference = (scores[comparisons["better"]] - scores[comparisons["worse"]]).detach()
        right = (difference > 0).float() + (difference == 0).float() / 2
        self._since_log.append(torch.stack([right.mean(), difference.mean()]))
        return (loss, output) if return_outputs else loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add accuracy and margin of the comparisons trained on since the last time."""
        if "loss" in logs and self._since_log:
            right, margin = torch.stack(self._since_log).mean(0).tolist()
            logs |= {"accuracy": right, "margin": margin}
            self._since_log.clear()
        super().log(logs, *args, **kwargs)

    def score(self, sequences: Sequence[TokenIds]) -> Numbers:
        """Return the raw rewards of sequences."""
        model: Any = self.model
        return raw_scores(model, sequences, pad=self.pad, batch_size=self.args.eval_batch_size)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Measure on the held-out rankings; every process measures on all."""
        rankings: Any = self.eval_dataset
        raw = self.score([ids for each in rankings for ids in each.answers])
        metrics = {f"eval_{name}": value for name, value in measure(rankings, raw).items()}
        self.log(metrics)
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def measure(rankings: Sequence[EncodedRanking], raw: Numbers) -> dict[str, float]:
    """Return loss, accuracy and margin of rankings whose answers got these raw rewards."""
    batch = collate(rankings, pad_id=0)
    names = ("better", "worse", "weight", "target", "margin")
    loss = float(ranking_loss(torch.from_numpy(raw), **{name: batch[name] for name in names}))
    judged, _ = judge(rankings, by_prompt(rankings, raw))
    if not len(judged):
        return {"loss": loss}
    return {"loss": loss, "accuracy": accuracy(judged), "margin": float(judged.difference.mean())}


def make_trainer(session: Session, split: Split[Any, EncodedRanking]) -> RewardTrainer:
    arguments = session.arguments(split)
    pad = session.loaded.tokenizer.pad_token_id
    assert isinstance(pad, int)
    return RewardTrainer(
        pad=pad,
        model=session.loaded.model,
        args=TrainingArguments(**arguments, remove_unused_columns=False),
        processing_class=session.loaded.tokenizer,
        train_dataset=split.train,
        eval_dataset=split.held_out or None,
    )


def check_start(start: dict[str, float], session: Session, own: Options, prompts: int) -> None:
    """Before the first step the loss is about ln 2 and the accuracy about 1/2; say so if they are not."""
    if "eval_accuracy" not in start or own.margin:
        return
    room = START_ACCURACY + 1 / prompts**0.5  # two standard deviations of a fair coin, thrown once a prompt
    off = abs(start["eval_loss"] - log(2)) > START_LOSS or abs(start["eval_accuracy"] - 0.5) > room
    found = f"loss {start['eval_loss']:.3f} (about {log(2):.3f} is due), accuracy {start['eval_accuracy']:.3f} (1/2)"
    session.findings["untrained"] = f"{'unusual' if off else 'as it should be'}: {found}"
    if off:
        session.terminal.say(
            f"warning: before the first step {found}: the answers differ in something that the model already reads, "
            "such as their length, or the start is a trained reward model"
        )


def read_references(name: str | None) -> list[Record]:
    """Read the prompts with responses whose mean score is to be 0."""
    if name is None:
        return []
    with open_input(name) as file:
        items: list[Record | BadLine] = list(Reader(name, file, PROMPTS).read())
    rows = [item for item in items if isinstance(item, Record) and item.response is not None]
    if not rows:
        raise InputError(f"--reference {name}: no row has a prompt and a response")
    return rows


def reference_ids(session: Session, split: Split[Any, EncodedRanking], rows: Sequence[Record]) -> list[TokenIds]:
    """Return the reference answers as they are scored: those of a file, or the best of the training rows."""
    if not rows:
        ids = [each.answers[each.best] for each in split.train]
    else:
        ids = list(_encode_references(session, rows))
        if not ids:
            raise InputError("--reference: no row can be encoded")
    return Random(f"{session.options.seed}: references").sample(ids, min(len(ids), MOST_REFERENCES))


def _encode_references(session: Session, rows: Sequence[Record]) -> Any:
    for row in rows:
        try:
            ids, _, _ = scored_ids(session.encoder, row.prompt, row.response or "")
        except UnusableRow as reason:
            session.terminal.say(f"--reference: a row is left out: {reason}")
            continue
        yield np.array(ids, dtype=np.int32)


def normalise(raw: Numbers) -> tuple[float, float]:
    """Return the gain and bias that set the mean of raw rewards to 0 and their spread to 1.

    Rewards that are all equal have no spread: they are only centred.
    """
    spread = float(raw.std())
    gain = 1 / spread if spread > 1e-6 else 1.0
    return gain, -gain * float(raw.mean())


def make_contract(
    session: Session, trainer: RewardTrainer, references: Sequence[TokenIds], held_out_accuracy: float | None
) -> Contract:
    """Write down what a score depends on."""
    gain, bias = normalise(trainer.score(references))
    tokenizer = session.loaded.tokenizer
    with open_input(session.data) as file:
        data = input_digest(file)
    return Contract(
        tokenizer=tokenizer_digest(tokenizer),
        template=template_digest(tokenizer),
        end=end_token(tokenizer),
        pad=trainer.pad,
        max_length=session.options.max_length,
        gain=gain,
        bias=bias,
        references=len(references),
        model=model_identity(session.options.model),
        data=data,
        held_out_accuracy=held_out_accuracy,
    )
