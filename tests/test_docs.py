"""Links of the documentation lead to existing targets, its options exist, and its index names every page."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*(?![\w-])")
FOREIGN = {
    *("--accuracy", "--quick", "--trl112", "--demonstrations", "--marks"),
    *("--enable-lora", "--max-lora-rank", "--max-loras", "--logprobs-mode", "--array", "--sshlogin", "--workdir"),
    *("--head", "--port", "--address", "--include-dashboard", "--model-path", "--parallel", "--ctx-size"),
    *("--nnodes", "--nproc-per-node", "--rdzv-backend", "--rdzv-endpoint"),
}
"""Options of benchmarks and examples, of vLLM, SGLang, llama.cpp, Ray, Slurm, GNU parallel and torchrun."""
LINK = re.compile(r"\]\(([^)#\s]+)")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_within_the_project_leads_somewhere(document: Path) -> None:
    links = {link for link in LINK.findall(document.read_text()) if "://" not in link}
    assert [link for link in sorted(links) if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_benchmark_that_is_named_can_be_run(document: Path) -> None:
    named = set(re.findall(r"-m benchmarks\.(\w+)", document.read_text()))
    assert [name for name in sorted(named) if not (ROOT / "benchmarks" / f"{name}.py").exists()] == []


def test_every_test_that_is_named_exists() -> None:
    text = (ROOT / "docs" / "security.md").read_text()
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    files, names = re.findall(r"`(tests/[\w/]+\.py)`", text), re.findall(r"`(test_\w+)`", text)
    assert len(files) > 9 and len(names) > 9
    assert [file for file in files if not (ROOT / file).exists()] == []
    assert [name for name in names if f"def {name}(" not in tests] == []


def test_the_index_names_every_page() -> None:
    index = ROOT / "docs" / "README.md"
    links = {(index.parent / link).resolve() for link in LINK.findall(index.read_text())}
    assert [page for page in (ROOT / "docs").rglob("*.md") if page != index and page not in links] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_option_that_is_named_exists(document: Path) -> None:
    text = document.read_text()
    if document.name == "medicalgpt.md":  # left of a colon stand the options of other scripts
        text = re.sub(r"\*\*.*?\*\*|^# Not run here\. Theirs:.*?^#", "", text, flags=re.DOTALL | re.MULTILINE)
    existing = set(OPTION.findall((ROOT / "docs" / "commands.md").read_text())) | FOREIGN
    assert sorted(set(OPTION.findall(text)) - existing) == []
