"""Direct preference optimisation (arXiv 2305.18290) and its relatives, on TRL's trainers, with the guards they lack.

For a prompt x with a chosen answer c and a rejected answer r, let

    h(y) = beta [log p(y | x) - log p_ref(y | x)]          the implicit reward of an answer
    d    = h(c) - h(r)                                     the margin
    m    = as d, from the mean over tokens instead of the sum, without beta

The losses that TRL computes (s is the logistic function, e is --label-smoothing):

    sigmoid       -log s(d)                                           DPO, 2305.18290, equation 7
    robust        [-(1-e) log s(d) + e log s(-d)] / (1-2e)            2403.00409
    hinge         max(0, 1 - d)                                       SLiC, 2305.10425
    ipo           (m - 1 / (2 beta))^2                                IPO, 2310.12036, equation 17
    sigmoid_norm  -log s(beta m)                                      length-normalised DPO
    apo_zero      1 - s(h(c)) + s(h(r))                               APO, 2408.06266, equation 7
    apo_down      s(h(c)) + 1 - s(d)                                  APO, equation 8
    nca_pair      -log s(h(c)) - log s(-h(c)) / 2 - log s(-h(r)) / 2  NCA, 2402.05369
    discopop      -(1-w) log s(d) + w exp(-d), w = s(d / tau)         2406.08414, equation 5
    sft           -mean over tokens of log p(c | x)                   added to others, to keep chosen answers likely
    kto           on single answers, good or bad                      KTO, 2402.01306

Losses joined by + are added. With --label-smoothing, `sigmoid` is conservative DPO (`loss_arguments`), where TRL would
ignore the smoothing.

The reference is a frozen copy of the model as it was loaded (or the model without its adapters), never something
loaded again by name. Before the first step all rewards must be 0 and the sigmoid loss ln 2: anything else means that
the reference is another model, or that dropout is on. Margins can rise while the task gets worse, so `--gate FILE`
answers prompts before and while training; the best checkpoint is chosen by that, and a result below the start fails.
"""

from collections.abc import Sequence
from math import log
from random import Random
from typing import Any

from trl import DPOConfig, KTOConfig

from datagen.errors import InputError
from datagen.records.reader import PREFERENCES, PROMPTS
from datagen.records.record import Preference, Record, request_text
from datagen_train.data.checks import CheckInput
from datagen_train.data.encode import EncodedAnswer, EncodedPair, encode_answers, encode_preference
from datagen_train.data.layouts import ANSWERS, PAIRS
from datagen_train.data.sources import Data
from datagen_train.data.split import Split, read_rows
from datagen_train.errors import CheckFailed
from datagen_train.models.load import frozen_reference, without_dropout
from datagen_train.options import ANSWER_METRICS, DpoOptions, TrainOptions
from datagen_train.rates import Rates
from datagen_train.run.progress import Terminal
from datagen_train.run.session import Metrics, Session, open_session
from datagen_train.run.trl_adapter import Dpo, Kto, make_dataset, table_dataset

RATES = Rates(full=5e-7, lora=5e-6, tiny=6e-4, toy_steps=40)
START_TOLERANCE = 1e-3
"""How far the first rewards may be from 0 in float32; ten times as far in bfloat16."""


def run(data: Data, training: TrainOptions, options: DpoOptions, terminal: Terminal) -> dict[str, Any]:
    """Train on files of preferences; return the report."""
    with open_session("dpo", data, PREFERENCES, training, options, RATES, terminal) as session:
        is_kto = options.loss == "kto"

        # 1. Read the pairs, and load the model. Dropout is off, also that of the attention, which TRL leaves on.
        rows = session.read(*([PROMPTS] if is_kto else []))
        loaded = session.load((request_text(row.prompt) for row in rows), reasoning=options.reasoning)
        without_dropout(loaded.model)

        # 2. Encode the answers after their prompts, hold some out, and check what will be trained.
        trainer: Dpo | Kto
        trainer = prepare_kto(session, rows, options) if is_kto else prepare_pairs(session, rows, options)

        # 3. Train; check the first measurement, and compare the last one with it.
        trainer.measure = session.generation_measure(read_gate(options.gate))
        return session.train(
            trainer,
            check_start=lambda start: check_start(start, options, str(trainer.model.dtype)),
            conclude=lambda start, end: compare_gate(start, end, session.options.best) if options.gate else {},
        )


