"""Continued pre-training: learn to continue documents. A long one is cut into windows, nothing of it is lost."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from trl import SFTConfig

from datagen.records.reader import DOCUMENTS
from datagen.records.record import Document
from datagen_train.data.checks import CheckInput
from datagen_train.data.encode import as_columns, measure_sequence
from datagen_train.options import Rates, TrainOptions
from datagen_train.run.session import Session, Terminal, make_dataset, open_session
from datagen_train.run.trl_adapter import Sft

RATES = Rates(full=1e-5, lora=1e-4, tiny=6e-3)


@dataclass(frozen=True)
class Options:
    """What `datagen train pretrain` can be told beyond what all trainers can: nothing."""


def run(data: str, options: TrainOptions, own: Options, terminal: Terminal) -> dict[str, Any] | None:
    """Train; return the report, or None where exactly this was done before."""
    with open_session("pretrain", data, DOCUMENTS, options, own, RATES, terminal) as session:
        return train(session) if session else None


def texts(rows: Iterable[Document]) -> Iterable[str]:
    """Return the words of the rows."""
    return (row.text for row in rows)


def train(session: Session) -> dict[str, Any]:
    rows: list[Document] = session.read()
    loaded = session.load(texts(rows))
    split = session.encode(rows, lambda row: session.encoder.document(row.text), measure_sequence)
    session.check(CheckInput(loaded, split.train + split.held_out, session.account, documents=True))
    trainer = Sft(
        model=loaded.model,
        args=SFTConfig(**session.arguments(split), max_length=None, dataset_kwargs={"skip_prepare_dataset": True}),
        processing_class=loaded.tokenizer,
        train_dataset=make_dataset(as_columns(split.train)),
        eval_dataset=make_dataset(as_columns(split.held_out)),
    )
    return session.train(trainer)
