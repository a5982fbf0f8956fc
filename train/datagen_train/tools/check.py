"""`datagen train check`: show what a trainer would train on, before it does: tokens coloured by the loss, findings."""

from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from datagen.commands.terminal import printable
from datagen.engine.options import option
from datagen.errors import InputError
from datagen.records.reader import DOCUMENTS, PREFERENCES, PROMPTS, Kind
from datagen.records.record import Document, Preference, Record, request_text
from datagen_train.data.checks import CheckInput, run_checks
from datagen_train.data.encode import IGNORED, Encoded, Encoder, encode_row
from datagen_train.data.split import Account, encode_usable, read_rows
from datagen_train.models.load import Loaded, load
from datagen_train.models.tokens import turn_end_ids
from datagen_train.options import ModelOptions

KINDS: dict[str, Kind[Any]] = {"sft": PROMPTS, "pretrain": DOCUMENTS, "dpo": PREFERENCES}


@dataclass(frozen=True)
class Options:
    """Options of `datagen train check`."""

    trainer: str = option("sft", f"Trainer to check for: {', '.join(KINDS)}.")
    model: str = option("tiny", "Base model: a folder, a Hugging Face name, or tiny.")
    rows: int = option(2, "Number of sequences to print.", least=0)
    max_length: int = option(1024, "Maximum sequence length in tokens.", least=8)
    all_turns: bool = option(False, "Train on every assistant turn, as 'datagen train sft --all-turns' does.")


def run(data: str, options: Options) -> dict[str, Any]:
    """Encode every row, print the first sequences, run the checks; return the findings."""
    if options.trainer not in KINDS:
        raise InputError(f"--trainer {options.trainer}: expected one of {', '.join(KINDS)}")
    rows, unreadable = read_rows(data, KINDS[options.trainer])
    loaded = load(options.model, ModelOptions(), (text for row in rows for text in texts(row)), 0)
    ends = turn_end_ids(loaded.model, loaded.tokenizer)
    encoder = Encoder(loaded.tokenizer, ends, options.max_length)

    def encode(row: Record | Preference | Document) -> list[Encoded]:
        if isinstance(row, Preference):
            return encoder.preference(row.prompt, row.chosen, row.rejected).sequences()
        return encode_row(encoder, row, all_turns=options.all_turns)

    sequences, dropped = encode_usable(rows, encode)
    cut = sum(sequence.cut for sequence in sequences)
    account = Account(read=len(rows) + unreadable, unreadable=unreadable, dropped=dropped, cut=cut)
    for sequence in sequences[: options.rows]:
        print_coloured(loaded, sequence)
    if not sequences:
        raise InputError(f"{data}: no row could be trained on: {dict(dropped)}")
    findings = run_checks(CheckInput(loaded, sequences, account, documents=options.trainer == "pretrain"))
    counts = account.as_dict()
    return {
        "rows": {name: counts[name] for name in ("read", "unreadable", "dropped", "cut")},
        "notes": loaded.notes,
        "checks": findings,
    }


def texts(row: Record | Preference | Document) -> list[str]:
    """Return the texts of a row, to train the tokenizer of `tiny` on."""
    if isinstance(row, Document):
        return [row.text]
    answers = [row.response or ""] if isinstance(row, Record) else [row.chosen, row.rejected]
    return [request_text(row.prompt), *answers]


def print_coloured(loaded: Loaded, sequence: Encoded) -> None:
    """Print the tokens of a sequence with bars between them: those with a loss in green, the others dim."""
    line = Text()
    for token, label in zip(sequence.ids, sequence.labels, strict=True):
        text = printable(loaded.tokenizer.decode([token])).replace("\n", "\\n\n")
        line.append(text, style="dim" if label == IGNORED else "bold green")
        line.append("|", style="bright_black")
    Console(stderr=True, highlight=False).print(line, "\n")
