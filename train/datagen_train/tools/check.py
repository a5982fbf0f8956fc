"""`datagen train check`: show what a trainer would train on, before it does: tokens coloured by the loss, findings."""

from itertools import groupby
from typing import Any

from rich.console import Console
from rich.text import Text

from datagen.engine.options import template_values
from datagen.errors import InputError
from datagen.llm.local.generation import context_length
from datagen.printing import printable
from datagen.records.reader import DOCUMENTS, PREFERENCES, PROMPTS, Kind
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
from datagen_train.data.split import Account, encode_usable, read_rows
from datagen_train.models.load import Loaded, load
from datagen_train.models.tokens import turn_end_ids
from datagen_train.options import ModelOptions, check_template_name
from datagen_train.tools.options import CheckOptions

KINDS: dict[str, Kind[Any]] = {"sft": PROMPTS, "pretrain": DOCUMENTS, "dpo": PREFERENCES}


def run(data: str, options: CheckOptions) -> dict[str, Any]:
    """Encode every row, print the first sequences, run the checks; return the findings."""
    template_values(options.chat_template_kwargs)
    check_template_name(options.template)
    rows, problems = read_rows(data, KINDS[options.trainer], options.format, options.limit, options.map)
    account = Account(read=len(rows) + problems.total(), unreadable=problems.total(), problems=problems)
    if not rows:
        raise InputError(f"{data}: no row could be trained on: {account.losses()}")
    model = ModelOptions(template=options.template, chat_template_kwargs=options.chat_template_kwargs)
    loaded = load(options.model, model, (text for row in rows for text in texts(row)), 0)
    ends = turn_end_ids(loaded.model, loaded.tokenizer)
    encoder = Encoder(loaded.tokenizer, ends, min(options.max_length, context_length(loaded.model)), options.reasoning)

    def encode(row: Record | Preference | Document) -> list[Encoded]:
        if isinstance(row, Preference):
            return encode_preference(encoder, row).sequences()
        return encode_row(encoder, row, all_turns=options.all_turns)

    sequences, account.dropped = encode_usable(rows, encode)
    account.contents, account.cut = encoder.contents, sum(sequence.cut for sequence in sequences)
    for sequence in sequences[: options.rows]:
        print_coloured(loaded, sequence)
    if not sequences:
        raise InputError(f"{data}: no row could be trained on: {account.losses()}")
    findings = run_checks(CheckInput(loaded, sequences, account, documents=options.trainer == "pretrain"))
    counts = account.as_dict()
    contents = {words: account.contents[name] for name, words in CONTENTS.items() if account.contents[name]}
    return {
        "rows": {name: counts[name] for name in ("read", "unreadable", "problems", "dropped", "cut")},
        "contents": contents,
        "notes": loaded.notes,
        "checks": findings,
    }


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
