"""The `meta` of rows: every method says where a row comes from and which prompts made it, in the same words."""

from pathlib import Path
from typing import Any

import pytest

from datagen.commands.table import COMMANDS, load_methods
from datagen.engine.method import Method
from datagen.prompts import Prompts
from datagen.records.files import dump_line
from datagen.records.layout import pack_meta
from tests.jobs import perform, rows

COMMON = {"method", "op", "parents", "seed_id", "source_id"}
TEXT = "The canal joins two rivers. It was dug by hand in nine years, and boats of forty metres still pass it. " * 9
ROW = {"prompt": "What is 2 + 3?", "response": "2 + 3 = 5.\nAnswer: 5", "answer": "5"}
SAMPLES = {
    "prompt": "What is 2 + 3?",
    "responses": ["Answer: 5", "It is six, I think."],
    "ranks": [1, 2],
    "answer": "5",
}
AUTHORS = pack_meta({"method": "respond", "responses": [{"model": "strong"}, {"model": "weak"}]})
INPUTS: dict[str, dict[str, Any]] = {
    "judge": SAMPLES,
    "pairs": {"id": "0" * 16, **SAMPLES, "meta": AUTHORS},
    "backtranslate": {"text": f"# Canals\n\n{TEXT}"},
}
OPTIONS: dict[str, dict[str, Any]] = {
    "mcr": {"corpus": Path("input.jsonl")},
    "verify": {"verify": ["answer"]},
    "spin": {"teacher": Path("teacher.jsonl")},
    "delta": {"strong": "strong"},
    "tree": {"task": "text"},
}
NO_META = {"filter"}
"""Methods that keep the `meta` of their input."""
NEEDS_MORE = {"human"}
"""Methods whose input a test of their own makes."""
METHODS = [
    method
    for command in COMMANDS
    if command not in NO_META
    for variant, method in load_methods(command).items()
    if variant not in NEEDS_MORE
]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: f"{method.name} {method.variant}".strip())
def test_meta_names_the_lineage_and_the_prompts(method: type[Method]) -> None:
    row = INPUTS.get(method.name, ROW)
    Path("input.jsonl").write_bytes(dump_line(row | ({"text": TEXT} if method.variant == "mcr" else {})))
    Path("teacher.jsonl").write_bytes(dump_line(ROW))
    options = method.options_type(**OPTIONS.get(method.variant, {}))
    n = 2 if method.endless else None
    perform(method, Path("input.jsonl") if method.reads_input else None, "sim", "out.jsonl", options, n=n)
    written = [*rows("out.jsonl"), *rows("out.rejected.jsonl")]
    assert written
    row_templates = method(options, Prompts()).row_templates
    for meta in (row["meta"] for row in written):
        assert meta.keys() >= COMMON
        assert meta["seed_id"] or not method.endless
        if row_templates is None:
            digests = {meta["template"]: meta["template_digest"]}
        else:
            digests = {entry["name"]: entry["digest"] for entry in meta.get("templates", [])}
            assert digests or not method.templates or row_templates == ()
        assert all(Prompts()[name].digest == digest for name, digest in digests.items())
