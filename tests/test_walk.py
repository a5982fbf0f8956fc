"""A new user's walk: from the first command, every line that the tool prints as the next one, to a DPO and a PPO model.

One walk begins in a checkout, with everything installed, and goes to the end; its commands run in processes that have
the libraries. The other begins in an environment that holds nothing but the wheel and what it needs, and installs what
the tool says is missing; so it needs the package index. It ends with the first model and what is asked of it: the same
lines follow as in the checkout. What needs no library of an extra is tried so on every version of Python that is here.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import Any

import pytest

from tests.forked import program

ROOT = Path(__file__).resolve().parents[1]
NEXT = re.compile(r"^Next: (.+)$", re.MULTILINE)
LAST = (".dpo", ".ppo")
"""Endings of the models after which the next round begins; it would print the same lines again."""
AFTER_SFT = re.compile(r"\btrain (reward|dpo|ppo)\b")
pytestmark = pytest.mark.slow


def environment() -> dict[str, str]:
    """The environment of a new user: the libraries that this suite runs with, and no settings."""
    names = ("HOME", "LANG", "PATH", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CONFIG_FILE", "PIP_FIND_LINKS")
    kept = {name: os.environ[name] for name in names if name in os.environ}
    one_thread = {"OMP_NUM_THREADS": "1"}  # the machine is busy with other tests
    pip = {"PIP_CONSTRAINT": str(ROOT / "constraints.txt"), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    return {**kept, **one_thread, **pip}


def run(command: str, folder: Path) -> str:
    """Run a shell command as `ended` does; return what it printed on standard error."""
    return ended(command, folder).stderr


def output(command: str, folder: Path) -> str:
    """Run a shell command as `ended` does; return what it printed on standard output."""
    return ended(command, folder).stdout


def ended(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a shell command as it is typed; return the process that has ended.

    It must succeed. Only PPO may end with the line that a toy got no better: it has eight held-out prompts.
    """
    process = subprocess.run(
        command, shell=True, cwd=folder, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    is_short = re.search(r"train (dpo|ppo)", command)  # a toy on some thirty pairs, five of them held out
    nothing_learned = process.returncode == 3 and is_short and "error: nothing was learned: " in process.stderr
    report = f"{command}\nexit code {process.returncode}\n{process.stdout[-3000:]}\n{process.stderr[-3000:]}"
    assert process.returncode == 0 or nothing_learned, report
    assert "Traceback" not in process.stderr
    return process


def walk(first: str, folder: Path, *, left_out: re.Pattern[str] | None = None) -> list[str]:
    """Run a command, then every line that it and the later ones print as the next; return the lines."""
    waiting, walked = deque(NEXT.findall(run(first, folder))), list[str]()
    while waiting:
        command = waiting.popleft()
        begins_a_round = re.search(r"\brespond\b", command) and any(f"{ending} " in command for ending in LAST)
        if command in walked or begins_a_round or (left_out and left_out.search(command)):
            continue
        walked.append(command)
        waiting += NEXT.findall(run(command, folder))
    return walked


def check_data(lines: list[str], folder: Path) -> dict[str, Any]:
    """Check that the steps to the pairs and the first model did what they are for; return a report for each trainer."""
    for word in ("train sft", "train chat", "respond", "judge", "pairs"):
        assert any(word in line for line in lines), f"no line for {word}: {lines}"
    rows = {path.name: path.read_text().splitlines() for path in folder.rglob("*.jsonl") if "run" not in path.parts}
    (pairs,) = (lines for name, lines in rows.items() if name.endswith(".pairs.jsonl"))
    assert pairs and all(json.loads(line)["chosen"] != json.loads(line)["rejected"] for line in pairs)
    reports = (json.loads(path.read_text()) for path in folder.rglob("run/report.json"))
    commands = {report["result"]["command"]: report for report in reports}
    assert commands["train sft"]["result"]["learned"] is True, commands["train sft"]["result"]
    return commands


def check_policies(commands: dict[str, Any], folder: Path) -> None:
    """Check that DPO, the reward model and PPO did what they are for."""
    curve = next(folder.rglob(f"{commands['train dpo']['folder']}/run/metrics.jsonl")).read_text().splitlines()
    losses = [line["loss"] for line in map(json.loads, curve) if "loss" in line]
    assert losses[-1] < losses[0] / 2, "DPO learns the pairs that it is trained on"
    assert "accuracy" in commands["train reward"]["result"]["reward"]
    start, end = (commands[name]["folder"] for name in ("train sft", "train ppo"))
    weights = [next(folder.rglob(f"{name}/model.safetensors")).read_bytes() for name in (start, end)]
    assert weights[0] != weights[1], "PPO trained nothing"


def test_from_make_demo_to_a_dpo_and_a_ppo_model(tmp_path: Path) -> None:
    folder = tmp_path / "checkout"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".*", "demo.*", "__pycache__"))
    programs = tmp_path / "env/bin"
    programs.mkdir(parents=True)
    (tmp_path / "env/base").touch()  # nothing is installed there again
    (programs / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (programs / "python").chmod(0o755)
    with program(programs):
        lines = walk(f"make demo VENV={tmp_path}/env --assume-old={tmp_path}/env/base", folder)
    check_policies(check_data(lines, folder), folder)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this project."""
    folder = tmp_path_factory.mktemp("dist")
    run(f"{sys.executable} -m pip wheel --quiet --no-deps --wheel-dir . {ROOT}", folder)
    (file,) = folder.glob("*.whl")
    return file


def interpreter(version: str) -> str | None:
    """Return a Python of this version, such as 3.12, of the path or of pyenv."""
    of_pyenv = sorted(map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/python")))
    return next(iter(of_pyenv[-1:]), None) or shutil.which(f"python{version}")


EVERY_HELP = """
import contextlib, io, sys
from datagen.commands.main import app
from datagen.commands.table import COMMANDS
from datagen_train.cli import TOOLS, TRAINERS
names = [[name] for name in COMMANDS] + [["train", name] for name in [*TRAINERS, *TOOLS, "sweep"]]
for words in [[], *names]:
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        try:
            app([*words, "--help"])
        except SystemExit as end:
            assert not end.code, (words, end.code)
    assert "Usage: " in shown.getvalue(), words
assert not {"torch", "transformers", "datasets", "pyarrow"} & sys.modules.keys()
"""


FROM_PYTHON = """
import datagen
rows = datagen.evolve(["Name a river in Peru.", "How do I make a strong password?"], rounds=1, model="sim")
print(len(rows), "rows")
"""


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_the_base_install_works_on_each_python(version: str, wheel: Path, tmp_path: Path) -> None:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"no Python {version} here")
    assert f'"Programming Language :: Python :: {version}"' in (ROOT / "pyproject.toml").read_text()
    run(f"{python} -m venv env", tmp_path)
    run(f"env/bin/python -m pip install --quiet {wheel}", tmp_path)
    (tmp_path / "help.py").write_text(EVERY_HELP)
    (tmp_path / "api.py").write_text(FROM_PYTHON)
    shutil.copy(ROOT / "examples/seeds.jsonl", tmp_path)
    for command, words in {
        "env/bin/datagen --version": "datagen-train ",
        "env/bin/python -m datagen --version": "datagen-train ",
        "_DATAGEN_COMPLETE=source_bash env/bin/datagen": "complete",
        "_DATAGEN_COMPLETE=complete_bash COMP_WORDS='datagen ev' COMP_CWORD=1 env/bin/datagen": "evolve",
        "env/bin/datagen agents": "name: datagen",
        "env/bin/datagen recipes --show wizard": "run: evolve",
        "env/bin/python help.py": "",
        "env/bin/datagen evolve seeds.jsonl --rounds 1 --model sim -o - -q": '"prompt": ',
        "env/bin/datagen doctor --json": '"machine"',
        "env/bin/python api.py": "2 rows",
    }.items():
        assert words in output(command, tmp_path), command


def test_from_the_wheel_in_a_bare_environment(wheel: Path, tmp_path: Path) -> None:
    run(f"{sys.executable} -m venv env", tmp_path)
    run(f"env/bin/python -m pip install --quiet {wheel}", tmp_path)
    shutil.copy(ROOT / "examples/seeds.jsonl", tmp_path)
    lines = walk("env/bin/datagen evolve seeds.jsonl", tmp_path, left_out=AFTER_SFT)
    check_data(lines, tmp_path)
    assert any("pip install" in line for line in lines), lines
    assert all("sim" in line for line in lines if " respond " in line or " judge " in line), lines
