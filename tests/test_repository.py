"""Rules of the repository: the direction of imports, the size of files, names, the wheel, the command reference."""

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
ORDER = {
    "datagen": "errors text parse records prompts verify llm engine judge select sources strategies generators "
    "commands",
    "datagen_train": "errors launch options models data rewards run pretrain sft reward dpo ppo grpo tools cli",
}
"""The folders (and single files) of each package: each imports only those before it, so there is no circle."""
LONGEST_FILE, LONGEST_FUNCTION = 400, 80
LONG_FILES = {"train/datagen_train/ppo.py": 560, "train/datagen_train/reward.py": 560}
"""Lines: an algorithm stays whole in its file."""
SCRIPTS = ("tests", "benchmarks", "docs", "examples")
PARTICIPLES = {"told", "said", "asked", "found", "made"}
ONLY_IN = {
    "openai": {"llm/endpoint.py"},
    "httpx2": {"llm/endpoint.py"},
    "sqlite3": {"llm/journal.py"},
    "rich": {"commands/terminal.py"},
    "typer": {"commands/main.py", "commands/flags.py"},
    "jinja2": {"prompts.py"},
}


def modules() -> list[Path]:
    return sorted(path for folder in ("datagen", "train/datagen_train") for path in (ROOT / folder).rglob("*.py"))


def imported_names(tree: ast.AST) -> set[str]:
    """The full names that a file imports."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    package = "datagen" if path.is_relative_to(ROOT / "datagen") else "datagen_train"
    file = path.relative_to(ROOT / ("datagen" if package == "datagen" else "train/datagen_train"))
    folder, order = file.parts[0].removesuffix(".py"), ORDER[package].split()
    if folder in ("__init__", "__main__"):
        return
    for name in imported_names(ast.parse(path.read_text())):
        library, _, rest = name.partition(".")
        if library == package and rest:
            other = rest.split(".")[0]
            assert order.index(other) <= order.index(folder), f"{folder} imports {other}"
            assert folder != "generators" or other != "generators", "generators never import each other"
        elif package == "datagen":
            assert library != "datagen_train"
            assert str(file) in ONLY_IN.get(library, {str(file)}), f"{file} imports {library}"


def test_files_and_functions_can_be_read_in_one_sitting() -> None:
    too_long = []
    for path in modules():
        file, text = str(path.relative_to(ROOT)), path.read_text()
        if len(text.splitlines()) > LONG_FILES.get(file, LONGEST_FILE):
            too_long.append(file)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                too_long += [f"{file}: {node.name}"] if lines > LONGEST_FUNCTION else []
    assert too_long == []


def identifiers(tree: ast.AST) -> set[str]:
    """All names that a file defines or uses: variables, attributes, parameters, functions, classes, imports."""
    kinds: dict[type[ast.AST], str] = {
        ast.Name: "id", ast.Attribute: "attr", ast.arg: "arg", ast.keyword: "arg", ast.alias: "asname",
        ast.FunctionDef: "name", ast.AsyncFunctionDef: "name", ast.ClassDef: "name",
    }  # fmt: skip
    return {getattr(node, kinds[type(node)]) or "" for node in ast.walk(tree) if type(node) in kinds}


def test_no_name_is_a_bare_participle() -> None:
    """A name says what it holds (`reply`, `metadata`, `matches`), in the packages, tests, benchmarks and scripts."""
    scripts = (path for folder in SCRIPTS for path in (ROOT / folder).rglob("*.py"))
    for path in (*modules(), *scripts):
        names = {name for name in identifiers(ast.parse(path.read_text())) if name.lower().strip("_") in PARTICIPLES}
        assert not names, path


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
