"""The reward model: learn to score answers as people or judges ranked them (InstructGPT, arXiv 2203.02155).

The model is the SFT model with a new score head and no dropout (models/reward_model.py). K ranked answers to a prompt
go through it once each, and all their C(K,2) comparisons are learned from one batch element (`ranking_loss`); an epoch
is one pass over the data, since more overfit. At the start the loss is about ln 2 and the accuracy about 1/2, which is
checked before the first step (arXiv 2009.01325, 2403.17031). At the end the head is multiplied so that the scores of
the reference answers have standard deviation 1, and a constant is found that gives them mean 0 (arXiv 2203.02155,
2403.17031).

Departures. Held-out comparisons choose the best checkpoint, as in all trainers here. Reference answers are the best
ones of the training rows unless --reference names others. The papers have no ties: here they are left out, or learned
as 1/2 with --ties soft.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
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
from datagen.records.ranked import RANKED, Ranked
from datagen.records.reader import PROMPTS
from datagen.records.record import Record, canonical, request_text
from datagen_train.data.checks import CheckInput
from datagen_train.data.layouts import RANKINGS
from datagen_train.data.rankings import EncodedRanking, RankingEncoder, as_sequences, scored_ids
from datagen_train.data.sources import Data
from datagen_train.data.split import Split, read_rows
from datagen_train.errors import UnusableRow
from datagen_train.models.heads import Head
from datagen_train.models.load import Loaded, model_identity
from datagen_train.models.reward_model import (
    Contract,
    Numbers,
    TokenIds,
    close_answers,
    end_token,
    is_reward_model,
    raw_scores,
    separate_padding,
    tokenizer_digests,
    with_score_head,
)
from datagen_train.models.tokens import attention_mask, pad
from datagen_train.options import RewardOptions, TrainOptions
from datagen_train.rates import Rates
from datagen_train.run.progress import Terminal
from datagen_train.run.reward_report import compare, describe, paragraphs, reservations, wins
from datagen_train.run.session import Metrics, Session, open_session
from datagen_train.run.steps import Watched
from datagen_train.run.whole_batch import WholeBatch

RATES = Rates(full=1e-5, lora=1e-4, tiny=2e-3, epochs=1.0, toy_steps=40)
"""InstructGPT: 9e-6 for 6B, one epoch; a new head and adapters need more."""
START_LOSS, START_ACCURACY = 0.1, 0.15
"""Largest distance of the start from ln 2 and from 1/2; a small sample of comparisons may be further away."""
MAX_REFERENCES = 2000
"""Answers that the scale is computed from; the error of their mean is then 1/50 of the standard deviation."""
EXAMPLE = ("Name a colour.", "Blue.")
USAGE = """\
```python
from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(".")
model = AutoModelForSequenceClassification.from_pretrained("."{dtype}).eval()
chat = [{{"role": "user", "content": "{prompt}"}}, {{"role": "assistant", "content": "{answer}"}}]
inputs = tokenizer.apply_chat_template(chat, return_tensors="pt", return_dict=True)
print(model(**inputs).logits[0, 0].item() + {bias:.6f})  # {expected:.4f}
```"""
LOSS_COLUMNS = ("better", "worse", "weight", "target", "margin")


def run(data: Data, options: TrainOptions, algorithm: RewardOptions, terminal: Terminal) -> dict[str, Any]:
    """Train on files of rows; return the report."""
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
    if isinstance(loaded.model.score, Head):  # new, so it is trained even where layers are frozen; adapters see to it
        loaded.model.score.requires_grad_(True)

    # 2. Encode every answer once and the comparisons of each prompt, hold some prompts out, and check.
    encoder = RankingEncoder(session.encoder, options.ties, options.margin)
    shape = {"ties": options.ties, "margin": options.margin}
    split = session.encode(rows, lambda row: [encoder.encode(row)], RANKINGS, encoder.left_out, **shape)
    if encoder.left_out:
        reasons = "; ".join(f"{count}: {reason}" for reason, count in sorted(encoder.left_out.items()))
        session.terminal.say(f"answers left out: {reasons}")
    if repeated := len(rows) - len({canonical(row.prompt) for row in rows}):
        session.report_check(
            "prompts", f"{repeated} of {len(rows)} rows repeat a prompt; one ranked row of them overfits less"
        )
    session.check(CheckInput(loaded, as_sequences(split.train + split.held_out), session.account))

    # 3. Train; then measure the best model and write its contract.
    trainer = RewardTrainer(session, split, reference_answers(session, split, references))

    def conclude(start: Metrics, end: Metrics) -> dict[str, Any]:
        """Measure the best model, write its contract, and return what joins the report."""
        scores = trainer.score([ids for ranking in split.held_out for ids in ranking.answers])
        raw = scores / trainer.scale.gain
        metrics = describe(split.held_out, raw, session.options.seed) if split.held_out else {}
        contract = make_contract(session, trainer, metrics.get("accuracy"))
        if trainer.is_world_process_zero():
            contract.write(session.folder.saving)
        return {
            "reward": {**metrics, "left_out": dict(sorted(encoder.left_out.items())), **asdict(trainer.scale)},
            "about": [*paragraphs(metrics), *usage(session, trainer)],
            **reservations(start.get("eval_accuracy", 0.0), metrics),
        }

    check = partial(check_start, session=session, options=options, prompts=len(split.held_out))
    return session.train(trainer, check, conclude, decides="eval_accuracy")


def scorer(loaded: Loaded, seed: int) -> PreTrainedModel:
    """Return the model with a score head instead of its language head; `seed` is of the head."""
    close_answers(loaded.tokenizer)
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
        "prompts": torch.tensor(len(batch)),
        **{name: torch.tensor(column) for name, column in columns},
    }


@dataclass(frozen=True)
class Scale:
    """What gives the scores of the reference answers mean 0 and standard deviation 1: gain * raw + bias."""

    gain: float = 1.0
    bias: float = 0.0
    references: int = 0


class RewardTrainer(WholeBatch, Watched):
    """Learns from rankings, and measures by scoring the held-out ones."""

    def __init__(self, session: Session, split: Split[Any, EncodedRanking], references: Sequence[TokenIds]) -> None:
        arguments = session.arguments(split)
        pad_id = session.loaded.tokenizer.pad_token_id
        assert isinstance(pad_id, int)
        super().__init__(
            model=session.loaded.model,
            args=TrainingArguments(**arguments, remove_unused_columns=False),
            data_collator=partial(collate, pad_id=pad_id),
            fsdp=session.options.fsdp,
            processing_class=session.loaded.tokenizer,
            train_dataset=split.train,
            eval_dataset=split.held_out or None,
        )
        self.pad_id = pad_id
        self.scale, self._references = Scale(), references
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
        loss = self.weigh(loss, inputs)
        return (loss, output) if return_outputs else loss

    def count(self, inputs: dict[str, Any]) -> tuple[int, int]:
        return int(inputs["prompts"]), 0

    def pending_state(self) -> list[list[float]]:
        """Return (accuracy, margin, tokens) of each batch since the last log."""
        return [values.tolist() for values in self._since_log]

    def restore_pending(self, state: list[list[float]]) -> None:
        self._since_log = [torch.tensor(values, device=self.args.device) for values in state]

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add accuracy and margin of the comparisons trained on since the last log."""
        if "loss" in logs and self._since_log:
            means = self.accelerator.reduce(torch.stack(self._since_log).mean(0), "mean")  # over all processes
            accuracy, margin, tokens = means.tolist()
            self._tokens += tokens * len(self._since_log) * self.args.world_size
            logs |= {"accuracy": accuracy, "margin": margin, "num_tokens": self._tokens}
            self._since_log.clear()
        super().log(logs, *args, **kwargs)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save a checkpoint if the library calls, else the model, with its head multiplied to the final scale."""
        if not _internal_call and not self.scale.references:
            self._set_scale()
        super().save_model(output_dir, _internal_call)

    def _set_scale(self) -> None:
        """Multiply the head by the gain. References whose rewards are all equal are only centred."""
        raw = self.score(self._references)
        std = float(raw.std())
        gain = 1 / std if std > 1e-6 else 1.0
        model: Any = self.accelerator.unwrap_model(self.model)
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, Head):
                    module.weight *= gain
        self.scale = Scale(gain, -gain * float(raw.mean()), len(raw))

    def score(self, sequences: Sequence[TokenIds]) -> Numbers:
        """Return the raw reward of each sequence, in order; after the final save it is multiplied by the gain."""
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


def make_contract(session: Session, trainer: RewardTrainer, held_out_accuracy: float | None) -> Contract:
    """Return the contract of the model as it was saved."""
    tokenizer = session.loaded.tokenizer
    digests, scale = tokenizer_digests(tokenizer), trainer.scale
    return Contract(
        tokenizer=digests["tokenizer"],
        template=digests["template"],
        bias=scale.bias,
        gain=scale.gain,
        references=scale.references,
        end=end_token(tokenizer),
        pad=trainer.pad_id,
        max_length=session.encoder.max_length,
        model=model_identity(session.options.model),
        data=session.sources.identity,
        held_out_accuracy=held_out_accuracy,
    )


def usage(session: Session, trainer: RewardTrainer) -> list[str]:
    """Return paragraphs for the card: how to score an answer with transformers alone, and the number to expect."""
    if session.options.model_options.lora or session.options.model_options.qlora:
        return ["To score answers with transformers alone, merge the adapters first: `datagen train merge`."]
    try:
        ids, _, _ = scored_ids(session.encoder, *EXAMPLE)
    except UnusableRow:  # the example does not fit into --max-length
        return []
    expected = float(trainer.score([np.array(ids, dtype=np.int32)])[0]) + trainer.scale.bias
    return [
        "A score with transformers alone. The constant sets the mean of the reference answers to 0.",
        USAGE.format(
            prompt=EXAMPLE[0],
            answer=EXAMPLE[1],
            bias=trainer.scale.bias,
            expected=expected,
            dtype=', dtype="float32"' if session.loaded.saved_dtype else "",
        ),
    ]
