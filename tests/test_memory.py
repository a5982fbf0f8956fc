"""Inputs of any size pass through: a row more takes no more memory than what must be known of it."""

import json
import sys
from pathlib import Path
from random import Random

import pytest

from tests.memory import peak_of

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]
FEW, MANY = 10_000, 40_000
MOST = 250
"""Bytes for a row more: digests and ids take at most 100, the rest is what the allocator does. A row that is held
takes over 1,000."""
COMMANDS = {
    "convert": "convert ranked.jsonl --to csv -o table.csv",
    "convert to lines": "convert rows.jsonl --to trl -o trl.jsonl",
    "audit": "convert rows.jsonl --to audit -o sheet.csv",
    "dry run": "respond rows.jsonl --model sim --dry-run -o out.jsonl",
    "filter": "filter rows.jsonl --rule none --dedup 1 -o kept.jsonl",
    "pairs": "pairs ranked.jsonl -o pairs.jsonl",
    "trace": "trace {id}",
}


def write_rows(folder: Path, count: int) -> None:
    """Write prompts with a response, and with two ranked answers."""
    random, words = Random(0), [f"word{number}" for number in range(1_000)]
    with (folder / "rows.jsonl").open("w") as rows, (folder / "ranked.jsonl").open("w") as ranked:
        for number in range(count):
            prompt, first, second = (" ".join([str(number), *random.choices(words, k=30)]) for _ in range(3))
            print(json.dumps({"prompt": prompt, "response": first}), file=rows)
            answers = {"responses": [first, second], "ranks": [1, 2], "scores": [5, 1]}
            print(json.dumps({"prompt": prompt, **answers}), file=ranked)


def test_memory_does_not_grow_with_the_input(tmp_path: Path) -> None:
    peaks: dict[str, list[int]] = {name: [] for name in COMMANDS}
    for count in (FEW, MANY):
        folder = tmp_path / str(count)
        folder.mkdir()
        write_rows(folder, count)
        name = ""
        for command, line in COMMANDS.items():
            peaks[command].append(peak_of(*line.format(id=name).split(), folder=folder))
            if command == "pairs":
                name = json.loads((folder / "pairs.jsonl").read_text().splitlines()[count // 2])["id"]
    growth = {command: (many - few) / (MANY - FEW) for command, (few, many) in peaks.items()}
    assert max(growth.values()) < MOST, growth


def test_memory_does_not_grow_with_a_table(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    from datagen.records.export import GROUP

    write_rows(tmp_path, 2 * MANY)
    assert (tmp_path / "rows.jsonl").stat().st_size > 2 * GROUP, "several row groups"
    few, many = (
        peak_of(
            "convert", "rows.jsonl", "--to", "parquet", "-o", f"{limit}.parquet", "--limit", str(limit), folder=tmp_path
        )
        for limit in (MANY, 2 * MANY)
    )
    assert (many - few) / MANY < MOST
