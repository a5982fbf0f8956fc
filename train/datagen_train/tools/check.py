"""`datagen train check`: what a trainer would see, before it does. Tokens coloured by the loss, and the findings."""

from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from datagen.commands.terminal import printable
from datagen.engine.options import option
from datagen.errors import InputError
from datagen.records.files import open_input
from datagen.records.reader import DOCUMENTS, PREFERENCES, PROMPTS, Kind, Reader
from datagen.records.record import BadLine, Document, Preference, Record, request_text
from datagen_train.data.checks import CheckInput, as_sequences, run_checks
from datagen_train.data.encode import IGNORED, Account, Encoded, Encoder, UnusableRow, conversation
from datagen_train.models.load import Loaded, load
from datagen_train.models.tokens import turn_end_ids
from datagen_train.options import ModelOptions

KINDS: dict[str, Kind[Any]] = {"sft": PROMPTS, "pretrain": DOCUMENTS, "dpo": PREFERENCES}


@dataclass(frozen=True)
class Options:
    """What `datagen train check` can be told."""

    trainer: str = option("sft", f"For which trainer: {', '.join(KINDS)}.")
    model: str = option("tiny", "A folder, a hub name, or tiny.")
    rows: int = option(2, "Rows to show.", least=0)
    max_length: int = option(1024, "Longest sequence in tokens.", least=8)
    all_turns: bool = option(False, "As in sft.")


def run(data: str, options: Options) -> dict[str, Any]:
    """Encode every row, show the first ones, run the checks; return the findings."""
    if options.trainer not in KINDS:
        raise InputError(f"--trainer {options.trainer}: expected one of {', '.join(KINDS)}")
    with open_input(data) as file:
        items = list(Reader(data, file, KINDS[options.trainer]).read())
    rows = [item for item in items if not isinstance(item, BadLine)]
    account = Account(read=len(items), unreadable=len(items) - len(rows))
    loaded = load(options.model, ModelOptions(), (word for row in rows for word in words(row)), 0)
    ends = turn_end_ids(loaded.model, loaded.tokenizer)
    encoder = Encoder(loaded.tokenizer, ends, options.max_length)
    sequences: list[Encoded] = []
    for row in rows:
        try:
            sequences += encode(encoder, row, all_turns=options.all_turns)
        except UnusableRow as reason:
            account.dropped[str(reason)] += 1
    account.cut = sum(each.cut for each in sequences)
    for each in sequences[: options.rows]:
        colour(loaded, each)
    if not sequences:
        raise InputError(f"{data}: no row could be trained on: {dict(account.dropped)}")
    findings = run_checks(CheckInput(loaded, sequences, account, documents=options.trainer == "pretrain"))
    rows_told = {
        name: value for name, value in account.as_dict().items() if name in ("read", "unreadable", "dropped", "cut")
    }
    return {"rows": rows_told, "notes": loaded.notes, "checks": findings}


def words(row: Record | Preference | Document) -> list[str]:
    """Return the texts of a row."""
    if isinstance(row, Document):
        return [row.text]
    answers = [row.response or ""] if isinstance(row, Record) else [row.chosen, row.rejected]
    return [request_text(row.prompt), *answers]


def encode(encoder: Encoder, row: Record | Preference | Document, *, all_turns: bool) -> list[Encoded]:
    """Encode a row as its trainer does."""
    if isinstance(row, Document):
        return list(encoder.document(row.text))
    if isinstance(row, Preference):
        return as_sequences([encoder.preference(row.prompt, row.chosen, row.rejected)])
    return [encoder.turns(conversation(row), all_turns=all_turns)]


def colour(loaded: Loaded, sequence: Encoded) -> None:
    """Print a sequence: what is trained in green, the rest dim; a bar parts the tokens."""
    line = Text()
    for token, label in zip(sequence.ids, sequence.labels, strict=True):
        text = printable(loaded.tokenizer.decode([token])).replace("\n", "\\n\n")
        line.append(text, style="dim" if label == IGNORED else "bold green")
        line.append("|", style="bright_black")
    Console(stderr=True, highlight=False).print(line, "\n")