def prepare_pairs(session: Session, rows: list[Preference], options: DpoOptions) -> Dpo:
    """Encode both answers of each pair after the same prompt ids; make the trainer of all losses but KTO."""
    split = session.encode(rows, lambda row: [encode_preference(session.encoder, row)], PAIRS)
    sequences = (sequence for pair in split.train + split.held_out for sequence in pair.sequences())
    session.check(CheckInput(session.loaded, sequences, session.account))
    session.report_check("lengths", compare_lengths(split.train))
    return dpo_trainer(session, loss_arguments(options), split)


def prepare_kto(session: Session, rows: list[Preference | Record], options: DpoOptions) -> Kto:
    """Encode answers that are good or bad by themselves, also both of a pair; make the trainer of KTO.

    Raises:
        InputError: All answers are good, or all are bad.
    """
    split = session.encode(rows, lambda row: encode_answers(session.encoder, row), ANSWERS)
    sequences = (answer.sequence() for answer in split.train + split.held_out)
    session.check(CheckInput(session.loaded, sequences, session.account))
    if session.options.accumulate > 1:
        size = session.options.batch_size // session.options.accumulate
        session.terminal.say(
            f"--loss kto: its reference point is estimated from {size} answers at a time, so --accumulate changes "
            "what is learned"
        )
    good = sum(answer.is_good for answer in split.train)
    session.report_check("labels", f"{good} good answers and {len(split.train) - good} bad ones to train on")
    if good in (0, len(split.train)):
        raise InputError(
            "--loss kto learns from good and from bad answers, and there is only one kind: label true, false"
        )
    return kto_trainer(session, options, split)


def loss_arguments(options: DpoOptions) -> dict[str, Any]:
    """Return TRL's arguments for the losses of `--loss`, each with its weight."""
    names, e = options.losses, options.label_smoothing
    weights = [1.0] * len(names)
    if e and "robust" not in names:
        # Conservative DPO (Mitchell's note on cDPO), with L(d) = -log s(d):   cDPO = (1-e) L(d) + e L(-d).
        # TRL has              sigmoid = L(d)   and   robust = [(1-e) L(d) - e L(-d)] / (1-2e),   so exactly
        #                      cDPO = 2(1-e) sigmoid - (1-2e) robust.
        weights[names.index("sigmoid")] = 2 * (1 - e)
        names, weights = [*names, "robust"], [*weights, -(1 - 2 * e)]
    return {"loss_type": names, "loss_weights": weights, "label_smoothing": e, "beta": options.beta}


def dpo_trainer(session: Session, loss: dict[str, Any], split: Split[Any, EncodedPair]) -> Dpo:
    """Make the trainer of all losses but KTO."""
    arguments = session.arguments(split)
    passes = arguments["max_steps"] * session.options.batch_size / len(split.train)
    cached = passes > 1 and session.options.nproc == 1  # log-probs of the reference: once, not in every pass
    if cached:
        session.terminal.phase("computing log-probabilities of the reference")
    return Dpo(
        model=session.loaded.model,
        ref_model=None if cached else frozen_reference(session.loaded.model),
        args=DPOConfig(**arguments, **loss, precompute_ref_log_probs=cached, max_length=None),
        fsdp=session.options.fsdp,
        processing_class=session.loaded.tokenizer,
        train_dataset=table_dataset(split.train, PAIRS),
        eval_dataset=table_dataset(split.held_out, PAIRS),
    )


