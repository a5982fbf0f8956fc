"""What holds the repository together: import arrows, the wheel, the command reference, what other tools read."""

import ast
import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.jobs import evolve, write_seeds

ROOT = Path(__file__).resolve().parents[1]
LAYERS = (
    {"errors", "text", "records", "prompts", "parse"},
    {"llm", "verify"},
    {"engine"},
    {"judge"},
    {"select", "sources"},
    {"strategies"},
    {"generators"},
    {"commands"},
)
"""The folders of `datagen`, each before those that import it. Generators never import each other."""
ONLY_IN = {
    "openai": {"llm/endpoint.py"},
    "httpx2": {"llm/endpoint.py"},
    "sqlite3": {"llm/journal.py"},
    "rich": {"commands/terminal.py"},
    "typer": {"commands/main.py", "commands/flags.py"},
    "jinja2": {"prompts.py"},
}


def modules() -> list[Path]:
    return sorted((ROOT / "datagen").rglob("*.py"))


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def layer(part: str) -> int:
    return next(number for number, names in enumerate(LAYERS) if part in names)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    own = path.relative_to(ROOT / "datagen").parts[0].removesuffix(".py")
    if own in ("__init__", "__main__"):
        return
    for name in imported(path):
        library, _, rest = name.partition(".")
        if library == "datagen" and rest:
            part = rest.split(".")[0]
            assert layer(part) <= layer(own), f"{own} imports {part}"
            assert own != "generators" or part != "generators"
        elif library in ONLY_IN:
            assert str(path.relative_to(ROOT / "datagen")) in ONLY_IN[library], f"{path.name} imports {library}"


def test_a_file_can_be_read_in_one_sitting() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in modules()}
    assert {name: length for name, length in lengths.items() if length > 320} == {}


def test_the_command_reference_is_what_the_command_line_says() -> None:
    ran = subprocess.run([sys.executable, ROOT / "docs/generate.py", "--check"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_an_output_is_read_by_datasets_and_has_one_schema() -> None:
    datasets = pytest.importorskip("datasets")
    outcome = evolve(write_seeds(20), "sim:leak=0.1,refuse=0.1,malformed=0.1")
    loaded = datasets.load_dataset("json", data_files="out.jsonl", split="train", cache_dir="cache")
    assert loaded.num_rows == outcome.result["funnel"]["kept"]
    assert loaded.column_names == ["id", "prompt", "response", "meta"]
    keys = {tuple(json.loads(line)["meta"]) for line in Path("out.jsonl").read_bytes().splitlines()}
    assert len(keys) == 1


def test_the_wheel_holds_the_prompts_and_runs_without_the_checkout() -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", "dist", str(ROOT)],
        check=True,
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )
    (wheel,) = Path("dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    shipped = {f"datagen/prompts/{path.relative_to(ROOT / 'prompts')}" for path in (ROOT / "prompts").rglob("*.md")}
    assert shipped <= set(names)
    assert not [name for name in names if name.startswith(("tests/", "prompts/", "examples/", "train/"))]
    venv.create("env", system_site_packages=False, with_pip=False, symlinks=True)
    site = next(Path("env").glob("lib/python3*/site-packages"))
    zipfile.ZipFile(wheel).extractall(site)
    here = next(path for path in sys.path if path.endswith("site-packages"))
    code = "from datagen.commands import main; sys.argv = ['datagen', 'evolve', 'seeds.jsonl', '-q']; main.main()"
    code = f"import sys; sys.path.append({here!r}); {code}"
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    seeds = write_seeds(2)
    ran = subprocess.run(
        [Path("env/bin/python").absolute(), "-c", code],
        env=clean, capture_output=True, text=True, cwd=seeds.absolute().parent,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert Path("seeds.evolve.jsonl").exists()
