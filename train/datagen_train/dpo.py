"""Direct preference optimisation (arXiv 2305.18290) and its relatives, on TRL's trainer, with the guards it lacks.

The reference is a frozen copy of the model as it was loaded (or the model without its adapters), never something
loaded again by name. At the first measurement rewards must be 0 and the sigmoid loss ln 2: anything else means that
the reference is another model, or that dropout is on. Margins rise while the task gets worse, so `--gate FILE` answers
held-out prompts before and while training, the best checkpoint is chosen by that, and a result below the start fails.

Label smoothing: TRL ignores it with `sigmoid`. Conservative DPO (cDPO, arXiv 2305.18290 and Mitchell's note) is
    (1-e) L(d) + e L(-d),   and TRL's robust is   R = [(1-e) L(d) - e L(-d)] / (1-2e),
so cDPO = 2(1-e) sigmoid - (1-2e) robust: two of TRL's losses with weights, exactly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from random import Random
from typing import Any

from trl import DPOConfig, KTOConfig

from datagen.engine.options import option
from datagen.errors import InputError
from datagen.records.files import open_input
from datagen.records.reader import PREFERENCES, PROMPTS, Reader
from datagen.records.record import Preference, Record, request_text
from datagen_train.data.checks import CheckInput
from datagen_train.data.encode import EncodedPair
from datagen_train.data.split import Split, measure_pair
from datagen_train.errors import CheckFailed
from datagen_train.models.load import frozen_reference, without_dropout
from datagen_train.options import Rates, TrainOptions
from datagen_train.run.session import Session, Terminal, open_session
from datagen_train.run.trl_adapter import Dpo, Kto, make_dataset

RATES = Rates(full=5e-7, lora=5e-6, tiny=6e-4)
LOSSES = ("sigmoid", "sft", "hinge", "ipo", "robust", "sigmoid_norm", "apo_zero", "apo_down", "nca_pair", "discopop")
START_TOLERANCE = 1e-3
"""How far the first rewards may be from 0 in float32; bfloat16 gets ten times as much."""


@dataclass(frozen=True)
class Options:
    """What `datagen train dpo` can be told beyond what all trainers can."""

    loss: str = option("sigmoid", f"Losses joined by +, each one of {', '.join(LOSSES)}; or kto.")
    beta: float = option(0.1, "Strength of the pull to the reference.", least=0)
    label_smoothing: float = option(0.0, "Share of pairs that may be labelled the wrong way round.", least=0, most=0.49)
    gate: str | None = option(None, "Prompts with responses to answer while training; getting worse on them fails.")


def run(data: str, options: TrainOptions, own: Options, terminal: Terminal) -> dict[str, Any] | None:
    """Train; return the report, or None where exactly this was done before."""
    if options.is_tiny:
        raise InputError("DPO starts from a trained model: --model FOLDER of datagen train sft")
    with open_session("dpo", data, PREFERENCES, options, own, RATES, terminal) as session:
        return train(session, own) if session else None


def losses(own: Options) -> dict[str, Any]:
    """Return TRL's settings for the losses that were asked for."""
    names = own.loss.split("+")
    unknown = [name for name in names if name not in LOSSES]
    if unknown:
        raise InputError(f"--loss {own.loss}: unknown {', '.join(unknown)}; known: {', '.join(LOSSES)}, kto")
    smoothing, weights = own.label_smoothing, [1.0] * len(names)
    if smoothing and "robust" not in names:
        if "sigmoid" not in names:
            raise InputError(f"--label-smoothing acts on the losses sigmoid and robust, not on {own.loss}")
        weights[names.index("sigmoid")] = 2 * (1 - smoothing)
        names, weights = [*names, "robust"], [*weights, -(1 - 2 * smoothing)]
    return {"loss_type": names, "loss_weights": weights, "label_smoothing": smoothing, "beta": own.beta}


def train(session: Session, own: Options) -> dict[str, Any]:
    settings = {} if own.loss == "kto" else losses(own)
    rows: list[Preference] = session.read()
    loaded = session.load(request_text(row.prompt) for row in rows)
    without_dropout(loaded.model)  # TRL leaves that of the attention on

    def encode(row: Preference) -> list[EncodedPair]:
        return [session.encoder.preference(row.prompt, row.chosen, row.rejected)]

    split = session.encode(rows, encode, measure_pair)
    session.check(
        CheckInput(
            loaded,
            [sequence for pair in split.train + split.held_out for sequence in pair.sequences()],
            session.account,
        )
    )
    session.report_check("lengths", lengths(split.train))
    make = make_kto if own.loss == "kto" else make_dpo
    trainer = make(session, own, split, settings)
    trainer.measure = session.generation_measure(read_gate(own.gate, session.options))
    return session.train(
        trainer,
        check_start=lambda start: check_start(start, own, trainer),
        compare=lambda start, end: {"gate": judge_gate(start, end, session.options.best)} if own.gate else {},
    )


