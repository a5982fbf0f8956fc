"""Supervised fine-tuning: learn to answer prompts as the rows do.

The loss is the mean cross-entropy of the response's tokens and of the token that ends it, given the prompt:

    L = - mean over trained tokens t of  log p(y_t | x, y_<t)

Optimiser, schedule and loss are TRL's SFTTrainer; the token ids and the labels are ours (data/encode.py).
"""

from typing import Any

from trl import SFTConfig, pack_dataset

from datagen.errors import InputError
from datagen.records.reader import PROMPTS
from datagen.records.record import Record
from datagen_train.data.checks import CheckInput, check_packing
from datagen_train.data.encode import conversation, texts
from datagen_train.data.layouts import SEQUENCES
from datagen_train.data.sources import Data
from datagen_train.options import SftOptions, TrainOptions
from datagen_train.rates import Rates
from datagen_train.run.progress import Terminal
from datagen_train.run.session import open_session
from datagen_train.run.trl_adapter import Sft, sequence_dataset, whole_labels

RATES = Rates(full=2e-5, lora=2e-4, tiny=6e-3, toy_steps=60, keeps_last_of_tiny=True)


def run(data: Data, training: TrainOptions, options: SftOptions, terminal: Terminal) -> dict[str, Any]:
    """Train on files of rows; return the report."""
    with open_session("sft", data, PROMPTS, training, options, RATES, terminal) as session:
        # 1. Read the rows, and load the model (the tokenizer of `tiny` is trained on their texts).
        rows: list[Record] = session.read()
        if all(row.response is None for row in rows):
            first = session.sources.names[0]
            raise InputError(f"{session.sources}: no row has a response; answer them first: datagen respond {first}")
        loaded = session.load((text for row in rows for text in texts(row)), reasoning=options.reasoning)

        # 2. Encode them with a loss on the responses alone, hold some out, and check what will be trained.
        split = session.encode(
            rows,
            lambda row: session.encoder.turns(
                conversation(row, backward=options.backward),
                () if options.backward else row.tools,
                all_turns=options.all_turns,
            ),
            SEQUENCES,
            backward=options.backward,
            all_turns=options.all_turns,
        )
        session.check(CheckInput(loaded, split.train + split.held_out, session.account))
        if options.packing:
            check_packing(loaded, split.train)

        # 3. Train; with --packing several rows are in one sequence, so that an epoch has fewer of them.
        sequences = sequence_dataset(split.train)
        assert sequences is not None
        if options.packing:
            sequences = pack_dataset(whole_labels(sequences), session.encoder.max_length)
        trainer = Sft(
            model=loaded.model,
            args=SFTConfig(
                **session.arguments(split, sequences=len(sequences)),
                packing=options.packing,
                eval_packing=False,
                max_length=None,
                dataset_kwargs={"skip_prepare_dataset": True},
            ),
            fsdp=training.fsdp,
            processing_class=loaded.tokenizer,
            train_dataset=sequences,
            eval_dataset=sequence_dataset(split.held_out),
        )
        trainer.groups_by_length = options.group_by_length
        trainer.measure = session.generation_measure(split.held_out_rows)
        return session.train(trainer)
