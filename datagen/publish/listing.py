"""Which files of a folder are uploaded: those of a packed data set, or of a model; nothing else that lies there."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datagen.errors import InputError
from datagen.llm.local.hub import ADAPTER, POOLING, REPOSITORY
from datagen.llm.local.weights import CONTRACT, model_files
from datagen.publish.pack import CARD, is_packed
from datagen.publish.secrets import environment_secrets, refuse_in_file
from datagen.records.files import nearest
from datagen.report.training import is_run

BESIDE = (CARD, "run/curves.svg", CONTRACT, POOLING)
"""What belongs to a model beside the files that decide its answers."""
REPORT = "run/report.json"
ENDINGS_OF_TEXT = (".json", ".md", ".jinja", ".svg", ".txt", ".jsonl", ".toml")


@dataclass(frozen=True)
class Upload:
    """What is to be uploaded."""

    kind: str
    """Of the repository: dataset or model."""
    files: Sequence[tuple[str, Path]]
    """The name in the repository, and the file."""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for _, path in self.files)


def upload_of(folder: Path) -> Upload:
    """Return what is uploaded of a folder.

    Raises:
        InputError: It holds neither a packed data set nor a model, a file cannot be loaded elsewhere, or holds a key.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder{nearest(folder, Path.is_dir)}")
    upload = Upload("dataset", files_of_data(folder)) if is_packed(folder) else Upload("model", files_of_model(folder))
    secrets, home = environment_secrets(), str(Path.home())
    local = [f"{place}/" for place in (home, str(folder.resolve().parent)) if len(place) > 1]
    for _, path in upload.files:
        if path.suffix in ENDINGS_OF_TEXT:
            refuse_in_file(path, [*secrets, *(local if upload.kind == "model" else ())])
    return upload


def files_of_data(folder: Path) -> list[tuple[str, Path]]:
    """Return the files of a packed data set."""
    paths = [folder / CARD, *sorted((folder / "data").rglob("*")), *sorted((folder / "replay").rglob("*"))]
    files = [path for path in paths if path.is_file() or path.is_symlink()]
    if link := next((path for path in files if path.is_symlink()), None):
        raise InputError(f"{link}: is a link, and what it leads to is not uploaded; put the file itself there")
    return [(path.relative_to(folder).as_posix(), path) for path in files]


def files_of_model(folder: Path) -> list[tuple[str, Path]]:
    """Return the files of a model, and its card and curves."""
    files = model_files(folder)
    if is_run(folder) and not (folder / REPORT).is_file():
        raise InputError(f"{folder}: its training has not ended; run the same command again")
    if not (folder / CARD).is_file():
        raise InputError(f"{folder}: has no {CARD}; without a card nobody knows what the model is")
    refuse_local_base(folder)
    others = [path for name in BESIDE if (path := folder / name).is_file()]
    return [(path.relative_to(folder).as_posix(), path) for path in dict.fromkeys([*others, *files])]


def refuse_local_base(folder: Path) -> None:
    """Raise InputError for an adapter whose base is a folder: nobody else could load it."""
    if not (folder / ADAPTER).is_file():
        return
    base = str(json.loads((folder / ADAPTER).read_bytes()).get("base_model_name_or_path") or "")
    if not REPOSITORY.fullmatch(base) or base.startswith(".") or Path(base).exists():
        raise InputError(
            f"{folder}: is an adapter of a base that is a folder of this machine, so nobody else could load it. Merge "
            f"it (datagen train merge), or train on a base of the hub (--model hf:OWNER/NAME)"
        )
