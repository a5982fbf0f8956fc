"""The console blocks of README and docs run: each page in order, in one empty folder, and show what they show."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.forked import program
from tests.pages import PAGES, ROOT, Command, blocks, commands, first_missing
from tests.server import Server, running
from tests.sim_server import play_sim

ADDRESS = re.compile(r"https?://[\w.]+:\d+/v1")
NOT_RUN = re.compile(r"(python3? -m )?(pip install|venv|benchmarks|pytest)\b|make |git clone |source ")
"""How commands begin that set the project up, or measure it for minutes."""
TRAINING = re.compile(r"\btrain (?!check\b|-)|\bhf:|\brun rlhf\b")
TOY = re.compile(r"^error: nothing was learned: ", re.MULTILINE)
"""What training may end with where some sixty pairs of a toy are all there is; it differs between processors."""
DATAGEN = re.compile(r"^(\$ )?(\w+=\S* )*(datagen|torchrun) .*", re.MULTILINE)


def trains(page: Path) -> bool:
    return any(TRAINING.search(command.text) for command in commands(page))


WITH_COMMANDS = [
    pytest.param(page, id=str(page.relative_to(ROOT)), marks=[pytest.mark.slow] if trains(page) else [])
    for page in PAGES
    if commands(page)
]


class Shell:
    """A shell in the folder of a page. Its folder and its exported variables last from command to command.

    Args:
        programs: A folder of programs that it finds before others.
    """

    def __init__(self, folder: Path, server: Server, programs: Path) -> None:
        self.folder, self.server, self.state = folder, server, ""
        self.environment = os.environ | {
            "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "OPENAI_BASE_URL": server.url,
            "OPENAI_API_KEY": "a-key",
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",  # the machine may be busy with other tests
            "COLUMNS": "100",
            "PYTHONUNBUFFERED": "1",
        }

    def run(self, command: Command) -> tuple[int, str]:
        """Run a command; return its exit code, and its output on both streams."""
        text = ADDRESS.sub(self.server.url, command.text)
        script = self.state + text
        if text.startswith(("export ", "cd ")):
            self.state = f"{script}\n"
        process = subprocess.Popen(
            ["bash", "-e", "-o", "pipefail", "-c", script],
            cwd=self.folder,
            env=self.environment,
            text=True,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        first = process.stdout.readline() if command.is_interrupted and process.stdout else ""
        if first:
            os.killpg(process.pid, signal.SIGINT)
        output = first + process.communicate()[0]
        return process.returncode, output


@pytest.fixture
def shell(page: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A shell; on a page that trains its `datagen` costs no start, but for the README, which runs what is installed."""
    programs = tmp_path_factory.mktemp("programs")
    with running(Server(answer=play_sim)) as server, ExitStack() as stack:
        if trains(page) and page.name != "README.md":
            stack.enter_context(program(programs))
        yield Shell(tmp_path, server, programs)


@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_the_commands_of_a_page_run_in_an_empty_folder(page: Path, shell: Shell) -> None:
    if "in a checkout" in " ".join(page.read_text(encoding="utf-8").lower().split()):
        shutil.copytree(ROOT / "examples", shell.folder / "examples")
    for command in commands(page):
        if NOT_RUN.match(command.text):
            continue
        code, output = shell.run(command)
        report = f"{command.place}: {command.text}\n{output}"
        assert code == command.exit_code or (code == 3 and TOY.search(output)), report
        missing = first_missing(command.shown, output, any_number=bool(TRAINING.search(command.text)))
        assert missing is None, f"not in the output: {missing}\n{report}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_outside_console_blocks_say_that_they_are_not_run(page: Path) -> None:
    unmarked = [
        f"{page.name}:{line}: a console block begins with a command"
        for line, language, text in blocks(page)
        if language == "console" and not text.startswith("$ ")
    ]
    unmarked += [
        f"{page.name}:{line}: {match[0]}"
        for line, language, text in blocks(page)
        if language != "console" and "not run here" not in text.lower()
        for match in DATAGEN.finditer(text)
    ]
    assert unmarked == []
