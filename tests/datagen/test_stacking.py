"""Commands in a pipeline: rows go through real pipes, no row is lost, and a row can be traced back."""

import os
import subprocess
import sys
from pathlib import Path

from tests.jobs import rows, write_seeds

ROOT = Path(__file__).resolve().parents[2]
LINE = (
    "datagen self-instruct seeds.jsonl -n 12 --model sim -q -o - | datagen evolve - --rounds 2 --model sim -q -o - | "
    "datagen respond - --strategy cot --model sim -q -o - | datagen improve - --model sim -q -o - | "
    "datagen filter - --dedup 0.7 -q -o rows.jsonl"
)


def shell(line: str) -> "subprocess.CompletedProcess[str]":
    """Run a shell command with `datagen` on the PATH."""
    command = Path("bin/datagen")
    command.parent.mkdir(exist_ok=True)
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m datagen "$@"\n')
    command.chmod(0o755)
    here = {"PATH": f"{command.parent.resolve()}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    return subprocess.run(["sh", "-c", line], capture_output=True, text=True, env=os.environ | here)


def test_five_commands_make_one_line_and_a_row_is_traced_through_all_of_them() -> None:
    write_seeds(8)
    ran = shell(LINE)
    assert ran.returncode == 0, ran.stderr
    final_rows = rows("rows.jsonl")
    assert len(final_rows) >= 6
    assert all(row["response"] for row in final_rows)
    families = [row["meta"]["seed_id"] for row in final_rows]
    assert None not in families and len(set(families)) < len(final_rows), (
        "rows that evolved from one prompt keep its seed_id"
    )
    traced = shell(f"datagen trace {final_rows[0]['id']}")
    assert traced.returncode == 0, traced.stderr
    for name in ("self-instruct", "evolve", "respond", "improve"):
        assert name in traced.stdout or name.replace("-", "_") in traced.stdout
