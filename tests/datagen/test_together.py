"""Any two outputs of one kind are one data set, in either order, for `datasets` and for pandas."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from datagen.commands.table import load_methods
from datagen.records.files import dump_line
from tests.jobs import perform, write_seeds

PARTS = " ".join(f"Part {step} takes {step * 7} minutes at most." for step in range(20))
SUMS = [
    {"prompt": f"What is {a} + 3?", "response": f"{a} + 3 = {a + 2}.\nAnswer: {a + 2}", "answer": str(a + 3), "id": a}
    for a in range(2, 12)
]
ANSWERS = ["It is, I say.", "No!", "Yes, since two divides it."]
SAMPLES = [{"prompt": f"Is {a} even?", "responses": ANSWERS} for a in (2, 4)]
REFERENCES = ("answer", "constraints")
"""Columns that verifiers read: the rows have them that an input or a method gave them to."""
COMMANDS: dict[str, tuple[str, str, str | None, dict[str, Any]]] = {
    "evolved": ("evolve", "general", "seeds", {"rounds": 2}),
    "chinese": ("evolve", "general", "seeds", {"rounds": 1, "lang": "zh"}),
    "answered": ("respond", "direct", "seeds", {}),
    "reasoned": ("respond", "cot", "seeds", {}),
    "voted": ("respond", "vote", "sums", {}),
    "sampled": ("respond", "direct", "seeds", {"k": 3}),
    "sampled_sums": ("respond", "cot", "sums", {"k": 6, "verify": ["answer"]}),
    "checked": ("respond", "rft", "sums", {}),
    "taught": ("self-instruct", "", "seeds", {}),
    "asked": ("magpie", "", None, {}),
    "talked": ("respond", "direct", "seeds", {"turns": 2}),
    "constrained": ("constraints", "", "seeds", {"most": 1}),
    "constrained_pairs": ("constraints", "", "many", {"pairs": True, "most": 2}),
    "translated": ("backtranslate", "", "corpus", {}),
    "improved": ("improve", "", "sums", {}),
    "improved_pairs": ("improve", "", "sums", {"pairs": True}),
    "judged": ("judge", "score", "samples", {}),
    "compared": ("judge", "compare", "samples", {}),
    "verified": ("judge", "verify", "sampled_sums", {"verify": ["answer"]}),
    "filtered": ("filter", "", "evolved", {"rule": ["none"]}),
    "filtered_input": ("filter", "", "sums", {"tag": True}),
    "chained": ("respond", "direct", "evolved", {}),
    "preferred": ("pairs", "best_worst", "verified", {}),
    "filtered_translation": ("filter", "", "translated", {"rule": ["none"]}),
    "preferred_verified": ("pairs", "verified", "sampled_sums", {}),
}
"""An output to its command, variant, input and options; an input is an earlier output, or one of the files below."""
ENDLESS = 4
KINDS = ("chosen", "ranks", "responses", "response")
"""The columns that tell the kinds of rows, the first one decides."""


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Run each command once; return the outputs by name."""
    before, folder = Path.cwd(), tmp_path_factory.mktemp("outputs")
    os.chdir(folder)
    write_seeds(6)
    write_seeds(60, "many.jsonl")
    Path("sums.jsonl").write_bytes(b"".join(map(dump_line, SUMS)))
    Path("samples.jsonl").write_bytes(b"".join(map(dump_line, SAMPLES)))
    Path("corpus.jsonl").write_bytes(dump_line({"text": f"# Canals\n\n{PARTS} The rest takes an hour.\n"}))
    for name, (command, variant, source, options) in COMMANDS.items():
        methods = load_methods(command)
        method = methods.get(variant) or next(iter(methods.values()))
        n = ENDLESS if method.endless else None
        model = "sim:skill=0.5" if name == "sampled_sums" else "sim"
        path = Path(f"{source}.jsonl") if source else None
        perform(method, path, model, f"{name}.jsonl", method.options_type(**options), n=n)
    yield {name: folder / f"{name}.jsonl" for name in COMMANDS if (folder / f"{name}.jsonl").stat().st_size}
    os.chdir(before)


def kind_of(path: Path) -> str:
    """Return what kind of rows a file holds, as its columns say, and "conversations" if its prompts are messages."""
    row = json.loads(path.read_text().partition("\n")[0])
    return "conversations" if isinstance(row["prompt"], list) else next(name for name in KINDS if name in row)


def without_references(path: Path, folder: Path) -> Path:
    """Copy a file without the columns that only some rows have."""
    copy = folder / path.name
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    copy.write_bytes(b"".join(dump_line({k: v for k, v in row.items() if k not in REFERENCES}) for row in lines))
    return copy


def test_every_command_has_an_output(outputs: dict[str, Path]) -> None:
    assert outputs.keys() == COMMANDS.keys()


@pytest.mark.parametrize("kind", [*KINDS, "conversations"])
def test_any_two_outputs_of_a_kind_are_one_data_set(kind: str, outputs: dict[str, Path], tmp_path: Path) -> None:
    datasets, reader = pytest.importorskip("datasets"), pytest.importorskip("pyarrow.json")
    files = [without_references(path, tmp_path) for path in outputs.values() if kind_of(path) == kind]
    assert len(files) > 1
    columns = [{(field.name, field.type) for field in reader.read_json(file).schema} for file in files]
    assert all(these == columns[0] for these in columns)
    length = sum(len(file.read_text().splitlines()) for file in files)
    for number, order in enumerate((files, files[::-1])):
        names, cache = list(map(str, order)), str(tmp_path / str(number))
        assert len(datasets.load_dataset("json", data_files=names, split="train", cache_dir=cache)) == length


def test_pandas_reads_each_output_and_their_meta_as_columns(outputs: dict[str, Path]) -> None:
    pandas = pytest.importorskip("pandas")
    for path in outputs.values():
        frame = pandas.read_json(path, lines=True)
        meta = pandas.json_normalize(frame["meta"])
        assert not meta.isna().any().any() and set(map(type, meta["details"].map(json.loads))) == {dict}


def test_the_file_with_more_columns_comes_first(outputs: dict[str, Path], tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    pair = [str(outputs[name]) for name in ("constrained", "evolved")]
    loaded = datasets.load_dataset("json", data_files=pair, split="train", cache_dir=str(tmp_path))
    assert isinstance(json.loads(loaded[0]["constraints"]), list) and loaded[-1]["constraints"] is None
