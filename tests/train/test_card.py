"""The head of a model card is right YAML for the hub, whatever names and other cards hold, and tells no path."""

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st

from datagen_train.run.card_head import head, is_repository, shown_base
from datagen_train.tools.merge import merge_card

TEXT = st.text(st.characters(codec="utf-8"), max_size=30)
LINE = st.sampled_from(
    ["---", "base_model:", "- a/b", "license: mit", "license: [", "base_model: ../up", "x: 'y", "{", ""]
)


def fields(trainer: str = "sft", data: str = "rows.jsonl", model: str = "tiny", folder: str = "out") -> dict[str, Any]:
    """Read the head as the hub's library does."""
    return dict(ModelCard(head(trainer, [data], model, Path(folder)) + "\n# A model\n").data.to_dict())


def test_a_base_and_rows_of_the_hub_are_named() -> None:
    expected = {
        "base_model": "Qwen/Qwen3-0.6B",
        "base_model_relation": "finetune",
        "datasets": ["openai/gsm8k"],
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["datagen", "dpo"],
    }
    assert fields("dpo", "hf://openai/gsm8k@main:train", "hf:Qwen/Qwen3-0.6B") == expected
    assert "base_model" not in fields(model="tiny:hidden=64") and "datasets" not in fields()
    assert fields("reward")["pipeline_tag"] == "text-classification"


def test_adapters_are_of_another_library() -> None:
    Path("out").mkdir()
    Path("out/adapter_config.json").write_text("{}")
    assert fields()["library_name"] == "peft" and "base_model_relation" not in fields()
    assert fields(model="hf:Qwen/Qwen3-0.6B")["base_model_relation"] == "adapter"


@pytest.mark.parametrize(
    ("card", "known"),
    [
        ("---\nbase_model: Qwen/Qwen3-0.6B\nlicense: apache-2.0\n---\n", "Qwen/Qwen3-0.6B"),
        ("---\nlicense: 'mit'\nbase_model:\n  - \"google/gemma-3-1b\"\n---\n", "google/gemma-3-1b"),
        ("---\nbase_model: /home/ada/models/x\n---\n", None),
        ("---\nbase_model: ../x\n---\n", None),
        ("base_model: a/b\n---\n", None),
        ("# No head\n", None),
    ],
)
def test_of_a_folder_its_own_base_is_named_and_never_its_path(card: str, known: str | None) -> None:
    folder = Path("home/ada/secret")
    folder.mkdir(parents=True)
    folder.joinpath("README.md").write_text(card)
    read = fields(model=str(folder.resolve()))
    assert read.get("base_model") == known and "license" not in read
    assert "ada" not in json.dumps(read) and shown_base(str(folder.resolve())) == "secret"


def test_a_folder_of_the_hubs_cache_has_the_name_of_its_repository() -> None:
    folder = Path("hub/models--Qwen--Qwen3-0.6B/snapshots/0123abc")
    folder.mkdir(parents=True)
    assert fields(model=str(folder))["base_model"] == shown_base(str(folder)) == "Qwen/Qwen3-0.6B"


@given(st.lists(LINE | TEXT, max_size=8), TEXT, TEXT)
def test_no_card_and_no_name_breaks_the_head(lines: list[str], data: str, model: str) -> None:
    Path("base").mkdir(exist_ok=True)
    Path("base/README.md").write_text("\n".join(["---", *lines, "---", ""]), encoding="utf-8")
    for name in ("base", model.replace("\0", "") or "tiny"):
        read = fields(data=data, model=name)
        assert set(read) <= {"base_model", "base_model_relation", "datasets", "library_name", "pipeline_tag", "tags"}
        assert "base_model" not in read or (is_repository(read["base_model"]) and "\n" not in read["base_model"])
        assert read["tags"] == ["datagen", "sft"]


def test_the_card_of_a_run_has_the_head(base: str) -> None:
    card = ModelCard.load(Path(base, "README.md"))
    assert card.data.to_dict() == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["datagen", "sft"],
    }
    assert card.text.lstrip().startswith("# base\n")


def test_the_card_of_a_merged_model_has_the_head() -> None:
    base = Path("hub/models--Qwen--Qwen3-0.6B/snapshots/0123abc")
    base.mkdir(parents=True)
    for is_reward, tag in ((False, "text-generation"), (True, "text-classification")):
        text = merge_card(Path("merged"), Path("adapter"), base, None, is_reward=is_reward)
        read = ModelCard(text).data.to_dict()
        assert (read["base_model"], read["base_model_relation"]) == ("Qwen/Qwen3-0.6B", "finetune")
        assert (read["library_name"], read["pipeline_tag"]) == ("transformers", tag)
