"""Supervised fine-tuning: learn to answer prompts as the rows do (loss on the answer and on the token that ends it)."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from trl import SFTConfig

from datagen.engine.options import option
from datagen.errors import InputError
from datagen.records.reader import PROMPTS
from datagen.records.record import Record, request_text
from datagen_train.data.checks import CheckInput
from datagen_train.data.encode import Encoded, as_columns, conversation, measure_sequence
from datagen_train.data.packing import check_packing
from datagen_train.options import Rates, TrainOptions
from datagen_train.run.session import Session, Terminal, make_dataset, open_session
from datagen_train.run.trl_adapter import Sft

RATES = Rates(full=2e-5, lora=2e-4, tiny=6e-3)


@dataclass(frozen=True)
class Options:
    """What `datagen train sft` can be told beyond what all trainers can."""

    all_turns: bool = option(False, "Train on every assistant's turn of a conversation, not the last alone.")
    backward: bool = option(False, "Learn to ask for a response: prompt and response change places.")
    packing: bool = option(False, "Put several short rows in one sequence, if the attention keeps them apart.")


def texts(rows: Iterable[Record]) -> Iterable[str]:
    """Return the words of the rows."""
    for row in rows:
        yield request_text(row.prompt)
        yield row.response or ""


def run(data: str, options: TrainOptions, own: Options, terminal: Terminal) -> dict[str, Any] | None:
    """Train; return the report, or None where exactly this was done before."""
    with open_session("sft", data, PROMPTS, options, own, RATES, terminal) as session:
        return train(session, own) if session else None


def train(session: Session, own: Options) -> dict[str, Any]:
    rows: list[Record] = session.read()
    if all(row.response is None for row in rows):
        raise InputError(f"{session.data}: no row has a response; answer them first: datagen respond {session.data}")
    loaded = session.load(texts(rows))

    def encode(row: Record) -> list[Encoded]:
        messages = conversation(row, backward=own.backward)
        return [session.encoder.turns(messages, all_turns=own.all_turns)]

    split = session.encode(rows, encode, measure_sequence)
    session.check(CheckInput(loaded, split.train + split.held_out, session.account))
    if own.packing:
        check_packing(loaded, split.train)
    arguments = session.arguments(split) | {
        "packing": own.packing,
        "eval_packing": False,
        "max_length": session.options.max_length if own.packing else None,
        "dataset_kwargs": {"skip_prepare_dataset": not own.packing},
    }
    trainer = Sft(
        model=loaded.model,
        args=SFTConfig(**arguments),
        processing_class=loaded.tokenizer,
        train_dataset=make_dataset(as_columns(split.train)),
        eval_dataset=make_dataset(as_columns(split.held_out)),
    )
    trainer.measure = session.measure(split.held_out_rows)
    return session.train(trainer)
