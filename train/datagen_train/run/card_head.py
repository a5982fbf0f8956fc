"""The head of a model card: what the Hugging Face hub reads of it, as YAML between two lines of hyphens.

A base that is a folder of this machine has no name on the hub, and its path would tell strangers about the user's
folders: the head names the base of that base instead, if its own card does, and otherwise none. It names no license:
that of a base is not always that of what is trained from it, and only the owner of the model can give one.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from datagen.llm.local.hub import REPOSITORY
from datagen.llm.local.weights import is_adapter
from datagen.records.hub import NAME as DATA_SET
from datagen_train.run.manifest import CARD

HEAD = re.compile(r"---[ \t]*\r?\n(.*?\n)---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
LARGEST_HEAD = 1 << 16
"""Characters of a base's card that are read: it may come from anywhere."""


def head(trainer: str, data: Sequence[str], model: str, folder: Path) -> str:
    """Return the head of a card.

    Args:
        trainer: what trained the model.
        data: the files of rows, as named on the command line.
        model: the base, as named on the command line.
        folder: the model.
    """
    from huggingface_hub import ModelCardData

    data_sets = [match["name"] for name in data if (match := DATA_SET.fullmatch(name))]
    base, is_part = base_name(model), is_adapter(folder)
    fields = ModelCardData(
        base_model=base,
        datasets=data_sets or None,
        library_name="peft" if is_part else "transformers",
        pipeline_tag="text-classification" if trainer in ("reward", "classify") else "text-generation",
        tags=["datagen", trainer],
    )
    if base:
        fields["base_model_relation"] = "adapter" if is_part else "finetune"
    return f"---\n{fields.to_yaml()}\n---\n"


def base_name(model: str) -> str | None:
    """Return the base by its name on the hub, if it is known."""
    name, folder = model.removeprefix("hf:"), Path(model.removeprefix("hf:")).expanduser()
    if not folder.is_dir():
        return name if is_repository(name) else None
    return cached_name(folder) or named_base(folder)


def cached_name(folder: Path) -> str | None:
    """Return the name of a model whose folder is one of the hub's cache, models--OWNER--NAME/snapshots/COMMIT."""
    folder = folder.resolve()
    kind, *parts = folder.parents[1].name.split("--") if folder.parent.name == "snapshots" else ("",)
    return "/".join(parts) if kind == "models" and is_repository("/".join(parts)) else None


def is_repository(name: str) -> bool:
    """May this be a name on the hub?"""
    return name.partition(":")[0] != "tiny" and not name.startswith(".") and bool(REPOSITORY.fullmatch(name))


def named_base(folder: Path) -> str | None:
    """Return the base that the card in a folder names, if that is a name on the hub."""
    try:
        with (folder / CARD).open(encoding="utf-8", errors="replace") as file:
            block = HEAD.match(file.read(LARGEST_HEAD))
    except OSError:
        return None
    name = scalar(block[1], "base_model") if block else ""
    return name if name and is_repository(name) else None


def scalar(block: str, name: str) -> str:
    """Return the text of a field in YAML, or of the first item of its list; empty if there is none."""
    line = re.search(rf"^{name}:[ \t]*(?:\r?\n[ \t]*-[ \t]+)?([^\s#]+)[ \t]*\r?$", block, re.MULTILINE)
    return line[1].strip("'\"") if line else ""


def shown_base(model: str) -> str:
    """Return the name of a base without the folders that it is in."""
    folder = Path(model.removeprefix("hf:")).expanduser()
    return (cached_name(folder) or folder.resolve().name) if folder.is_dir() else model
