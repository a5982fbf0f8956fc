"""`datagen train check`: show what a trainer would train on, before it does: tokens coloured by the loss, findings."""

from functools import partial
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.text import Text

from datagen.errors import InputError, nothing_usable
from datagen.llm.local.generation import context_length
from datagen.printing import printable
from datagen.records.columns import parse_map
from datagen.records.reader import DOCUMENTS, PREFERENCES, PROMPTS, Kind, Reader
from datagen.records.record import Document, Preference, Record
from datagen_train.data.checks import CheckInput, run_checks
from datagen_train.data.encode import (
    CONTENTS,
    IGNORED,
    Encoded,
    Encoder,
    encode_preference,
    encode_row,
    texts,
)
from datagen_train.data.layouts import SEQUENCES
from datagen_train.data.sources import Data, Sources
from datagen_train.data.split import Account, read_some, split_rows
from datagen_train.data.table import EncodeJob, in_list
from datagen_train.models.load import Loaded, load
from datagen_train.models.tokens import turn_end_ids
from datagen_train.options import PretrainOptions, SftOptions, TrainerOptions, TrainOptions
from datagen_train.tools.options import CheckOptions

KINDS: dict[str, Kind[Any]] = {"sft": PROMPTS, "pretrain": DOCUMENTS, "dpo": PREFERENCES}
REFUSALS: dict[str, TrainerOptions] = {"sft": SftOptions(), "pretrain": PretrainOptions(), "dpo": TrainerOptions()}
"""Whose `check` refuses what does not fit together. That of DPO would refuse the model tiny, which shows enough."""


def run(data: Data, options: CheckOptions) -> dict[str, Any]:
    """Encode every row of the files, print the first sequences, run the checks; return the findings."""
    training = TrainOptions(
        model=options.model, template=options.template, chat_template_kwargs=options.chat_template_kwargs
    )
    REFUSALS[options.trainer].check(training)
    account = Account()
    with Sources(data) as sources:
        rows = read_files(sources, options, account)
    loaded = load(options.model, training.model_options, (text for row in rows for text in texts(row)), training.seed)
    ends = turn_end_ids(loaded.model, loaded.tokenizer)
    encoder = Encoder(loaded.tokenizer, ends, min(options.max_length, context_length(loaded.model)), options.reasoning)

    def encode(row: Record | Preference | Document) -> list[Encoded]:
        if isinstance(row, Preference):
            return encode_preference(encoder, row).sequences()
        return encode_row(encoder, row, all_turns=options.all_turns)

    draw = partial(sources.draw, seed=training.seed)
    encoded = in_list(EncodeJob(rows, encode, SEQUENCES), lambda done, total: None)
    sequences = split_rows(((row, False) for row in rows), encoded, account, draw).train
    account.contents = encoder.contents
    for sequence in sequences[: options.rows]:
        print_coloured(loaded, sequence)
    if not sequences:
        raise InputError(f"{sources}: no row is left to train on: {account.losses()}")
    findings = run_checks(CheckInput(loaded, sequences, account, documents=options.trainer == "pretrain"))
    counts = account.as_dict()
    contents = {words: account.contents[name] for name, words in CONTENTS.items() if account.contents[name]}
    return {
        "rows": {name: counts[name] for name in ("read", "unreadable", "problems", "dropped", "cut")},
        "contents": contents,
        **({} if sources.is_plain else {"files": sources.summary()}),
        "notes": loaded.notes,
        "checks": findings,
    }


def read_files(sources: Sources, options: CheckOptions, account: Account) -> list[Any]:
    """Return the rows of all files, and count what cannot be read; raise InputError for a file without a row."""
    rows: list[Any] = []
    for name, file in zip(sources.names, sources.files, strict=True):
        reader = Reader(name, file, KINDS[options.trainer], options.format, parse_map(options.map))
        own, problems = read_some(reader, options.limit)
        sources.rows.append(len(own))
        account.read += len(own) + problems.total()
        account.unreadable += problems.total()
        account.problems += problems
        if not own:
            raise nothing_usable(name, account.losses())
        rows += own
    return rows


def print_coloured(loaded: Loaded, sequence: Encoded) -> None:
    """Print the tokens of a sequence with bars between them; those with a loss are green, and stand in {+ +}."""
    line = Text()
    pairs = zip(sequence.ids, sequence.labels, strict=True)
    for is_trained, tokens in groupby(pairs, key=lambda pair: pair[1] != IGNORED):
        line.append("{+" if is_trained else "", style="bright_black")
        for token, _ in tokens:
            text = printable(loaded.tokenizer.decode([token])).replace("\n", "\\n\n")
            line.append(text, style="bold green" if is_trained else "dim")
            line.append("|", style="bright_black")
        line.append("+}" if is_trained else "", style="bright_black")
    Console(stderr=True, highlight=False).print(line, "\n")
