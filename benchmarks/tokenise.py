"""Encoding rows for training: rows per second, bytes a token, and the start of the second run.

    python -m benchmarks.tokenise [--quick] [--rows N]

The rows are conversations of four turns with 100 words each; the tokenizer is a byte-level BPE of 8,000 tokens with a
ChatML template. Ours is `train sft` up to the trainer: the rows are encoded into a table on the disk by as many
processes as there are cores, with a loss on the last answer, and checked; then once more in a fresh process, which
finds the table. TRL's is the preparation of its `SFTTrainer` with `dataset_num_proc` of the same number, on the same
rows and with the same tokenizer, then once more in a fresh process, which finds its cache. It puts a loss on every
token, which is less work. The clock is wall time, without imports. Memory is the growth of the resident set from the
rows to the encoded rows, without pages of files.
"""

import os

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")  # before torch is imported

import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, NamedTuple

from benchmarks.common import Line, in_fresh_process, main
from tests.train.tasks import write_rows

ROWS, TURNS, WORDS = 20_000, 4, 100
VOCABULARY, SAMPLE = 8_000, 1_000
CORES = len(os.sched_getaffinity(0))


class Cost(NamedTuple):
    """What preparing some rows took."""

    tokens: int
    read: float
    """Seconds, for reading the file."""
    seconds: float
    """For encoding, or finding the encoded rows."""
    grown: int
    """Bytes of memory."""
    disk: int
    """Bytes."""


def write_conversations(path: Path, rows: int) -> Path:
    """Write conversations of random words, which are made of random letters."""
    random = Random("words")
    words = ["".join(random.choices("aeiounrstlm", k=random.randint(3, 9))) for _ in range(5_000)]

    def turn(number: int) -> dict[str, str]:
        return {"role": "assistant" if number % 2 else "user", "content": " ".join(random.choices(words, k=WORDS))}

    return write_rows(path, ({"messages": [turn(number) for number in range(TURNS)]} for _ in range(rows)))


def make_base(path: Path) -> None:
    """Save the tokenizer."""
    from datagen.records.reader import PROMPTS
    from datagen_train.data.split import read_rows
    from datagen_train.models.tiny import make_tokenizer

    rows, _ = read_rows(str(path), PROMPTS, limit=SAMPLE)
    make_tokenizer((row.response or "" for row in rows), VOCABULARY).save_pretrained(path.parent / "base")


def ours(path: Path) -> Cost:
    """Read a file of rows, and encode them or find them encoded."""
    from transformers import AutoTokenizer

    from datagen.records.reader import PROMPTS
    from datagen_train.data.encode import Encoder, conversation
    from datagen_train.data.layouts import SEQUENCES
    from datagen_train.data.split import Account, choose_sides, read_rows, split_rows
    from datagen_train.data.table import EncodeJob
    from datagen_train.options import TrainOptions
    from datagen_train.run.encoding import encode_all, encoding_key
    from tests.train.runs import Notes

    began = perf_counter()
    rows, _ = read_rows(str(path), PROMPTS)
    read = perf_counter() - began
    tokenizer = AutoTokenizer.from_pretrained(path.parent / "base")
    encoder = Encoder(tokenizer, {int(str(tokenizer.eos_token_id))}, 4_096)
    before, began = resident(), perf_counter()
    job = EncodeJob(rows, lambda row: encoder.turns(conversation(row)), SEQUENCES, [encoder.contents])
    encoded = encode_all(
        job, lambda: encoding_key(tokenizer, encoder, TrainOptions(), "file"), path.parent / "out", CORES, Notes()
    )
    account = Account()
    split = split_rows(choose_sides(rows, [], 0, len(rows)), encoded, account)
    seconds = perf_counter() - began
    assert len(split.train) == len(rows)
    return Cost(account.tokens, read, seconds, resident() - before, size_of(path.parent / ".datagen"))


def trl(path: Path) -> Cost:
    """Prepare the same rows as TRL's trainer does."""
    from datasets import load_dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    from datagen_train.models.tiny import make_tiny
    from datagen_train.run.trl_adapter import quiet_libraries

    quiet_libraries()
    tokenizer: Any = AutoTokenizer.from_pretrained(path.parent / "base")
    model, _ = make_tiny("tiny", ["a"], 0)
    model.resize_token_embeddings(len(tokenizer))
    began = perf_counter()
    rows: Any = load_dataset("json", data_files=str(path), split="train", cache_dir=str(path.parent / "trl"))
    read = perf_counter() - began
    before, began = resident(), perf_counter()
    config = SFTConfig(
        output_dir=str(path.parent / "trl-out"), dataset_num_proc=CORES, max_length=4_096, report_to="none",
        use_cpu=True, bf16=False, gradient_checkpointing=False,
    )  # fmt: skip
    trainer = SFTTrainer(model=model, args=config, train_dataset=rows, processing_class=tokenizer)
    seconds = perf_counter() - began
    tokens = sum(len(ids) for ids in trainer.train_dataset.select(range(SAMPLE))["input_ids"]) * len(rows) // SAMPLE
    return Cost(tokens, read, seconds, resident() - before, size_of(path.parent / "trl"))


def resident() -> int:
    """Return the bytes of the resident set that are of no file."""
    return int(Path("/proc/self/status").read_text().partition("RssAnon:")[2].split()[0]) * 1024


def size_of(folder: Path) -> int:
    """Return the bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def row_count(quick: bool) -> int:
    if "--rows" in sys.argv:
        return int(sys.argv[sys.argv.index("--rows") + 1])
    return ROWS // 5 if quick else ROWS


def measure(quick: bool) -> Iterator[Line]:
    rows = row_count(quick)
    with TemporaryDirectory() as folder:
        path = write_conversations(Path(folder, "rows.jsonl"), rows)
        in_fresh_process(make_base, path)
        first, second = in_fresh_process(ours, path), in_fresh_process(ours, path)
        base, again = in_fresh_process(trl, path), in_fresh_process(trl, path)
    few = f"{rows:,} rows, {CORES} processes"
    ratio = f"{rows / first.seconds:,.0f} rows/s, {base.seconds / first.seconds:.2f} × TRL's {rows / base.seconds:,.0f}"
    yield Line(f"encoding, {few}", "", ratio, "the tokenizer")
    yield Line("bytes a token on the disk", "≤ 6", f"{first.disk / first.tokens:.1f}", "TRL: " + per_token(base))
    yield Line("bytes a token in memory", "≤ 6", f"{second.grown / second.tokens:.1f}", "where rows begin, digests")
    yield Line("second start: reading the rows", "", f"{second.read:.1f} s", f"TRL: {again.read:.1f} s")
    yield Line("second start: encoded rows", "", f"{second.seconds:.1f} s", f"TRL: {again.seconds:.1f} s")


def per_token(cost: Cost) -> str:
    return f"{cost.disk / cost.tokens:.1f}, with its copy of the texts"


if __name__ == "__main__":
    main(measure)
