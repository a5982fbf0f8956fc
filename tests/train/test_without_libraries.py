"""The help of `datagen train`, and every mistake in its options, need no library of the train extra; without one of
them a command says in one line what is missing."""

import ast
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from datagen.errors import InputError
from datagen.libraries import LIBRARIES, import_extra
from tests.test_repository import imported_names, modules
from tests.train.tasks import problems, write_sft

SCRIPT = """
import sys
from typer.testing import CliRunner
from datagen.commands.main import app
from datagen.libraries import LIBRARIES
from datagen_train.cli import TOOLS, TRAINERS

def run(line):
    return CliRunner().invoke(app, line.split(), prog_name="datagen")

for name in TRAINERS | TOOLS:
    ran = run(f"train {name} --help")
    assert ran.exit_code == 0 and "--" in ran.output, (name, ran.output)
    assert run(f"train {name}").exit_code == 2, name
for line in sys.stdin.read().splitlines():
    command, _, says = line.partition(" => ")
    ran = run(command)
    assert ran.exit_code == 2 and ran.stderr.count("\\n") == 1 and says in ran.stderr, (command, ran.output)
loaded = [name for name in LIBRARIES if name in sys.modules]
assert not loaded, loaded
"""
MISTAKES = """
train --help-me => no such option
train sfr rows.jsonl => sft
train sft nowhere.jsonl => nowhere.jsonl: no such file
train sft folder => folder: a folder without a file of rows
train sft rows.jsonl --nope => no such option --nope
train sft rows.jsonl --steps many => expected a whole number
train sft rows.jsonl --batch-size 0 => at least 1
train sft rows.jsonl --schedule steep => --schedule steep: expected one of cosine
train sft rows.jsonl --dtype int3 => --dtype int3: expected one of auto
train sft rows.jsonl --best luck => --best luck: expected one of loss
train sft rows.jsonl --lora => --lora adapts a trained model
train dpo rows.jsonl => DPO starts from a trained model
train dpo rows.jsonl --model m --loss magic => unknown magic
train dpo rows.jsonl --model m --loss kto --batch-size 1 => --loss kto
train dpo rows.jsonl --model m --gate rows.jsonl => --gate needs --generate
train reward rows.jsonl --ties maybe => --ties maybe: expected one of skip, soft
train reward rows.jsonl --generate 4 => a reward model answers nothing
train ppo rows.jsonl => PPO starts from a trained model
train ppo rows.jsonl --model m => --reward: name what scores the answers
train ppo rows.jsonl --model m --unscored zero => --unscored zero: expected one of drop, fail
train grpo rows.jsonl --model m --reward r --algorithm rloo --loss grpo => are GRPO's
train score nowhere.jsonl --reward rm => nowhere.jsonl: no such file
train check nowhere.jsonl => nowhere.jsonl: no such file
train check rows.jsonl --trainer ppo => --trainer ppo: expected one of sft
train chat m --dtype int3 => --dtype int3
"""


def python(code: str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], input=stdin, capture_output=True, text=True)


def test_help_and_mistakes_import_no_library() -> None:
    write_sft(Path("rows.jsonl"), problems(0)[:4])
    Path("m").mkdir()
    Path("folder").mkdir()
    Path("m/config.json").write_text("{}")
    ran = python(SCRIPT, stdin=MISTAKES.strip())
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("command", ["sft rows.jsonl", "chat m", "check rows.jsonl", "score rows.jsonl --reward rm"])
@pytest.mark.parametrize("library", ["torch", "peft"])
def test_what_is_missing_is_named_in_one_line_with_what_installs_it(command: str, library: str) -> None:
    write_sft(Path("rows.jsonl"), problems(0)[:4])
    Path("m").mkdir()
    Path("m/config.json").write_text("{}")
    code = f"import sys; sys.modules[{library!r}] = None; from datagen.__main__ import main; main()"
    ran = python(code, "train", *command.split())
    assert ran.returncode == 2, ran.stderr
    assert ran.stderr.startswith(f"error: datagen train {command.split()[0]} needs {library}. To install: ")
    assert ran.stderr.endswith("[train]'\n")
    assert ran.stderr.count("\n") == 1


def module(text: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write a module that can be imported; return its name."""
    name = f"written_{len(sys.modules)}"
    (path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(path))
    return name


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("from transformers import NoSuchName", "transformers cannot be imported: cannot import name 'NoSuchName'"),
        ("import transformers.nowhere", "transformers cannot be imported: No module named 'transformers.nowhere'"),
        (
            "exec(\"raise OSError('libgomp.so.1: cannot open shared object file')\", {'__name__': 'torch._ops'})",
            "torch cannot be imported: libgomp.so.1: cannot open shared object file. To install what fits: ",
        ),
    ],
)
def test_a_library_that_is_broken_or_of_another_version_is_one_line(
    text: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError) as raised:
        import_extra(module(text, tmp_path, monkeypatch), "datagen train sft")
    assert says in str(raised.value)


@pytest.mark.parametrize("text", ["import nowhere", "import datagen_train.nowhere", "from datagen_train import nobody"])
def test_a_broken_import_of_ours_is_a_traceback(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImportError):
        import_extra(module(text, tmp_path, monkeypatch), "datagen train sft")


def test_what_a_library_tells_its_callers_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        import_extra(module("import warnings\nwarnings.warn('old', FutureWarning)", tmp_path, monkeypatch), "x")
    assert shown == []


def test_every_library_that_our_training_code_imports_is_known() -> None:
    """The absence of another one would be a traceback."""
    ours = {"datagen", "datagen_train", *sys.stdlib_module_names}
    files = (path for path in modules() if "datagen_train" in path.parts)
    names = {name.partition(".")[0] for path in files for name in imported_names(ast.parse(path.read_text()))}
    assert names - ours - {"numpy", "rapidfuzz", "rich", "httpx2"} <= set(LIBRARIES)
