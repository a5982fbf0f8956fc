"""What is here: Python and the libraries, a GPU, space on the disk, keys. Nothing is imported to find out."""

import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import datagen
from datagen.errors import InputError
from datagen.installation import install_line, shown
from datagen.llm.keys import PROVIDERS, header_value
from datagen.llm.models_file import ModelsFile

EXTRAS = {
    "data": ("datasets", "pyarrow"),
    "train": ("torch", "transformers", "trl", "peft", "accelerate", "safetensors", "tokenizers", "huggingface_hub"),
}
"""The libraries of each extra."""
LEAST_FREE = 10**9
"""Bytes on the disk below which a warning is due: a model, or a long run, needs more."""
GPU_SECONDS = 1.5
"""For the driver's own tool."""


def describe_machine(folder: Path, models: ModelsFile) -> dict[str, Any]:
    """Return what is here, and under `problems` what is wrong with it.

    Args:
        folder: Where outputs are to go.
        models: Names the variables of keys beside the usual ones.
    """
    extras = {extra: {name: version_of(name) for name in names} for extra, names in EXTRAS.items()}
    free = shutil.disk_usage(folder).free
    keys, problems = keys_set(models)
    if free < LEAST_FREE:
        problems.append(f"{free / 1e6:,.0f} MB are free on the disk of {shown(folder)}: free some space")
    return {
        "datagen": datagen.__version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "extras": extras,
        "install": {extra: install_line(extra) for extra, libraries in extras.items() if None in libraries.values()},
        "gpus": gpus() if extras["train"]["torch"] else [],
        "free_bytes": free,
        "keys": keys,
        "problems": problems,
    }


def version_of(library: str) -> str | None:
    """Return the version of an installed library; None if it is not installed."""
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def gpus() -> list[str]:
    """Return the names of the GPUs; none if they cannot be told without torch."""
    if sys.platform == "darwin":
        return ["Apple GPU (mps)"] if platform.machine() == "arm64" else []
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    try:
        ran = subprocess.run(
            [tool, "--query-gpu=name,memory.total", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=GPU_SECONDS,
        )
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in ran.stdout.splitlines() if line.strip()] if ran.returncode == 0 else []


def keys_set(models: ModelsFile) -> tuple[list[str], list[str]]:
    """Return the names of the variables that hold a key, and what is wrong with those that cannot be sent."""
    own = [model.access.key for model in models.models.values() if model.access.key]
    names = dict.fromkeys([*(name for provider in PROVIDERS for name in provider.variables), *own])
    present = [name for name in names if os.environ.get(name)]
    problems = []
    for name in present:
        try:
            header_value(name)
        except InputError as error:
            problems.append(str(error))
    return present, problems
