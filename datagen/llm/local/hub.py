"""From the name of a model to its folder: a folder of this machine, the cache of the Hugging Face hub, or the hub.

The hub is asked once: a wrong name or a missing connection is one line after a moment, not the retries of a minute.
Nothing here imports torch.
"""

import re
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from datagen.errors import InputError
from datagen.installation import install_line
from datagen.records.files import nearest

ADAPTER = "adapter_config.json"
WEIGHT_FILES = "*.safetensors"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
"""Weights in the format of torch.save, which is a program and can do anything when it is read."""
NO_PICKLES = (
    "its weights are pickles ({names}), which can run code when they are read, and are not. Use a copy in safetensors; "
    "https://huggingface.co/spaces/safetensors/convert makes one"
)
OTHER_FILES = (
    *("config.json", "generation_config.json", ADAPTER, "*.safetensors.index.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt", "*.model", "chat_template.jinja", "chat_template.json"),
)
"""The files that decide the answers of a model."""
TIMEOUT = 8.0
"""Seconds to wait for the hub's answer about a name."""
REPOSITORY = re.compile(r"([\w.-]+/)?[\w.-]+")
POOLING = "1_Pooling/config.json"
"""The file in which Sentence Transformers says how a vector is made of an encoder's states."""


def resolve_model(spec: str) -> Path:
    """Return the folder of a model, downloaded if it is neither a folder here nor in the hub's cache.

    Args:
        spec: A folder, or the name of a model on the hub; `hf:` may stand before it.

    Raises:
        InputError: There is no such model, or the hub cannot be reached or does not give it.
    """
    name = spec.removeprefix("hf:")
    path = Path(name).expanduser()
    if path.is_dir() and name:
        return path
    if path.exists() and name:
        raise InputError(f"model {name}: is a file; a model is a folder")
    hint = nearest(path, Path.is_dir)
    if not REPOSITORY.fullmatch(name) or name.startswith(".") or (path.suffix and hint):
        raise InputError(f"model {name}: no such folder{hint}")
    return cached(name) or download(name)


def model_name(folder: Path) -> str:
    """Return the name of a model: that of its folder, or of its repository if the folder is one of the hub's cache."""
    folder = folder.resolve()
    return folder.parents[1].name.rpartition("--")[2] if folder.parent.name == "snapshots" else folder.name


def cached(name: str) -> Path | None:
    """Return the folder of a model in the hub's cache; None if the model is not there, or not whole."""
    hub = import_hub(name)
    try:
        folder = Path(hub.snapshot_download(name, local_files_only=True, allow_patterns=["*config.json"]))
    except OSError:
        return None
    return folder if any(folder.glob(WEIGHT_FILES)) else None


def download(name: str) -> Path:
    """Download a model from the hub, with its weights in safetensors; the hub's library shows the progress."""
    hub = import_hub(name)
    import httpx2

    try:
        files = [file.rfilename for file in hub.model_info(name, timeout=TIMEOUT).siblings or []]
        says = pickles_only(files)
        if not says:
            patterns = [WEIGHT_FILES, *OTHER_FILES, POOLING]
            same_weights = ["consolidated*", *(file for file in files if "/" in file and file != POOLING)]
            return Path(hub.snapshot_download(name, allow_patterns=patterns, ignore_patterns=same_weights))
    except hub.errors.GatedRepoError:
        says = "its authors ask for consent: accept the terms on its page of the hub, then run: hf auth login"
    except hub.errors.RepositoryNotFoundError:
        says = "no folder here, and no model of the Hugging Face hub. If it is private, run: hf auth login"
    except hub.errors.OfflineModeIsEnabled:
        says = "no folder here and not in the hub's cache; HF_HUB_OFFLINE forbids to ask the Hugging Face hub"
    except (httpx2.HTTPError, OSError) as error:
        if getattr(error, "errno", None):  # of this machine, such as a full disk
            raise
        fault = str(error).strip().partition("\n")[0][:100] or type(error).__name__
        says = f"no folder here, and the Hugging Face hub cannot be reached ({fault})"
    raise InputError(f"model {name}: {says}{nearest(Path(name), Path.is_dir)}")


def pickles_only(files: Iterable[str]) -> str:
    """Say that the weights among some files are pickles; return "" where they are not, or not all."""
    names = [str(file) for file in files]
    pickles = sorted(name for name in names if any(fnmatch(name, pattern) for pattern in PICKLES))
    is_safe = not pickles or any(fnmatch(name, WEIGHT_FILES) for name in names)
    return "" if is_safe else NO_PICKLES.format(names=", ".join(pickles[:3]))


def import_hub(name: str) -> Any:
    """Import the hub's library, which is part of an extra."""
    try:
        import huggingface_hub.errors
    except ModuleNotFoundError:
        missing = f"a model of the hub needs huggingface_hub: {install_line('train')}"
        raise InputError(f"model {name}: no folder here, and {missing}") from None
    return huggingface_hub
