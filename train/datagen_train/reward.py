"""The reward model: learn to score answers as people or judges ranked them (InstructGPT, arXiv 2203.02155).

The model is the SFT model with a new score head and no dropout (models/reward_model.py). K ranked answers to a prompt
go through it once each, and all their C(K,2) comparisons are learned from one batch element (`ranking_loss`); an epoch
is one pass over the data, since more overfit. At the start the loss is about ln 2 and the accuracy about 1/2, which is
checked before the first step (arXiv 2009.01325, 2403.17031). At the end gain and bias are set so that the reference
answers have mean 0 and standard deviation 1 (arXiv 2203.02155, 2403.17031); both are saved in the contract.

Departures. Held-out comparisons choose the best checkpoint, as in all trainers here. Reference answers are the best
ones of the training rows unless --reference names others. The papers have no ties: here they are left out, or learned
as 1/2 with --ties soft.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from math import log
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import PreTrainedModel, TrainingArguments

from datagen.errors import InputError
from datagen.records.files import input_digest, open_input
from datagen.records.ranked import RANKED, Ranked
from datagen.records.reader import PROMPTS
from datagen.records.record import Record, canonical, request_text
from datagen_train.data.checks import CheckInput
from datagen_train.data.rankings import EncodedRanking, RankingEncoder, as_sequences, scored_ids
from datagen_train.data.split import Split, read_rows
from datagen_train.errors import UnusableRow
from datagen_train.models.load import Loaded, model_identity
from datagen_train.models.reward_model import (
    Contract,
    Numbers,
    TokenIds,
    end_token,
    is_reward_model,
    raw_scores,
    separate_padding,
    tokenizer_digests,
    with_score_head,
)
from datagen_train.models.tokens import attention_mask, pad
from datagen_train.options import Rates, RewardOptions, TrainOptions
from datagen_train.run.progress import Terminal
from datagen_train.run.schedule import Scheduled
from datagen_train.run.session import Metrics, Session, open_session

RATES = Rates(full=1e-5, lora=1e-4, tiny=2e-3, epochs=1.0, toy_steps=40)
"""InstructGPT: 9e-6 for 6B, one epoch; a new head and adapters need more."""
START_LOSS, START_ACCURACY = 0.1, 0.15
"""Largest distance of the start from ln 2 and from 1/2; a small sample of comparisons may be further away."""
MAX_REFERENCES = 2000
"""Answers that gain and bias are computed from; the error of their mean is then 1/50 of the standard deviation."""
GOOD_ACCURACY = 0.65
"""Held-out accuracy from which PPO has been run with success: the reward models of InstructGPT (arXiv 2203.02155,
section 4.1) agreed with labelers in 69.6 to 72.4 % of the cases, those of other public runs in 60 to 72 %."""
CHANCE = 0.5
"""Accuracy of a coin."""
MIN_COMPARISONS = 100
"""Comparisons below which there is no verdict: the interval alone would be 20 points wide."""
RESAMPLES = 1000
"""Of the bootstrap; its 95 % intervals are then stable to about a hundredth."""
CONFIDENCE_BINS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Borders of the bins of the reliability table; a prediction is always for the likelier side."""
LOSS_COLUMNS = ("better", "worse", "weight", "target", "margin")


def run(data: str, options: TrainOptions, algorithm: RewardOptions, terminal: Terminal) -> dict[str, Any]:
    """Train on a file of rows; return the report."""
    if is_reward_model(options.model):
        raise InputError(f"--model {options.model}: is a reward model; start from the SFT model that it was made from")
    with open_session("reward", data, RANKED, options, algorithm, RATES, terminal) as session:
        return train(session, algorithm)


