"""What takes long to make and is the same for many tests: one of the test processes makes it."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

SEEDS = range(int(os.environ.get("SEEDS", "1")))
"""The seeds of what is trained for long: SEEDS=3 for the numbers of the documents."""


def once(places: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return a folder whose content the first caller makes, in whichever test process; the others wait for it."""
    root = places.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder, done = root / name, root / f"{name}.done"
    with FileLock(root / f"{name}.lock"):
        if not done.exists():
            folder.mkdir()
            make(folder)
            done.touch()
    return folder
