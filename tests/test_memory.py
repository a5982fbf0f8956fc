"""Inputs of any size pass through: a row more takes no more memory than what must be known of it."""

import sys
from pathlib import Path

import pytest

from tests.memory import COMMANDS, growth_of, peak_of, write_rows

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]
FEW, MANY = 10_000, 40_000
MOST = 250
"""Bytes for a row more: digests and ids take at most 100, the rest is what the allocator does. A row that is held
takes over 1,000."""


def test_memory_does_not_grow_with_the_input(tmp_path: Path) -> None:
    growth = {command: growth_of(command, FEW, MANY, tmp_path) for command in COMMANDS}
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