def train(session: Session, options: RewardOptions) -> dict[str, Any]:
    # 1. Read the rankings, and load the SFT model with a new score head.
    rows: list[Ranked] = session.read()
    references = read_references(options.reference)
    texts = chain.from_iterable((request_text(row.prompt), *row.responses) for row in rows)
    loaded = session.load(texts, partial(scorer, seed=session.options.seed))
    loaded.model.score.requires_grad_(True)  # the head is new, so it is trained even where layers are frozen

    # 2. Encode every answer once and the comparisons of each prompt, hold some prompts out, and check.
    encoder = RankingEncoder(session.encoder, options.ties, options.margin)
    split = session.encode(rows, lambda row: [encoder.encode(row)], EncodedRanking.size)
    if encoder.left_out:
        reasons = "; ".join(f"{count}: {reason}" for reason, count in sorted(encoder.left_out.items()))
        session.terminal.say(f"answers left out: {reasons}")
    if repeated := len(rows) - len({canonical(row.prompt) for row in rows}):
        session.report_check(
            "prompts", f"{repeated} of {len(rows)} rows repeat a prompt; one ranked row of them overfits less"
        )
    session.check(CheckInput(loaded, as_sequences(split.train + split.held_out), session.account))

    # 3. Train; then measure the best model and write its contract.
    trainer = RewardTrainer(session, split)

    def conclude(start: Metrics, end: Metrics) -> dict[str, Any]:
        """Measure the best model, write its contract, and return what joins the report."""
        raw = trainer.score([ids for ranking in split.held_out for ids in ranking.answers])
        metrics = describe(split.held_out, raw, session.options.seed) if split.held_out else {}
        answers = reference_answers(session, split, references)
        contract = make_contract(session, trainer, answers, metrics.get("accuracy"))
        if trainer.is_world_process_zero():
            contract.write(session.folder.saving)
        scale = {name: getattr(contract, name) for name in ("gain", "bias", "references")}
        return {
            "reward": {**metrics, "left_out": dict(sorted(encoder.left_out.items())), **scale},
            "about": paragraphs(metrics),
            **reservations(start.get("eval_accuracy", 0.0), metrics),
        }

    check = partial(check_start, session=session, options=options, prompts=len(split.held_out))
    return session.train(trainer, check, conclude, decides="eval_accuracy")


def scorer(loaded: Loaded, seed: int) -> PreTrainedModel:
    """Return the model with a score head instead of its language head; `seed` is of the head."""
    note = separate_padding(loaded.model, loaded.tokenizer)
    loaded.notes += [note] if note else []
    return with_score_head(loaded.model, seed)


def ranking_loss(
    scores: Tensor, better: Tensor, worse: Tensor, weight: Tensor, target: Tensor, margin: Tensor
) -> Tensor:
    """Return the K-wise ranking loss (InstructGPT, arXiv 2203.02155, equation 1).

    Under the Bradley-Terry model, answer a is better than answer b with probability sigmoid(r_a - r_b). So the negative
    log-likelihood of the C(K,2) comparisons of K answers, averaged over comparisons and then over prompts, is

        loss = - mean over prompts of  1 / C(K,2)  sum over comparisons of  log sigmoid(r_better - r_worse - margin)

    All comparisons of a prompt are in one batch element, so each answer goes through the model once. Spread over the
    data as separate pairs, each answer would be seen K - 1 times in an epoch, and the model overfits in one pass. The
    margin is that of Llama 2 (arXiv 2307.09288, equation 2). With a soft label the better answer is better only with
    probability p (1/2 for a tie), and the term becomes  p log sigmoid(d) + (1 - p) log sigmoid(-d).

    Args:
        scores: (answers,) raw rewards.
        better, worse: (comparisons,) indices into `scores`.
        weight: (comparisons,) 1 / (prompts * comparisons of the prompt); the sum is 1.
        target: (comparisons,) the probability p.
        margin: (comparisons,) margins, in units of the raw reward.
    """
    difference = scores[better] - scores[worse] - margin
    log_likelihood = target * logsigmoid(difference) + (1 - target) * logsigmoid(-difference)
    return -(weight * log_likelihood).sum()


def collate(batch: Sequence[EncodedRanking], pad_id: int) -> dict[str, Tensor]:
    """Return a batch of prompts: every answer once, and the columns of `ranking_loss`, one value per comparison."""
    starts = np.cumsum([0, *(len(ranking.answers) for ranking in batch)])
    rows = [
        (start + c.better, start + c.worse, 1 / len(ranking.comparisons) / len(batch), c.target, c.margin)
        for start, ranking in zip(starts, batch, strict=False)
        for c in ranking.comparisons
    ]
    answers = [ids for ranking in batch for ids in ranking.answers]
    columns = zip(LOSS_COLUMNS, zip(*rows, strict=True), strict=True)
    return {
        "input_ids": pad(answers, pad_id),  # on the right, where positions count from the first token
        "attention_mask": attention_mask(answers),
        **{name: torch.tensor(column) for name, column in columns},
    }


