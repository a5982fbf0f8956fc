"""Continued pre-training: learn to continue documents.

The loss is the mean cross-entropy of every token of a document given the ones before it. A long document is cut into
windows of --max-length tokens; nothing of it is lost.
"""

from typing import Any

from trl import SFTConfig

from datagen.records.reader import DOCUMENTS
from datagen.records.record import Document
from datagen_train.data.checks import CheckInput
from datagen_train.data.layouts import SEQUENCES
from datagen_train.data.sources import Data
from datagen_train.options import PretrainOptions, TrainOptions
from datagen_train.rates import Rates
from datagen_train.run.progress import Terminal
from datagen_train.run.session import open_session
from datagen_train.run.trl_adapter import Sft, sequence_dataset

RATES = Rates(full=1e-5, lora=1e-4, tiny=6e-3, toy_steps=60, keeps_last_of_tiny=True)


def run(data: Data, training: TrainOptions, options: PretrainOptions, terminal: Terminal) -> dict[str, Any]:
    """Train on files of documents; return the report."""
    with open_session("pretrain", data, DOCUMENTS, training, options, RATES, terminal) as session:
        rows: list[Document] = session.read()
        loaded = session.load(row.text for row in rows)
        split = session.encode(rows, lambda row: session.encoder.document(row.text), SEQUENCES)
        session.check(CheckInput(loaded, split.train + split.held_out, session.account, documents=True))
        trainer = Sft(
            model=loaded.model,
            args=SFTConfig(**session.arguments(split), max_length=None, dataset_kwargs={"skip_prepare_dataset": True}),
            fsdp=training.fsdp,
            processing_class=loaded.tokenizer,
            train_dataset=sequence_dataset(split.train),
            eval_dataset=sequence_dataset(split.held_out),
        )
        return session.train(trainer)
