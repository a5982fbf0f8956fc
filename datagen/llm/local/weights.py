"""The folder of a trained model: its files, its digest, the base of an adapter. Nothing here imports torch.

The digest covers the files that decide the answers: config, weights, tokenizer and template, not the files of the
training run. A model that is trained again in the same folder is another model, so no recorded answer is used for it.
"""

import json
from hashlib import sha256
from pathlib import Path

from datagen.errors import InputError
from datagen.llm.local.hub import ADAPTER, OTHER_FILES, WEIGHT_FILES, pickles_only, resolve_model

CONTRACT = "reward.json"
"""The file that marks the folder of a reward model."""
CLASSIFIER = "ForSequenceClassification"
"""How the names of architectures end that give a text labels or a score."""
DIGEST_LENGTH = 16
BLOCK_SIZE = 1 << 20


def language_model(spec: str) -> Path:
    """Return the folder of a model that writes text, or of an adapter for one.

    Raises:
        InputError: There is no such model, or it is a reward model or another classifier.
    """
    folder = resolve_model(spec)
    model_files(folder)
    name = spec.removeprefix("hf:")
    if (folder / CONTRACT).exists():
        raise InputError(
            f"model {name}: is a reward model: it scores answers and writes none. Use it as --reward {name}"
        )
    if is_classifier(folder):
        raise InputError(
            f"model {name}: is a classifier: it labels texts and writes none. "
            f"Use it as --reward classifier:{name}#LABEL"
        )
    return folder


def is_classifier(folder: Path) -> bool:
    """Check whether the config of a folder names an architecture that labels texts.

    The library would load such a model as one that writes, with a head made up or taken from the embedding.
    """
    return any(name.endswith(CLASSIFIER) for name in architectures(folder))


def architectures(folder: Path) -> list[str]:
    """Return the architectures that the config of a folder names; none for an adapter, or a damaged config."""
    try:
        return [str(name) for name in json.loads((folder / "config.json").read_bytes()).get("architectures") or []]
    except (OSError, ValueError, AttributeError, TypeError):
        return []  # the library says what is wrong with it


def weights_digest(folder: Path) -> str:
    """Return a digest of the names and bytes of a model's files, and of those of an adapter's base."""
    sha = sha256()
    for path in model_files(folder):
        sha.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while block := file.read(BLOCK_SIZE):
                sha.update(block)
    if is_adapter(folder):
        sha.update(weights_digest(adapter_base(folder)).encode())
    return sha.hexdigest()[:DIGEST_LENGTH]


def model_files(folder: Path) -> list[Path]:
    """Return the files of a model, sorted by name; raise InputError if the folder holds no model."""
    refuse_pickles(folder)
    weights = set(folder.glob(WEIGHT_FILES))
    others = {path for pattern in OTHER_FILES for path in folder.glob(pattern)}
    if not weights or not {path.name for path in others} & {"config.json", ADAPTER}:
        raise InputError(f"model {folder}: holds no model (a config.json and weights in *.safetensors)")
    return sorted(weights | others)


def refuse_pickles(folder: Path) -> None:
    """Raise InputError if a folder's weights are pickles, and none are in safetensors."""
    if says := pickles_only(path.name for path in folder.glob("*")):
        raise InputError(f"model {folder}: {says}")


def is_adapter(folder: Path) -> bool:
    """Check whether a folder holds a LoRA adapter, which is no model without its base."""
    return (folder / ADAPTER).exists()


def adapter_base(folder: Path, name: str | None = None) -> Path:
    """Return the folder of the model that an adapter belongs to: the one that it names, or `name`."""
    path = folder / ADAPTER
    try:
        name = name or json.loads(path.read_bytes()).get("base_model_name_or_path")
    except (ValueError, AttributeError):
        name = None
    if not name:
        raise InputError(f"{path}: does not name the model that the adapter belongs to")
    try:
        return resolve_model(name)
    except InputError as error:
        raise InputError(
            f"{folder}: the base of this adapter cannot be used: {error}. "
            f"If it is elsewhere now: datagen train merge {folder} --base MODEL"
        ) from None
