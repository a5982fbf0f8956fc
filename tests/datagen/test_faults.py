"""An exception that nobody expected: one line, and a file that holds what a report needs and no key."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.jobs import write_seeds

BROKEN = """
import sys
import datagen.engine.job as job

class {name}({base}): pass
{name}.__module__ = {module!r}

def broken(*_):
    raise {name}("sk-abcdefgh12345 says\\x1b]52;c;aGk=\\x07 no\\nsecond line")

job.tune_garbage_collector = broken
job.input_digest = broken
from datagen.__main__ import main
main()
"""


def run(*arguments: str, name: str = "Surprise", base: str = "Exception", module: str = "m", **env: str) -> "Ran":
    code = BROKEN.format(name=name, base=base, module=module)
    seeds = str(write_seeds(3))
    command = [sys.executable, "-c", code, "filter", seeds, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env}, timeout=300)


Ran = subprocess.CompletedProcess[str]


def test_a_bug_is_one_line_and_a_file_beside_the_output() -> None:
    Path("deep").mkdir()
    ran = run("-o", "deep/out.jsonl", OPENAI_API_KEY="sk-of-the-environment")
    (file,) = Path("deep").glob("datagen-error-*.txt")
    assert ran.returncode == 1
    assert ran.stderr.count("\n") == 1
    assert ran.stderr.startswith("error: Surprise: *** says\\x1b]52;c;aGk=\\x07 no; this is a bug in datagen")
    assert ran.stderr.endswith(f"details in {file}\n")
    text = file.read_text()
    assert "Traceback" in text and "-o deep/out.jsonl" in text and "second line" in text and "Python 3." in text
    assert "sk-" not in text, "keys are left out, those of the environment too"
    assert file.stat().st_mode & 0o777 == 0o600


def test_where_the_folder_cannot_be_written_the_file_is_elsewhere() -> None:
    run("-o", "nowhere/out.jsonl")
    run("-o", "nowhere/out.jsonl")
    assert len(list(Path().glob("datagen-error-*.txt"))) == 2, "none replaces another one"


@pytest.mark.parametrize("way", ["-v", "DATAGEN_DEBUG"])
def test_the_traceback_is_shown_on_request(way: str) -> None:
    ran = run("-v") if way == "-v" else run(DATAGEN_DEBUG="1")
    assert "Traceback" in ran.stderr
    assert ran.stderr.splitlines()[-1].startswith("error: Surprise")


@pytest.mark.parametrize(
    ("name", "base", "module", "words"),
    [
        ("OutOfMemoryError", "RuntimeError", "torch", "Lower --batch-size"),
        ("PanicException", "BaseException", "pyo3_runtime", "tokenizer"),
        ("TemplateError", "Exception", "jinja2.exceptions", "chat template"),
    ],
)
def test_a_known_error_of_a_library_is_one_line_with_a_way_out(name: str, base: str, module: str, words: str) -> None:
    ran = run(name=name, base=base, module=module)
    assert ran.returncode == 1
    assert ran.stderr.count("\n") == 1
    assert words in ran.stderr and "bug" not in ran.stderr
    assert not list(Path().glob("datagen-error-*"))
