"""What the distribution declares is what it needs: dependencies, pins, licence, types."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import distribution, packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OURS = {"datagen", "datagen_train", "tests", "benchmarks"}
FOR_GPUS = ("nvidia-", "cuda-", "triton")
"""What the CUDA build of PyTorch adds; the pins leave it to PyTorch."""


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(*extras: str) -> list[Requirement]:
    """Return the requirements of the project with some of its extras."""
    texts = [*PROJECT["dependencies"], *(text for extra in extras for text in PROJECT["optional-dependencies"][extra])]
    return [Requirement(text) for text in texts if not text.startswith("datagen-train[")]


def closure(requirements: Iterable[Requirement]) -> set[str]:
    """Return the names of all distributions that some requirements need here, as their metadata say."""
    needed: set[tuple[str, str]] = set()
    waiting = [(normal(r.name), extra) for r in requirements for extra in ("", *r.extras)]
    while waiting:
        name, extra = item = waiting.pop()
        if item not in needed:
            needed.add(item)
            for text in distribution(name).requires or []:
                other = Requirement(text)
                if other.marker is None or other.marker.evaluate({"extra": extra}):
                    waiting += [(normal(other.name), wanted) for wanted in ("", *other.extras)]
    return {name for name, _ in needed if not name.startswith(FOR_GPUS)}


def imports(files: Iterable[Path]) -> set[str]:
    """Return the distributions that files import from, themselves and the standard library left out."""
    names: set[str] = set()
    for node in (node for path in files for node in ast.walk(ast.parse(path.read_text()))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
    providers = packages_distributions()
    return {normal(providers.get(name, [name])[0]) for name in names - OURS - set(sys.stdlib_module_names)}


def test_each_pin_is_needed_and_none_is_missing() -> None:
    pins = {normal(line.partition("==")[0]) for line in (ROOT / "constraints.txt").read_text().splitlines()[1:]}
    assert pins == closure(declared("data", "docs", "train", "ray", "dev"))


@pytest.mark.parametrize(
    ("folder", "extras"),
    [("datagen", ()), ("train", ("data", "train")), ("tests", ("data", "docs", "train", "ray", "dev"))],
)
def test_what_is_imported_is_declared(folder: str, extras: tuple[str, ...]) -> None:
    local = ROOT / "datagen/llm/local"  # local models are part of the extra
    files = [path for path in (ROOT / folder).rglob("*.py") if folder != "datagen" or not path.is_relative_to(local)]
    assert imports(files) <= {normal(requirement.name) for requirement in declared(*extras)}


def test_the_licence_is_whole_and_the_packages_say_that_they_are_typed() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text
    assert "The datagen-train authors" in text
    assert (ROOT / "datagen/py.typed").exists() and (ROOT / "train/datagen_train/py.typed").exists()
