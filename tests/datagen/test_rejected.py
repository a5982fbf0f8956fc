"""x.rejected.jsonl: under `record` stands the whole input row, whatever rejected it, so that it can be used again."""

import json
from pathlib import Path
from typing import Any

import pytest

from datagen.commands.table import load_methods
from datagen.engine.method import Method
from datagen.records.files import dump_line
from datagen.records.record import Row
from tests.datagen.test_meta import METHODS, OPTIONS, ROW, TEXT
from tests.jobs import perform, rows

FAULTY = "sim:skill=0,malformed=0.5,refuse=0.2,leak=0.2,noop=0.2"
EXTRA: Row = {"note": "from the third batch", "level": 3}
RESPONSE: Row = {name: value for name, value in ROW.items() if name != "prompt"}
ANSWERS: Row = {"responses": ["Answer: 5", "Answer: 5."], "answer": "5"}
MAKERS = [
    method
    for method in METHODS
    if method.reads_input and not method.endless and method.name != "backtranslate" and method.variant != "delta"
]
"""Delta pairs need rows that name their models, and backtranslation a corpus."""


def write(path: str, *items: Row) -> Path:
    Path(path).write_bytes(b"".join(map(dump_line, items)))
    return Path(path)


@pytest.mark.parametrize("method", MAKERS, ids=lambda method: f"{method.name} {method.variant}".strip())
def test_the_record_holds_every_field_of_the_input(method: type[Method]) -> None:
    is_samples = method.name in ("judge", "pairs") and method.variant != "difficulty"
    texts: Row = ANSWERS | ({"ranks": [1, 1]} if method.name == "pairs" else {}) if is_samples else RESPONSE
    corpus = {"text": TEXT} if method.variant == "mcr" else {}
    path = write("input.jsonl", *({"prompt": f"What is {n} + 3?", **texts, **corpus, **EXTRA} for n in range(12)))
    write("teacher.jsonl", ROW)
    options: dict[str, Any] = {"mcr": {"corpus": path}}.get(method.variant, OPTIONS.get(method.variant, {}))
    if method.name == "improve":
        options = {"only_better": True}
    model = "sim:malformed=0.95" if method.name == "judge" else FAULTY  # a judge is reminded of the form once
    perform(method, path, model, "out.jsonl", method.options_type(**options), max_failed=1000)
    dropped = rows("out.rejected.jsonl")
    assert dropped or method.variant in ("verify", "tree")
    for row in dropped:
        record = row["record"]
        assert record["id"] and record["prompt"] and EXTRA.items() <= record.items()
        if row["stage"] != "fold" and method.name != "evolve":  # there the row is the parent of a round, or a new one
            assert {name: record[name] for name in texts} == texts


def test_a_duplicate_is_there_in_full() -> None:
    ranked = {"prompt": "Name a river.", "responses": ["The Rhine.", "Dunno."], "ranks": [1, 2], "scores": [2.0, 0.0]}
    path = write("ranked.jsonl", *(ranked | EXTRA for _ in range(2)))
    pairs = load_methods("pairs")["best_worst"]
    perform(pairs, path, "sim", "out.jsonl", pairs.options_type())
    (kept,), (dropped,) = rows("out.jsonl"), rows("out.rejected.jsonl")
    assert (dropped["reason"], dropped["stage"]) == ("duplicate", "fold")
    assert {**dropped["record"], "id": None, "meta": None} == {**kept, "id": None, "meta": None}


def test_a_pair_that_is_none_shows_both_answers_and_the_row() -> None:
    ranked = {"prompt": "Name a river.", "responses": ["One.", "Two.", "Six."], "ranks": [1, 1, 1], "scores": [2, 2, 2]}
    pairs = load_methods("pairs")["all"]
    perform(pairs, write("ranked.jsonl", ranked), "sim", "out.jsonl", pairs.options_type())
    dropped = rows("out.rejected.jsonl")
    assert [row["reason"] for row in dropped] == ["tie"] * 3
    assert {(row["record"]["chosen"], row["record"]["rejected"]) for row in dropped} == {
        ("One.", "Two."), ("One.", "Six."), ("Two.", "Six.")
    }  # fmt: skip
    assert all(row["record"]["responses"] == ranked["responses"] for row in dropped)


def test_a_rejected_record_is_a_row_that_is_read_again() -> None:
    """Its id stays where a command of ours wrote the row: taken out of the file, it is the same row."""
    seeds = write("seeds.jsonl", *({"prompt": f"What is {n} + 3?", **EXTRA} for n in range(4)))
    respond, keep = load_methods("respond")["direct"], load_methods("filter")[""]
    perform(respond, seeds, "sim:refuse=1", "refused.jsonl", respond.options_type())
    perform(keep, Path("refused.jsonl"), "sim", "out.jsonl", keep.options_type())
    records = [json.loads(line)["record"] for line in Path("out.rejected.jsonl").read_bytes().splitlines()]
    assert [record["id"] for record in records] == [row["id"] for row in rows("refused.jsonl")]
    again = write("again.jsonl", *records)
    perform(keep, again, "sim", "all.jsonl", keep.options_type(rule=["none"]))
    expected = [json.loads(json.dumps(row)) for row in rows("refused.jsonl")]
    assert [{name: row[name] for name in expected[0]} for row in rows("all.jsonl")] == expected
