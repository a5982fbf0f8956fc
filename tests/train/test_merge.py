"""Merging an adapter: the merged model gives the adapter's answers, or is not written."""

import json
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard

from datagen.errors import DatagenError, InputError
from datagen.llm.local.generation import generate, load_full_model, open_model
from datagen.llm.local.weights import weights_digest
from datagen_train.data.encode import Encoder
from datagen_train.run.folder import lock_folder
from datagen_train.tools import merge
from datagen_train.tools.merge import ATOL, Difference, refuse, run
from datagen_train.tools.options import MergeOptions
from tests.train.conftest import colour_rows


def greedy(folder: Path) -> list[str]:
    model, tokenizer = open_model(folder)
    encoder = Encoder(tokenizer, set(), 0)
    prompts = [encoder.prompt(row.prompt) for row in colour_rows()]
    return [answer.text for answer in generate(model, tokenizer, prompts, max_tokens=12)]


def test_the_merged_model_says_what_the_adapter_says(adapter: Path, taught: Path) -> None:
    result = run(str(adapter), MergeOptions(output="merged"))
    assert result["merged"]["largest"] < ATOL[torch.float32]
    assert result["merged"]["same_choice"] == result["read_again"]["same_choice"] == 1.0
    assert result["read_again"]["largest"] < 1e-5
    assert greedy(Path("merged")) == greedy(adapter) == ["red", "red", "blue", "blue", "green", "green"]
    assert greedy(adapter) != greedy(taught)


def test_the_card_names_the_base_and_the_adapter(adapter: Path) -> None:
    run(str(adapter), MergeOptions(output="merged"))
    card = Path("merged/README.md").read_text()
    base = json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert f"the adapter `{adapter.name}` is folded into its base `{Path(base).name}`" in card
    assert "weights are in float32" in card
    head = card.split("---\n")[1]
    assert ModelCard.load("merged/README.md").data.library_name == "transformers"
    assert ModelCard.load(adapter / "README.md").data.library_name == "peft"
    assert "library_name: transformers" in head and "pipeline_tag: text-generation" in head and "- merge" in head
    assert str(adapter.parent) not in card, "no path of the user's"


def test_the_merged_model_needs_nothing_else(adapter: Path) -> None:
    run(str(adapter), MergeOptions(output="merged"))
    out, (_, tokenizer) = Path("merged"), open_model(adapter)
    assert not list(out.glob("adapter*"))
    assert not list(Path().glob("*.part"))
    assert open_model(out)[1].chat_template == tokenizer.chat_template
    config = json.loads((out / "generation_config.json").read_text())
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") in config["eos_token_id"]
    assert config["pad_token_id"] not in config["eos_token_id"]


def test_a_base_in_bfloat16_stays_so(adapter: Path, taught: Path) -> None:
    model, tokenizer = open_model(taught, dtype=torch.bfloat16)
    model.save_pretrained("base")
    tokenizer.save_pretrained("base")
    result = run(str(adapter), MergeOptions(output="merged", base="base"))
    assert result["dtype"] == json.loads(Path("merged/config.json").read_text())["dtype"] == "bfloat16"
    assert result["read_again"]["largest"] == 0.0
    assert greedy(Path("merged")) == greedy(adapter)


def test_a_merge_that_changes_what_is_said_is_not_written(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offsets = iter((0.0, 0.01))
    logits = merge.logits
    monkeypatch.setattr(merge, "logits", lambda *args: [torch.cat(logits(*args)) + next(offsets)])
    with pytest.raises(DatagenError, match=r"is not its adapter: logits differ by up to 0\.01"):
        run(str(adapter), MergeOptions(output="merged"))
    assert not Path("merged").exists()


def test_what_was_written_wrongly_does_not_take_its_place(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def torn(path: Path, dtype: Any) -> Any:
        model = load_full_model(path, dtype)
        next(model.parameters()).data[:] += 0.1
        return model

    monkeypatch.setattr(merge, "load_full_model", torn)
    with pytest.raises(DatagenError, match="what was written is not what was merged"):
        run(str(adapter), MergeOptions(output="merged"))
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("dtype", "difference", "passes"),
    [
        (torch.float32, Difference(9e-4, 1.0, 30.0), True),
        (torch.float32, Difference(2e-3, 1.0, 30.0), False),
        (torch.float32, Difference(1e-6, 0.99, 30.0), False),
        (torch.float32, Difference(float("nan"), 1.0, 30.0), False),
        (torch.bfloat16, Difference(0.04, 0.99, 0.5), True),
        (torch.bfloat16, Difference(0.06, 1.0, 0.5), False),
        (torch.bfloat16, Difference(0.25, 1.0, 20.0), True),
    ],
)
def test_only_rounding_is_tolerated(dtype: torch.dtype, difference: Difference, passes: bool) -> None:
    if passes:
        refuse("it", dtype, difference)
    else:
        with pytest.raises(DatagenError):
            refuse("it", dtype, difference)


def test_nothing_is_replaced_unasked(adapter: Path, taught: Path, copied: Callable[[Path], Path]) -> None:
    out = copied(taught)
    with pytest.raises(InputError, match="exists"):
        run(str(adapter), MergeOptions(output=str(out)))
    assert weights_digest(out) == weights_digest(taught)
    for folder in (out, Path("notes")):
        folder.mkdir(exist_ok=True)
        (folder / "mine.txt").touch()
        with pytest.raises(InputError, match="was not made by 'datagen train merge'"):
            run(str(adapter), MergeOptions(output=str(folder), overwrite=True))
    assert weights_digest(out) == weights_digest(taught)


def test_overwrite_replaces_the_files_of_a_merge_and_nothing_else(adapter: Path) -> None:
    Path("store").mkdir()
    Path("out").symlink_to("store")
    run(str(adapter), MergeOptions(output="out"))
    first = set(Path("store").iterdir())
    Path("out/mine.txt").write_text("mine")
    run(str(adapter), MergeOptions(output="out", overwrite=True))
    assert Path("out").is_symlink()
    assert set(Path("store").iterdir()) == {*first, Path("store/mine.txt")}
    assert greedy(Path("out")) == greedy(adapter)
    with lock_folder(Path("out")), pytest.raises(DatagenError, match="another run is writing it"):
        run(str(adapter), MergeOptions(output="out", overwrite=True))
    assert Path("out/mine.txt").read_text() == "mine"
    assert greedy(Path("out")) == greedy(adapter)


@pytest.mark.parametrize("output", ["adapter", "link", "base", "."])
def test_neither_adapter_nor_base_is_replaced(output: str, adapter: Path, taught: Path) -> None:
    copytree(adapter, "adapter")
    copytree(taught, "base")
    Path("link").symlink_to("adapter")
    with pytest.raises(InputError, match="is read by this command"):
        run("adapter", MergeOptions(output=output, base="base", overwrite=True))
    assert weights_digest(Path("base")) == weights_digest(taught)


def test_what_is_no_adapter_or_has_no_base_is_reported(
    adapter: Path, taught: Path, copied: Callable[[Path], Path]
) -> None:
    with pytest.raises(InputError, match="no LoRA adapter"):
        run(str(taught), MergeOptions())
    lost = copied(adapter)
    config = json.loads((lost / "adapter_config.json").read_text())
    (lost / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "/no/where"}))
    with pytest.raises(InputError, match="--base"):
        run(str(lost), MergeOptions())
    run(str(lost), MergeOptions(output="merged", base=str(taught)))
    assert greedy(Path("merged")) == greedy(adapter)
