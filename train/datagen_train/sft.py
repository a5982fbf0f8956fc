"""Supervised fine-tuning: learn to answer prompts as the rows do.

The loss is the mean cross-entropy of the response's tokens and of the token that ends it, given the prompt:

    L = - mean over trained tokens t of  log p(y_t | x, y_<t)

Optimiser, schedule and loss are TRL's SFTTrainer; the token ids and the labels are ours (data/encode.py).
"""

from dataclasses import dataclass
from typing import Any

from trl import SFTConfig

from datagen.engine.options import option
from datagen.errors import InputError
from datagen.records.reader import PROMPTS
from datagen.records.record import Record, request_text
from datagen_train.data.checks import CheckInput, check_packing
from datagen_train.data.encode import conversation
from datagen_train.data.split import measure_sequence
from datagen_train.options import Rates, TrainOptions
from datagen_train.run.session import Terminal, open_session
from datagen_train.run.trl_adapter import Sft, sequence_dataset

RATES = Rates(full=2e-5, lora=2e-4, tiny=6e-3)


@dataclass(frozen=True)
class Options:
    """Options of `datagen train sft` alone."""

    all_turns: bool = option(False, "Train on every assistant turn of a conversation instead of the last one only.")
    backward: bool = option(False, "Swap prompt and response: learn to write the prompt of a response.")
    packing: bool = option(False, "Pack short rows into one sequence; the attention must not cross rows (checked).")


def run(data: str, training: TrainOptions, options: Options, terminal: Terminal) -> dict[str, Any] | None:
    """Train on a file of rows; return the report, or None if exactly this run is finished already."""
    with open_session("sft", data, PROMPTS, training, options, RATES, terminal) as session:
        if session is None:
            return None

        # 1. Read the rows, and load the model (the tokenizer of `tiny` is trained on their texts).
        rows: list[Record] = session.read()
        if all(row.response is None for row in rows):
            raise InputError(f"{data}: no row has a response; answer them first: datagen respond {data}")
        loaded = session.load(text for row in rows for text in (request_text(row.prompt), row.response or ""))

        # 2. Encode them with a loss on the responses alone, hold some out, and check what will be trained.
        split = session.encode(
            rows,
            lambda row: [
                session.encoder.turns(conversation(row, backward=options.backward), all_turns=options.all_turns)
            ],
            measure_sequence,
        )
        session.check(CheckInput(loaded, split.train + split.held_out, session.account))
        if options.packing:
            check_packing(loaded, split.train)

        # 3. Train.
        trainer = Sft(
            model=loaded.model,
            args=SFTConfig(
                **session.arguments(split),
                packing=options.packing,
                eval_packing=False,
                max_length=training.max_length if options.packing else None,
                dataset_kwargs={"skip_prepare_dataset": not options.packing},
            ),
            processing_class=loaded.tokenizer,
            train_dataset=sequence_dataset(split.train),
            eval_dataset=sequence_dataset(split.held_out),
        )
        trainer.measure = session.generation_measure(split.held_out_rows)
        return session.train(trainer)
