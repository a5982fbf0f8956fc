"""Loading what lies in the folder of a model: data, never code.

A folder can name Python files of its own (`auto_map`), kernels of the hub, or hold weights as pickles, which are
programs. The libraries run the first two after a question at the terminal, which `yes |` answers. Every
`from_pretrained` of datagen and train stands in this file, where the answer is no.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from datagen.errors import InputError
from datagen.llm.local.weights import refuse_pickles

KERNELS = ("attn_implementation", "_attn_implementation", "experts_implementation")
"""Settings that can name a repository of code instead of a way to compute."""


def load_part(kind: Any, folder: str | Path, **options: Any) -> Any:
    """Load a tokenizer or a config, with one of the library's Auto classes.

    Raises:
        InputError: It needs code from the folder, or names code of the hub.
        OSError, ValueError: It cannot be read.
    """
    settings = [pair for name in ("config.json", "tokenizer_config.json") for pair in read_settings(Path(folder, name))]
    for name, value in settings:
        if name in KERNELS and "/" in str(value):
            raise InputError(f"model {folder}: its config.json names code of the hub, {value}, which is not run")
    try:
        return kind.from_pretrained(folder, trust_remote_code=False, **options)
    except ValueError as error:
        if any(name == "auto_map" for name, _ in settings):
            raise InputError(
                f"model {folder}: needs code of its own (auto_map), which is not run: it could do anything. "
                "Use a model whose architecture is part of transformers"
            ) from error
        raise


def load_network(kind: Any, folder: str | Path, **options: Any) -> Any:
    """Load a model with one of the library's Auto classes, as `load_part` does, from safetensors only."""
    refuse_pickles(Path(folder))
    return load_part(kind, folder, use_safetensors=True, **options)


def refuse_missing(name: str | Path, missing: Iterable[str]) -> None:
    """Raise InputError if weights of a model are missing, which the library would make up."""
    if names := sorted(missing):
        raise InputError(f"model {name}: {len(names)} weights are missing, such as {names[0]}")


def load_adapter(model: Any, folder: Path) -> Any:
    """Load a LoRA adapter onto its base, from safetensors only."""
    from peft import PeftModel

    refuse_pickles(folder)
    if not (folder / "adapter_model.safetensors").is_file():
        raise InputError(f"model {folder}: has no adapter_model.safetensors")
    return PeftModel.from_pretrained(model, str(folder))


def read_settings(path: Path) -> list[tuple[str, Any]]:
    """Return the settings in a JSON file, of every depth; none where there is no such file, or no JSON in it."""
    settings: list[tuple[str, Any]] = []

    def take(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        settings.extend(pairs)
        return dict(pairs)

    try:
        json.loads(path.read_bytes(), object_pairs_hook=take)
    except (OSError, ValueError, RecursionError):
        return []  # the library says what is wrong with it
    return settings
