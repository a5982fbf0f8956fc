"""What an option names is part of a run by its content, and only options that name files are taken for files."""

import re
from collections.abc import Iterator
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import pytest

import datagen
from datagen.engine.options import RunOptions, file_values
from datagen.errors import InputError
from datagen.records.places import paths_in, refuse_overlap
from datagen_train.cli import OPTIONS
from datagen_train.options import DpoOptions, RewardOptions, TrainOptions
from datagen_train.policy_options import DistillOptions, PpoOptions
from datagen_train.run.reading import file_digests
from datagen_train.tools.options import CheckOptions, EvalOptions, MergeOptions, ScoreOptions

NAMES_FILE = re.compile(r"\b([Ff]ile|[Ff]older|FILE|FOLDER|PATH)\b")
CONTENT = '{"prompt": "1 + 1", "response": "2"}\n'


def option_types() -> Iterator[type]:
    yield from (RunOptions, TrainOptions, *OPTIONS.values(), CheckOptions, EvalOptions, MergeOptions, ScoreOptions)
    for package in ("generators", "strategies", "select", "judge"):
        folder = Path(datagen.__path__[0], package)
        for module in iter_modules([str(folder)]):
            options = getattr(import_module(f"datagen.{package}.{module.name}"), "Options", None)
            if options is not None:
                yield options


def test_options_whose_help_names_a_file_are_taken_for_files() -> None:
    texts = [
        (kind, item)
        for kind in option_types()
        for item in fields(kind)
        if "str" in str(item.type) and not item.metadata.get("choices") and item.name not in ("output", "over")
    ]
    assert len(texts) > 50
    for kind, item in texts:
        if NAMES_FILE.search(item.metadata["help"]):
            assert item.metadata["file"], f"{kind.__module__}.{kind.__name__}.{item.name}"
    of_a_run = {
        item.name for kind, item in texts if kind in (TrainOptions, *OPTIONS.values()) and item.metadata["file"]
    }
    assert of_a_run == {
        "model", "eval_data", "template", "reward", "also", "critic", "ptx_data", "gate", "reference", "teacher",
        "base", "deepspeed",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (TrainOptions, "eval_data"), (TrainOptions, "template"), (PpoOptions, "also"), (PpoOptions, "ptx_data"),
        (DpoOptions, "gate"), (RewardOptions, "reference"),
    ],
)  # fmt: skip
def test_a_file_counts_by_its_content(options: Any, name: str) -> None:
    def digests(path: str, text: str) -> dict[str, str]:
        Path(path).parent.mkdir(exist_ok=True)
        Path(path).write_text(text)
        return file_digests(TrainOptions(limit=3), options(**{name: path}))

    before = digests("rows.jinja", CONTENT)
    assert before.keys() == {name}
    assert digests("elsewhere/other.jinja", CONTENT) == before
    assert digests("rows.jinja", CONTENT * 2) != before


@pytest.mark.parametrize(("options", "name"), [(PpoOptions, "critic"), (DistillOptions, "teacher")])
def test_a_model_counts_by_its_weights(options: Any, name: str, fresh: Path, base: str) -> None:
    Path("moved").symlink_to(fresh)
    of_fresh, moved, other = (file_digests(options(**{name: path})) for path in (str(fresh), "moved", base))
    assert of_fresh == moved != other
    assert file_digests(PpoOptions(critic="shared")) == {"critic": "shared"}


def test_a_file_that_is_not_there_is_one_line() -> None:
    with pytest.raises(InputError, match=r"nowhere\.jsonl"):
        file_digests(DpoOptions(gate="nowhere.jsonl"))


def test_a_value_that_is_no_file_may_be_the_name_of_the_output() -> None:
    assert file_values(TrainOptions(lora_targets="q_proj")) == {}
    Path("prompts.jsonl").touch()
    options = DpoOptions(loss="hinge", gate="prompts.jsonl")
    refuse_overlap([Path("hinge")], paths_in([file_values(options)]))
    with pytest.raises(InputError, match=r"prompts\.jsonl"):
        refuse_overlap([Path("prompts.jsonl")], paths_in([file_values(options)]))
