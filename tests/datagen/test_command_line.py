"""The command line itself: names of commands and options, help, version, completion in a shell."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import datagen
from datagen.commands.main import app
from datagen.commands.table import COMMANDS
from datagen_train.cli import TOOLS, TRAINERS
from tests.jobs import write_seeds


def call(*arguments: str, **env: str) -> Result:
    return CliRunner().invoke(app, list(arguments), prog_name="datagen", env={"COLUMNS": "100", **env})


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("evlove", "datagen: no such command 'evlove'. Did you mean 'evolve'?"),
        ("train sfft x", "datagen train: no such command 'sfft'. Did you mean 'sft'?"),
        ("sft rows.jsonl", "datagen: no such command 'sft'. Did you mean 'train sft'?"),
        ("zzz", "datagen: no such command 'zzz'. See: datagen --help"),
        ("evolve x --ronds 3", "datagen evolve: no such option --ronds. Did you mean --rounds?"),
        ("evolve x --zzz", "datagen evolve: no such option --zzz. See: datagen evolve --help"),
        ("--ver", "datagen: no such option --ver. Did you mean --version?"),
        ("evolve x --rounds 0", "datagen evolve: --rounds 0: at least 1. See: datagen evolve --help"),
        ("respond x -k 100000", "datagen respond: -k 100000: at most 1000. See: datagen respond --help"),
        ("evolve x --top_p 1.5", "datagen evolve: --top-p 1.5: at most 1. See: datagen evolve --help"),
        ("evolve x --rows many", "datagen evolve: -n many: expected a whole number. See: datagen evolve --help"),
        ("evolve x --timeout soon", "datagen evolve: --timeout soon: expected a number. See: datagen evolve --help"),
        (
            "evolve x y",
            "datagen evolve: got unexpected extra argument(s) (y). To read several files, name their folder.",
        ),
        ("evolve x -o", "option '-o' requires an argument"),
        ("pairs", "datagen pairs: INPUT is missing. For example: datagen pairs samples.judge.jsonl"),
        ("evolve x --style cod", "--style cod: expected one of general, code, math, FILE.py:NAME. Did you mean code?"),
        ("evolve x\x1b[31m y\x1b[31m", r"datagen evolve: got unexpected extra argument(s) (y\x1b[31m)"),
    ],
)
def test_a_wrong_command_line_is_one_line_that_names_the_right_one(arguments: str, says: str) -> None:
    ran = call(*arguments.split(" "))
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert ran.stderr.startswith(f"error: {says}")
    assert ran.stderr.count("\n") == 1


def test_underscores_in_names_of_commands_and_options_are_hyphens() -> None:
    ran = call("self_instruct", str(write_seeds(5)), "--rows", "3", "--max_calls", "50", "--model", "sim", "-q")
    assert ran.exit_code == 0, ran.stderr
    assert len(Path("seeds.self-instruct.jsonl").read_bytes().splitlines()) == 3


def test_the_version_is_that_of_the_package() -> None:
    assert call("--version").stdout == f"datagen-train {datagen.__version__}\n"


@pytest.mark.parametrize("name", [*COMMANDS, *(f"train {name}" for name in TRAINERS | TOOLS)])
def test_help_ends_with_an_example_and_a_page_that_exists(name: str) -> None:
    command = (COMMANDS | {f"train {name}": command for name, command in (TRAINERS | TOOLS).items()})[name]
    ran = call(*name.split(), "--help", COLUMNS="200", TERMINAL_WIDTH="200")
    assert ran.exit_code == 0
    example, _, page = [line.strip() for line in ran.stdout.strip().splitlines()[-3:]]
    assert (example, page) == (f"Example: {command.example}", f"More: {command.page}")
    assert example.startswith(f"Example: datagen {name} ")
    assert Path(__file__).parents[2].joinpath(command.page).exists()


@pytest.mark.parametrize(
    ("typed", "offers"),
    [
        ("datagen ev", "evolve"),
        ("datagen train pre", "pretrain"),
        ("datagen evolve seeds.jsonl --ro", "--rounds --rows"),
        ("datagen respond prompts.jsonl --strategy c", "cot"),
        ("datagen sft ev", "evolve"),
        ("datagen evolve ", ""),
    ],
)
def test_bash_completes_commands_options_and_variants(typed: str, offers: str) -> None:
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" ")), "_DATAGEN_COMPLETE": "complete_bash"}
    ran = call(**words)
    assert ran.exit_code == 0
    assert ran.stdout.split() == offers.split()


def test_the_script_for_a_shell_can_be_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shell is looked for among the processes above, where a test may have none."""
    monkeypatch.setattr("shellingham.detect_shell", lambda *_: ("bash", "/bin/bash"))
    assert "_DATAGEN_COMPLETE=complete_bash" in call("--show-completion", "bash").stdout


@pytest.mark.parametrize("options", [(), ("-P",)], ids=["here", "-P"])
def test_the_package_runs_as_a_module(options: tuple[str, ...]) -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, *options, "-m", "datagen", "--version"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, env=env)
    assert ran.stdout == f"datagen-train {datagen.__version__}\n", ran.stderr
