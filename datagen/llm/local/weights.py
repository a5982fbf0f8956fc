"""The folder of a trained model: whether it is one, what it is called by, what it needs. Nothing here imports torch.

A model is named by what decides its answers, so that one trained again in the same folder is another model and no
recorded answer of the old one is taken for its own: config, weights, tokenizer and template, not the files of its run.
"""

import json
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

from datagen.errors import InputError

ADAPTER = "adapter_config.json"
WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
OTHERS = (
    *("config.json", "generation_config.json", ADAPTER, "*.safetensors.index.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt", "*.model", "chat_template.jinja", "chat_template.json"),
)
DIGEST_LENGTH = 16
BLOCK = 1 << 20


def model_folder(spec: str) -> Path:
    """Return the folder that `hf:PATH` names."""
    return Path(spec.removeprefix("hf:")).expanduser()


def weights_digest(folder: Path) -> str:
    """Name a model by the names and bytes of its files; an adapter also by those of its base, if that lies here."""
    sha = sha256()
    for path in model_files(folder):
        sha.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                sha.update(block)
    base = adapter_base(folder)
    if base is not None and Path(base).is_dir():
        sha.update(weights_digest(Path(base)).encode())
    return sha.hexdigest()[:DIGEST_LENGTH]


def model_files(folder: Path) -> list[Path]:
    """Return the files that a model consists of, by name; raise InputError if it is none."""
    if not folder.is_dir():
        raise InputError(f"model {folder}: no such folder; hf: takes the folder of a trained model")
    weights = {path for pattern in WEIGHTS for path in folder.glob(pattern)}
    others = {path for pattern in OTHERS for path in folder.glob(pattern)}
    if not weights or not {path.name for path in others} & {"config.json", ADAPTER}:
        raise InputError(f"model {folder}: holds no model (a config.json and weights in *.safetensors)")
    return sorted(weights | others)


def adapter_base(folder: Path) -> str | None:
    """Return the model that a LoRA adapter was trained on; None if the folder holds a whole model."""
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


def need_libraries() -> None:
    """Raise InputError unless what a local model needs is installed."""
    if any(find_spec(name) is None for name in ("torch", "transformers")):
        raise InputError("hf: models need the train extra: pip install 'datagen-train[train]'")
