"""`make demo`: the recorded run keeps its twenty rows and drops the planned ones, and its answers are right."""

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from itertools import repeat
from pathlib import Path
from typing import Any

from rich.cells import cell_len

from datagen.text import count_words
from tests.jobs import digest, evolve, rows

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "examples/demo"
PLANNED = [
    ("Explain inflation to a t", "concretise", "no_gain"),
    ("How do I make a strong p", "deepen", "unchanged"),
    ("I roll two dice. How lik", "complicate_input", "leaked"),
    ("Plan a weekend in Lisbon", "add_constraint", "apology"),
]


def run(output: str = "demo.jsonl", **options: Any) -> None:
    evolve(DEMO / "seeds.jsonl", f"replay:{DEMO / 'replies.jsonl'}", output, rounds=2, **options)


def code_in(answer: str, language: str) -> str:
    (code,) = re.findall(rf"```{language}\n(.*?)```", answer, re.DOTALL)
    return str(code)


def answers(beginning: str) -> list[str]:
    return [row["response"] for row in rows("demo.jsonl") if row["prompt"].startswith(beginning)]


def show(path: str) -> str:
    command = [sys.executable, str(ROOT / "examples/show.py"), str(DEMO / "seeds.jsonl"), path]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(command, capture_output=True, env=environment, check=True).stdout.decode()


def test_twenty_rows_are_kept_and_four_dropped_whatever_the_concurrency() -> None:
    run(concurrency="1")
    run("again.jsonl", concurrency="16")
    assert digest("demo.jsonl") == digest("again.jsonl")
    assert len(rows("demo.jsonl")) == 20
    dropped = [(row["record"]["prompt"], row["meta"]["op"], row["reason"]) for row in rows("demo.rejected.jsonl")]
    assert [(prompt[:24], *rest) for prompt, *rest in sorted(dropped)] == PLANNED


def test_every_recorded_reply_is_used() -> None:
    run()
    texts = {text for row in rows("demo.jsonl") for text in (row["prompt"], row["response"])}
    texts |= {text for row in rows("demo.rejected.jsonl") for text in (row["record"].get("child"), row["reply"])}
    recorded = [reply for line in rows(DEMO / "replies.jsonl") for reply in line["responses"]]
    assert [reply for reply in recorded if reply not in texts and not reply.endswith("Verdict: not equal")] == []


def test_the_answers_are_short_and_their_code_is_right() -> None:
    run()
    assert all(30 <= count_words(row["response"]) <= 150 for row in rows("demo.jsonl") if row["prompt"].isascii())
    assert all(count_words(email) <= 100 for email in answers("Write an email"))

    scopes: list[dict[str, Any]] = []
    for answer in answers("Write a Python function"):
        scopes.append({})
        exec(code_in(answer, "python"), scopes[-1])
    assert [list(scope["unique"](["Pear", "fig", "PEAR", "Straße", "STRASSE"])) for scope in scopes] == [
        ["Pear", "fig", "Straße"]
    ] * 2
    assert next(scopes[1]["unique"](repeat("a"))) == "a"

    base = sqlite3.connect(":memory:")
    base.executescript("CREATE TABLE customers (id, name, email); CREATE TABLE orders (customer_id, ordered_on);")
    base.executemany("INSERT INTO customers VALUES (?, ?, '')", [(1, "Ada"), (2, "Ben"), (3, "Cleo")])
    base.executemany("INSERT INTO orders VALUES (?, ?)", [(1, "2024-05-17"), (1, "2025-03-02"), (2, "2024-11-30")])
    for answer in answers("Write a PostgreSQL query"):
        query = code_in(answer, "sql").replace("DATE '", "'")  # SQLite has no DATE literal
        assert base.execute(query).fetchall() == [("Ben", ""), ("Cleo", "")]


def test_the_rows_are_shown_within_a_hundred_columns_and_do_not_control_the_terminal() -> None:
    run()
    text = show("demo.jsonl")
    assert max(map(cell_len, text.splitlines())) <= 100
    assert text.count("→ ") == 20
    for _, operator, rule in PLANNED:
        assert operator in text and f"✗ {rule}: " in text
    Path("demo.jsonl").write_bytes(Path("demo.jsonl").read_bytes().replace(b"For four people", b"\\u001b[2J"))
    assert "\x1b" not in show("demo.jsonl") and "→ \\x1b[2J" in show("demo.jsonl")


def test_make_demo_runs_without_an_activated_environment() -> None:
    shutil.copytree(ROOT / "examples", "examples")
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, name)
    programs = Path(".venv/bin")
    programs.mkdir(parents=True)
    for name, arguments in (("datagen", "-m datagen"), ("python", "")):
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n')
        (programs / name).chmod(0o755)
    Path(".venv/base").touch()
    environment = os.environ | {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(["make", "demo"], capture_output=True, text=True, env=environment, check=True)
    assert len(rows("demo/recorded.jsonl")) == 20
    assert ran.stdout.count(".venv/bin/datagen evolve examples/seeds.jsonl") == 2
    assert "Nothing to do: demo/seeds.evolve.jsonl is finished." in ran.stderr
