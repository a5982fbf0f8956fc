"""Rules of the repository: the direction of imports, the size of files, names, the wheel, the command reference."""

import ast
import os
import subprocess
import sys
import tomllib
import venv
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.jobs import evolve, write_seeds

ROOT = Path(__file__).resolve().parents[1]
ORDER = {
    "datagen": "errors streams signals subprocesses printing installation libraries text plugins parse reasoning "
    "records objects schemas json_replies prompts verify llm engine judges select sources strategies generators report "
    "commands api aio publish recipes",
    "datagen_train": "errors launch division options rates policy_options models data rewards run pretrain sft reward "
    "classify dpo distill ppo grpo tools cli",
}
"""The folders (and single files) of each package: each imports only those before it, so there is no circle."""
LONGEST_FILE, LONGEST_FUNCTION = 400, 80
LONG_FILES = {"train/datagen_train/ppo.py": 560}
"""Lines: an algorithm stays whole in its file."""
SCRIPTS = ("tests", "benchmarks", "docs", "examples")
PARTICIPLES = {"told", "said", "asked", "found", "made"}
ONLY_IN = {
    "openai": {"llm/endpoint.py", "llm/batches/client.py"},
    "httpx2": {"llm/endpoint.py", "llm/servers.py", "llm/local/hub.py"},
    "sqlite3": {
        *("llm/journal.py", "llm/database.py", "llm/claims.py", "llm/gather.py", "llm/health.py"),
        *("llm/batches/store.py", "llm/batches/copies.py"),
    },
    "rich": {"commands/terminal.py", "commands/live.py"},
    "typer": {"commands/main.py", "commands/flags.py"},
    "jinja2": {"prompts.py", "report/page.py"},
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
    assert loaded.column_names == ["id", "prompt", "response", "reasoning", "meta"]


def test_the_wheel_holds_the_prompts_and_runs_without_the_checkout() -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", "dist", str(ROOT)],
        check=True,
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )
    (wheel,) = Path("dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    shipped = {f"datagen/prompts/{path.relative_to(ROOT / 'prompts')}" for path in (ROOT / "prompts").rglob("*.md")}
    shipped |= {str(path.relative_to(ROOT / "train")) for path in (ROOT / "train").rglob("*.jinja")}
    shipped |= {f"datagen/report/page.{ending}" for ending in ("html", "css")}
    assert shipped <= set(names)
    assert not [name for name in names if name.startswith(("tests/", "prompts/", "examples/", "train/"))]
    python = bare_environment(Path("env"), wheel)
    write_seeds(2)
    ran = run_bare(python, "from datagen.__main__ import main; main()", "evolve", "seeds.jsonl", "-q")
    assert ran.returncode == 0, ran.stderr
    assert Path("seeds.evolve.jsonl").exists()

    # Every command says what it does, also those that need libraries which are not there.
    Path("rows.jsonl").write_text('{"prompt": "Name a river.", "response": "The Rhine."}\n')
    ran = run_bare(python, EVERY_HELP)
    assert ran.returncode == 0, ran.stderr
    ran = run_bare(python, "from datagen.__main__ import main; main()", "train", "sft", "rows.jsonl")
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1), ran.stderr
    assert ran.stderr.startswith("error: datagen train sft needs torch, transformers, trl, ")
    assert "pip install" in ran.stderr


EVERY_HELP = """
from importlib.util import find_spec
from typer.testing import CliRunner
from datagen.commands.main import app
from datagen.commands.table import COMMANDS
from datagen_train.cli import TOOLS, TRAINERS

assert not any(map(find_spec, ("torch", "transformers", "trl", "datasets"))), "the environment is not bare"
for command in [[], *([name] for name in COMMANDS), *(["train", name] for name in TRAINERS | TOOLS)]:
    ran = CliRunner().invoke(app, [*command, "--help"], prog_name="datagen")
    assert ran.exit_code == 0 and "Usage: datagen" in ran.output, (command, ran.output)
"""


def base_packages() -> set[str]:
    """Return the names of the packages that the base install brings."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    waiting, done = [Requirement(text) for text in project["dependencies"]], set[str]()
    while waiting:
        requirement = waiting.pop()
        if str(requirement) not in done:
            done.add(str(requirement))
            environments = [{"extra": extra} for extra in requirement.extras or {""}]
            waiting += [
                needed
                for needed in map(Requirement, distribution(requirement.name).requires or ())
                if needed.marker is None or any(map(needed.marker.evaluate, environments))
            ]
    return {Requirement(text).name for text in done}


def bare_environment(folder: Path, wheel: Path) -> Path:
    """Make an environment with the wheel and what the base install needs, and nothing else; return its Python."""
    venv.create(folder, system_site_packages=False, with_pip=False, symlinks=True)
    site = next(folder.glob("lib/python3*/site-packages"))
    zipfile.ZipFile(wheel).extractall(site)
    for package in map(distribution, base_packages()):
        for name in {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}:
            if not (site / name).exists():
                (site / name).symlink_to(Path(str(package.locate_file(name))).absolute())
    return (folder / "bin/python").absolute()


def run_bare(python: Path, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code in an environment, without what the environment of the tests adds."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run([python, "-c", code, *arguments], env=clean, capture_output=True, text=True)