def kto_trainer(session: Session, options: DpoOptions, split: Split[Any, EncodedAnswer]) -> Kto:
    """Make the trainer of KTO, which learns from single answers."""
    arguments = session.arguments(split)
    size = arguments["per_device_train_batch_size"]
    return Kto(
        model=session.loaded.model,
        ref_model=frozen_reference(session.loaded.model),
        args=KTOConfig(**arguments, beta=options.beta, max_length=None),
        fsdp=session.options.fsdp,
        processing_class=session.loaded.tokenizer,
        train_dataset=make_dataset(kto_columns(split.train, size, session.options.seed)),
        eval_dataset=make_dataset(kto_columns(split.held_out, size, session.options.seed)),
    )


def kto_columns(answers: Sequence[EncodedAnswer], batch: int, seed: int) -> dict[str, list[Any]]:
    """Return the columns of TRL's KTO trainer. It reads in order, so rows are shuffled here.

    The KL term needs every prompt with an unrelated answer: that of the row before it in its batch.
    """
    rows = list(answers)
    Random(f"{seed}: order of KTO rows").shuffle(rows)
    batches = [rows[start : start + batch] for start in range(0, len(rows), batch)]
    return {
        "prompt_ids": [row.prompt for row in rows],
        "completion_ids": [row.answer for row in rows],
        "KL_completion_ids": [batch_rows[i - 1].answer for batch_rows in batches for i in range(len(batch_rows))],
        "label": [row.is_good for row in rows],
    }


def compare_lengths(pairs: Sequence[EncodedPair]) -> str:
    """Say how long the answers are: where the chosen ones are longer, DPO learns to write long answers."""
    chosen, rejected = (sum(len(getattr(pair, side)) for pair in pairs) for side in ("chosen", "rejected"))
    longer, shorter = (sum(sign * (len(p.chosen) - len(p.rejected)) > 0 for p in pairs) for sign in (1, -1))
    return (
        f"chosen answers have {chosen / len(pairs):.1f} tokens, rejected ones {rejected / len(pairs):.1f} on average; "
        f"the chosen one is longer in {longer / len(pairs):.0%} and shorter in {shorter / len(pairs):.0%} of the pairs"
    )


def check_start(start: Metrics, options: DpoOptions, dtype: str) -> None:
    """Before the first step the policy is the reference: every reward must be 0, and the sigmoid loss ln 2."""
    if "eval_rewards/margins" not in start:
        return
    tolerance = START_TOLERANCE if dtype == "torch.float32" else 10 * START_TOLERANCE
    largest = max(abs(start[f"eval_rewards/{name}"]) for name in ("chosen", "rejected", "margins"))
    is_wrong_loss = options.loss == "sigmoid" and abs(start["eval_loss"] - log(2)) > tolerance
    if largest > tolerance or is_wrong_loss:
        raise CheckFailed(
            f"reference: before the first step a reward is {largest:.4f} (expected: 0) and the loss "
            f"{start['eval_loss']:.4f} (expected for sigmoid: ln 2): the reference is another model than the start"
        )


def read_gate(name: str | None) -> list[Record]:
    """Read the prompts with responses of `--gate`."""
    if name is None:
        return []
    rows, _ = read_rows(name, PROMPTS)
    answered = [row for row in rows if row.response]
    if not answered:
        raise InputError(f"--gate {name}: no row has a prompt and a response")
    return answered


def compare_gate(start: Metrics, end: Metrics, best: str | None) -> dict[str, Any]:
    """Say whether the gate's metric is at least what it was before training: "passed: ..." or "failed: ..."."""
    name = f"eval_{best if best in ANSWER_METRICS else 'exact_match'}"
    before, after = start[name], end[name]
    has_failed = after < before
    gate = f"{'failed' if has_failed else 'passed'}: {name} {before:.3f} before, {after:.3f} after"
    return {"gate": gate, "failure": f"gate {gate}: the model got worse at what it is for" if has_failed else None}