def lengths(pairs: Sequence[EncodedPair]) -> str:
    """Say how long the answers are: where the chosen ones are the longer ones, DPO learns to talk at length."""
    chosen, rejected = (sum(len(getattr(pair, side)) for pair in pairs) for side in ("chosen", "rejected"))
    longer, shorter = (sum(sign * (len(p.chosen) - len(p.rejected)) > 0 for p in pairs) for sign in (1, -1))
    return (
        f"chosen answers have {chosen / len(pairs):.1f} tokens, rejected ones {rejected / len(pairs):.1f} on average; "
        f"the chosen one is longer in {longer / len(pairs):.0%} and shorter in {shorter / len(pairs):.0%} of the pairs"
    )


def read_gate(name: str | None, options: TrainOptions) -> list[Record]:
    """Read the prompts with responses that the result must not get worse on."""
    if name is None:
        return []
    if not options.generate:
        raise InputError("--gate needs --generate N: how many of its prompts to answer at every measurement")
    with open_input(name) as file:
        rows = [row for row in Reader(name, file, PROMPTS).read() if isinstance(row, Record) and row.response]
    if not rows:
        raise InputError(f"--gate {name}: no row has a prompt and a response")
    return rows


def judge_gate(start: dict[str, float], end: dict[str, float], best: str) -> str:
    """Compare the end with the start."""
    name = "eval_exact_match" if best == "loss" else f"eval_{best}"
    before, after = start[name], end[name]
    return f"{'failed' if after < before else 'passed'}: {name} {before:.3f} before, {after:.3f} after"


def check_start(start: dict[str, float], own: Options, trainer: Any) -> None:
    """Before the first step the policy is the reference: every reward is 0, and the sigmoid loss ln 2."""
    if "eval_rewards/margins" not in start:
        return
    tolerance = START_TOLERANCE if str(trainer.model.dtype) == "torch.float32" else 10 * START_TOLERANCE
    off = max(abs(start[f"eval_rewards/{name}"]) for name in ("chosen", "rejected", "margins"))
    wrong_loss = own.loss == "sigmoid" and abs(start["eval_loss"] - log(2)) > tolerance
    if off > tolerance or wrong_loss:
        raise CheckFailed(
            f"reference: before the first step a reward is {off:.4f} (0 is due) and the loss {start['eval_loss']:.4f} "
            "(ln 2 is due for sigmoid): the reference is another model than the start"
        )


def make_dpo(session: Session, own: Options, split: Split[Any, EncodedPair], settings: dict[str, Any]) -> Dpo:
    arguments = session.arguments(split)
    passes = arguments["max_steps"] * session.options.batch_size / len(split.train)
    cached = passes > 1 and session.options.nproc == 1  # computing it once pays from the second pass on
    return Dpo(
        model=session.loaded.model,
        ref_model=None if cached else frozen_reference(session.loaded.model),
        args=DPOConfig(**arguments, **settings, precompute_ref_log_probs=cached, max_length=None),
        processing_class=session.loaded.tokenizer,
        train_dataset=make_dataset(pairs_as_columns(split.train)),
        eval_dataset=make_dataset(pairs_as_columns(split.held_out)),
    )


def make_kto(session: Session, own: Options, split: Split[Any, EncodedPair], settings: dict[str, Any]) -> Kto:
    """KTO (arXiv 2402.01306) learns from single answers, good or bad: every pair gives one of each."""
    if own.label_smoothing:
        raise InputError("--label-smoothing does not act on kto")
    arguments = session.arguments(split)
    size = arguments["per_device_train_batch_size"]
    if size < 2:
        raise InputError(
            "--loss kto estimates its KL term within a batch: --batch-size / --accumulate must be 2 or more"
        )
    return Kto(
        model=session.loaded.model,
        ref_model=frozen_reference(session.loaded.model),
        args=KTOConfig(**arguments, beta=own.beta, max_length=None),
        processing_class=session.loaded.tokenizer,
        train_dataset=make_dataset(unpaired(split.train, size, session.options.seed)),
        eval_dataset=make_dataset(unpaired(split.held_out, size, session.options.seed)),
    )


def unpaired(pairs: list[EncodedPair], batch: int, seed: int) -> dict[str, list[Any]]:
    """Lay pairs out as TRL's KTO trainer takes them. It reads in order, so the order is drawn here; the KL term needs
    every prompt with another one's answer, those of one batch changed round."""
    rows = [
        (pair.prompt, answer, good) for pair in pairs for answer, good in ((pair.chosen, True), (pair.rejected, False))
    ]
    Random(f"{seed}: order of KTO rows").shuffle(rows)
    batches = [rows[at : at + batch] for at in range(0, len(rows), batch)]
    return {
        "prompt_ids": [prompt for prompt, _, _ in rows],
        "completion_ids": [answer for _, answer, _ in rows],
        "KL_completion_ids": [each[i - 1][1] for each in batches for i in range(len(each))],
        "label": [good for _, _, good in rows],
    }


def pairs_as_columns(pairs: Sequence[EncodedPair]) -> dict[str, list[Any]]:
    """Lay preferences out as TRL's DPO trainer takes them."""
    return {
        "prompt_ids": [pair.prompt for pair in pairs],
        "chosen_ids": [pair.chosen for pair in pairs],
        "rejected_ids": [pair.rejected for pair in pairs],
    }