class RewardTrainer(Scheduled):
    """Learns from rankings, and measures by scoring the held-out ones."""

    loss_is_scaled_for_ga = False
    """The loss is a mean over the prompts of a micro-batch."""

    def __init__(self, session: Session, split: Split[Any, EncodedRanking]) -> None:
        arguments = session.arguments(split)
        pad_id = session.loaded.tokenizer.pad_token_id
        assert isinstance(pad_id, int)
        super().__init__(
            model=session.loaded.model,
            args=TrainingArguments(**arguments, remove_unused_columns=False),
            data_collator=partial(collate, pad_id=pad_id),
            processing_class=session.loaded.tokenizer,
            train_dataset=split.train,
            eval_dataset=split.held_out or None,
        )
        self.pad_id = pad_id
        self._since_log: list[Tensor] = []
        """(accuracy, margin, tokens) of each batch since the last log."""
        self._tokens = 0.0
        """Until the last log, in all processes."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        output = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
        scores = output.logits[:, 0].float()
        loss = ranking_loss(scores, **{name: inputs[name] for name in LOSS_COLUMNS})
        difference = (scores[inputs["better"]] - scores[inputs["worse"]]).detach()
        correct = (difference > 0).float() + (difference == 0).float() / 2
        tokens = inputs["attention_mask"].sum().float()
        self._since_log.append(torch.stack([correct.mean(), difference.mean(), tokens]))
        return (loss, output) if return_outputs else loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add accuracy and margin of the comparisons trained on since the last log."""
        if "loss" in logs and self._since_log:
            accuracy, margin, tokens = torch.stack(self._since_log).mean(0).tolist()
            self._tokens += tokens * len(self._since_log) * self.args.world_size
            logs |= {"accuracy": accuracy, "margin": margin, "num_tokens": self._tokens}
            self._since_log.clear()
        super().log(logs, *args, **kwargs)

    def score(self, sequences: Sequence[TokenIds]) -> Numbers:
        """Return the raw reward of each sequence, in order."""
        model: Any = self.model
        return raw_scores(model, sequences, pad_id=self.pad_id, batch_size=self.args.eval_batch_size)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Measure loss, accuracy and margin on the held-out rankings; every process measures on all of them."""
        rankings: Any = self.eval_dataset
        raw = self.score([ids for ranking in rankings for ids in ranking.answers])
        batch = collate(rankings, pad_id=0)
        loss = ranking_loss(torch.from_numpy(raw), **{name: batch[name] for name in LOSS_COLUMNS})
        metrics = {"eval_loss": float(loss)}
        comparisons = compare(rankings, raw)
        if len(comparisons.difference):
            margin = float(comparisons.difference.mean())
            metrics |= {"eval_accuracy": float(wins(comparisons.difference).mean()), "eval_margin": margin}
        self.log(metrics)
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def check_start(start: dict[str, float], session: Session, options: RewardOptions, prompts: int) -> None:
    """Warn if before the first step the loss is not about ln 2, or the accuracy not about 1/2."""
    if "eval_accuracy" not in start or options.margin:
        return
    tolerance = START_ACCURACY + 1 / prompts**0.5  # two standard deviations of a fair coin, thrown once per prompt
    unusual = abs(start["eval_loss"] - log(2)) > START_LOSS or abs(start["eval_accuracy"] - 0.5) > tolerance
    values = (
        f"loss {start['eval_loss']:.3f} (about {log(2):.3f} is expected), accuracy {start['eval_accuracy']:.3f} (1/2)"
    )
    session.findings["untrained"] = f"{'unusual' if unusual else 'as it should be'}: {values}"
    if unusual:
        session.terminal.say(
            f"warning: before the first step {values}: the model can already tell the answers apart, for example by "
            "their length, or --model is a trained reward model"
        )


def read_references(name: str | None) -> list[Record]:
    """Read the prompts with responses whose mean score becomes 0; none without --reference."""
    if name is None:
        return []
    rows, _ = read_rows(name, PROMPTS)
    answered = [row for row in rows if row.response is not None]
    if not answered:
        raise InputError(f"--reference {name}: no row has a prompt and a response")
    return answered


def reference_answers(session: Session, split: Split[Any, EncodedRanking], rows: Sequence[Record]) -> list[TokenIds]:
    """Encode the reference answers: those of --reference, or the best ones of the training rows; a sample of them."""
    if rows:
        answers = []
        for row in rows:
            try:
                ids, _, _ = scored_ids(session.encoder, row.prompt, row.response or "")
            except UnusableRow as reason:
                session.terminal.say(f"--reference: a row is left out: {reason}")
            else:
                answers.append(np.array(ids, dtype=np.int32))
        if not answers:
            raise InputError("--reference: no row can be encoded")
    else:
        answers = [ranking.answers[ranking.best] for ranking in split.train]
    return Random(f"{session.options.seed}: references").sample(answers, min(len(answers), MAX_REFERENCES))


def make_contract(
    session: Session, trainer: RewardTrainer, references: Sequence[TokenIds], held_out_accuracy: float | None
) -> Contract:
    """Return the contract, with the gain and bias that give the references mean 0 and standard deviation 1.

    References whose raw rewards are all equal are only centred.
    """
    raw, tokenizer = trainer.score(references), session.loaded.tokenizer
    digests, std = tokenizer_digests(tokenizer), float(raw.std())
    gain = 1 / std if std > 1e-6 else 1.0
    with open_input(session.data) as file:
        data = input_digest(file)
    return Contract(
        tokenizer=digests["tokenizer"],
        template=digests["template"],
        end=end_token(tokenizer),
        pad=trainer.pad_id,
        max_length=session.options.max_length,
        gain=gain,
        bias=-gain * float(raw.mean()),
        references=len(references),
        model=model_identity(session.options.model),
        data=data,
        held_out_accuracy=held_out_accuracy,
    )


# The report: how often the model is right, where, how confident it is, and what length alone would reach.


@dataclass(frozen=True)
class Comparisons:
    """Comparisons with the scores of their answers, as columns of shape (comparisons,). Ties are left out."""

    difference: Numbers
    """Raw reward of the better answer minus that of the worse one."""
    longer: Numbers
    """Tokens by which the better answer is longer."""
    prompt: Numbers
    """Number of the prompt: comparisons of one prompt are not independent."""
    source: tuple[str, ...] = ()


def compare(rankings: Sequence[EncodedRanking], scores: Numbers) -> Comparisons:
    """Return the comparisons that are no ties; `scores` are the raw rewards of all answers, one after another."""
    by_prompt = np.split(scores, np.cumsum([len(ranking.answers) for ranking in rankings])[:-1])
    rows = [
        (raw[c.better] - raw[c.worse], ranking.lengths[c.better] - ranking.lengths[c.worse], number, ranking.source)
        for number, (ranking, raw) in enumerate(zip(rankings, by_prompt, strict=True))
        for c in ranking.comparisons
        if c.target != 0.5
    ]
    *columns, sources = zip(*rows, strict=True) if rows else ((),) * 4
    difference, longer, prompt = (np.array(column, dtype=np.float64) for column in columns)
    return Comparisons(difference, longer, prompt, tuple(sources))


def wins(differences: Numbers) -> Numbers:
    """Return 1 where the better answer is ahead, 0 where it is behind, 1/2 where they are equal. The mean: accuracy."""
    result: Numbers = (np.sign(differences) + 1) / 2
    return result


def interval(comparisons: Comparisons, seed: int) -> tuple[float, float]:
    """Return the 95 % interval of the accuracy, from a bootstrap over prompts."""
    _, prompt = np.unique(comparisons.prompt, return_inverse=True)
    counts = np.bincount(prompt)
    sums = np.bincount(prompt, weights=wins(comparisons.difference))
    drawn = np.random.default_rng(seed).integers(len(counts), size=(RESAMPLES, len(counts)))
    low, high = np.quantile(sums[drawn].sum(1) / counts[drawn].sum(1), [0.025, 0.975])
    return float(low), float(high)


def calibration(comparisons: Comparisons) -> tuple[float, list[dict[str, float]]]:
    """Return the expected calibration error of sigmoid(r_better - r_worse), and its bins.

    A bin holds the comparisons with a confidence in its range: their count, mean confidence and accuracy.
    """
    confidence = 1 / (1 + np.exp(-np.abs(comparisons.difference)))
    correct = wins(comparisons.difference)
    places = np.digitize(confidence, CONFIDENCE_BINS[1:-1])
    bins = []
    for place in np.unique(places):
        inside = places == place
        mean, accuracy = float(confidence[inside].mean()), float(correct[inside].mean())
        bins.append(
            {"from": CONFIDENCE_BINS[place], "count": int(inside.sum()), "confidence": mean, "accuracy": accuracy}
        )
    error = sum(row["count"] * abs(row["confidence"] - row["accuracy"]) for row in bins) / len(correct)
    return float(error), bins


def correlation(first: Sequence[float] | Numbers, second: Sequence[float] | Numbers) -> float | None:
    """Return Pearson's correlation; None where one side does not vary."""
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if len(a) < 2 or a.std() == 0 or b.std() == 0:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def describe(rankings: Sequence[EncodedRanking], scores: Numbers, seed: int) -> dict[str, Any]:
    """Measure a model on rankings; `scores` are its raw rewards of all answers, one after another."""
    comparisons = compare(rankings, scores)
    metrics: dict[str, Any] = {"prompts": len(rankings), "comparisons": len(comparisons.difference)}
    if not metrics["comparisons"]:
        return metrics
    error, bins = calibration(comparisons)
    lengths, names = [length for ranking in rankings for length in ranking.lengths], np.array(comparisons.source)
    correct = {name: wins(comparisons.difference[names == name]) for name in sorted(set(comparisons.source))}
    return metrics | {
        "accuracy": float(wins(comparisons.difference).mean()),
        "interval": interval(comparisons, seed),
        "longer_wins": float(wins(comparisons.longer).mean()),
        "margin": float(comparisons.difference.mean()),
        "length_gap": float(comparisons.longer.mean()),
        "reward_length_correlation": correlation(scores, lengths),
        "calibration_error": error,
        "reliability": bins,
        "by_source": {
            name: {"comparisons": len(values), "accuracy": float(values.mean())} for name, values in correct.items()
        },
    }


