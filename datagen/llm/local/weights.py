"""The folder of a trained model: its files, its digest, the base of an adapter. Nothing here imports torch.

The digest covers the files that decide the answers: config, weights, tokenizer and template, not the files of the
training run. A model that is trained again in the same folder is another model, so no recorded answer is used for it.
"""

import json
from hashlib import sha256
from pathlib import Path

from datagen.errors import InputError

ADAPTER = "adapter_config.json"
WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin")
OTHER_FILES = (
    *("config.json", "generation_config.json", ADAPTER, "*.safetensors.index.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt", "*.model", "chat_template.jinja", "chat_template.json"),
)
DIGEST_LENGTH = 16
BLOCK_SIZE = 1 << 20


def model_folder(spec: str) -> Path:
    """Return the folder that `hf:PATH` names."""
    return Path(spec.removeprefix("hf:")).expanduser()


def weights_digest(folder: Path) -> str:
    """Return a digest of the names and bytes of a model's files; also those of an adapter's base if it is a folder."""
    sha = sha256()
    for path in model_files(folder):
        sha.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while block := file.read(BLOCK_SIZE):
                sha.update(block)
    base = adapter_base(folder)
    if base is not None and Path(base).is_dir():
        sha.update(weights_digest(Path(base)).encode())
    return sha.hexdigest()[:DIGEST_LENGTH]


def model_files(folder: Path) -> list[Path]:
    """Return the files of a model, sorted by name; raise InputError if the folder holds no model."""
    if not folder.is_dir():
        raise InputError(f"model {folder}: no such folder; hf: takes the folder of a trained model")
    weights = {path for pattern in WEIGHT_FILES for path in folder.glob(pattern)}
    others = {path for pattern in OTHER_FILES for path in folder.glob(pattern)}
    if not weights or not {path.name for path in others} & {"config.json", ADAPTER}:
        raise InputError(f"model {folder}: holds no model (a config.json and weights in *.safetensors)")
    return sorted(weights | others)


def adapter_base(folder: Path) -> str | None:
    """Return the base model of a LoRA adapter; None if the folder holds a full model."""
    path = folder / ADAPTER
    if not path.exists():
        return None
    try:
        base = json.loads(path.read_bytes()).get("base_model_name_or_path")
    except (ValueError, AttributeError):
        base = None
    if not base:
        raise InputError(f"{path}: does not name the model that the adapter belongs to")
    return str(base)
