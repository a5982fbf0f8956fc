"""Encoding rows for training: rows per second of one thread, and memory per token.

    python -m benchmarks.tokenise [--quick]

The rows are conversations of four turns with 100 words each; the tokenizer is a byte-level BPE of 8,000 tokens with a
ChatML template. The rows are read, then encoded as `train sft` does, in a fresh process. The clock is the time
of the processor in that process, for the encoding alone; templates are rendered in another. Memory is the growth of the
resident set from the rows to the encoded rows, divided by the tokens.
"""

import os

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")  # before torch is imported

from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from time import process_time
from typing import NamedTuple

from benchmarks.common import Line, in_fresh_process, main
from tests.train.tasks import write_rows

ROWS, TURNS, WORDS = 4_000, 4, 100
VOCABULARY = 8_000


class Cost(NamedTuple):
    """What the encoding of some rows took."""

    rows: int
    tokens: int
    seconds: float
    grown: int
    """Bytes."""


def write_conversations(path: Path, rows: int) -> Path:
    """Write conversations of random words, which are made of random letters."""
    random = Random("words")
    words = ["".join(random.choices("aeiounrstlm", k=random.randint(3, 9))) for _ in range(5_000)]

    def turn(number: int) -> dict[str, str]:
        return {"role": "assistant" if number % 2 else "user", "content": " ".join(random.choices(words, k=WORDS))}

    return write_rows(path, ({"messages": [turn(number) for number in range(TURNS)]} for _ in range(rows)))


def encode(path: Path) -> Cost:
    """Read a file of rows and encode them."""
    from datagen.records.reader import PROMPTS
    from datagen_train.data.encode import Encoder, conversation
    from datagen_train.data.split import Account, choose_sides, encode_rows, measure_sequence, read_rows
    from datagen_train.models.tiny import make_tokenizer

    rows, _ = read_rows(str(path), PROMPTS)
    tokenizer = make_tokenizer((row.response or "" for row in rows[:1_000]), VOCABULARY)
    encoder = Encoder(tokenizer, {int(str(tokenizer.eos_token_id))}, 4_096)
    encoder.turns(conversation(rows[0]))  # starts the process that renders templates
    account, before, began = Account(), resident(), process_time()
    split = encode_rows(
        choose_sides(rows, [], 0, len(rows)), lambda row: encoder.turns(conversation(row)), measure_sequence, account
    )
    assert len(split.train) == len(rows)
    return Cost(len(rows), account.tokens, process_time() - began, resident() - before)


def resident() -> int:
    """Return the bytes of the resident set."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def measure(quick: bool) -> list[Line]:
    with TemporaryDirectory() as folder:
        path = write_conversations(Path(folder, "rows.jsonl"), ROWS // 5 if quick else ROWS)
        cost = in_fresh_process(encode, path)
    speed, size = cost.rows / cost.seconds, cost.tokens / cost.rows
    rate, memory = f"{speed:.0f} rows/s ({speed * size:,.0f} tokens/s)", f"{cost.grown / cost.tokens:.0f} bytes a token"
    return [
        Line("encoding, one thread", "", rate, "the tokenizer, once for each turn"),
        Line("memory of encoded rows", "8 bytes a token", memory, "two lists of Python ints"),
    ]


if __name__ == "__main__":
    main(measure)