def verdict(metrics: dict[str, Any]) -> str:
    """Say whether the model is good enough for PPO."""
    count = metrics.get("comparisons", 0)
    if count < MIN_COMPARISONS:
        return f"Good enough for PPO? Unknown: {count} held-out comparisons, at least {MIN_COMPARISONS} are needed."
    low, high = metrics["interval"]
    length = max(metrics["longer_wins"], 1 - metrics["longer_wins"])
    numbers = f"accuracy {metrics['accuracy']:.3f} (95 %: {low:.3f} to {high:.3f}), length alone {length:.3f}"
    if low <= length:
        return f"Not good enough for PPO: no better than length alone. {numbers}."
    if metrics["accuracy"] < GOOD_ACCURACY:
        return f"Not good enough for PPO: below {GOOD_ACCURACY}. {numbers}."
    return f"Good enough for PPO: {numbers}, at least {GOOD_ACCURACY} is required."


def reservations(before: float, metrics: dict[str, Any]) -> dict[str, str]:
    """Say why a model is no result, which ranks no better than chance or worse than before, or why nobody can tell.

    Args:
        before: held-out accuracy before training.
        metrics: of `describe`.
    """
    count = metrics.get("comparisons", 0)
    if count < MIN_COMPARISONS:
        return {"doubt": f"{count} held-out comparisons are too few to tell: at least {MIN_COMPARISONS} are needed"}
    after, (low, high) = metrics["accuracy"], metrics["interval"]
    if low > CHANCE and after >= before:
        return {}
    numbers = f"{before:.3f} before, {after:.3f} after (95 %: {low:.3f} to {high:.3f}; chance is {CHANCE})"
    return {"failure": f"the reward model is not good: accuracy on {count} held-out comparisons: {numbers}"}


def paragraphs(metrics: dict[str, Any]) -> list[str]:
    """Put the metrics into words, for the model card."""
    if "accuracy" not in metrics:
        return [verdict(metrics)]
    tie = metrics["reward_length_correlation"]
    return [
        verdict(metrics),
        f"A judge that always takes the longer answer is right in {metrics['longer_wins']:.3f} of the cases; the "
        f"better answer is longer by {metrics['length_gap']:.1f} tokens, and reward and length correlate by "
        f"{'nothing that can be measured' if tie is None else f'{tie:.2f}'}.",
        f"Calibration error {metrics['calibration_error']:.3f}. By source: "
        + "; ".join(f"{n} {s['accuracy']:.3f} of {s['comparisons']}" for n, s in metrics["by_source"].items())
        + ".",
    ]
