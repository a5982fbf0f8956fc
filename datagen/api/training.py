"""`train("sft", rows, ...)`: a command of `datagen train` in a process of its own.

So the caller's process needs no torch, holds no memory of a GPU afterwards, and loses nothing if a training run fails.
"""

import json
import os
import signal
import subprocess
import sys
import warnings
from collections import deque
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NamedTuple

from datagen.api.calls import check_folder, keyword_values
from datagen.api.inputs import input_name
from datagen.api.progress import is_watched
from datagen.api.rows import Incomplete
from datagen.commands.endings import DONE, SHORT
from datagen.commands.flags import CheckedCommand, value_words
from datagen.commands.main import Commands
from datagen.commands.next_steps import IN_RECIPE
from datagen.errors import DatagenError, InputError, Outage, unknown_value
from datagen.printing import printable
from datagen.records.files import output_stem
from datagen.records.record import Row
from datagen.signals import INTERRUPTED

PRINTED = ("eval",)
"""Commands that print what they find."""
TALKING = ("chat", "check", "sweep")
"""Commands for people."""
LAST_LINES = 20
"""Lines that are kept to say why a process has failed."""
ERROR = "error: "
ERRORS: Mapping[int, type[DatagenError]] = {InputError.exit_code: InputError, Outage.exit_code: Outage}


class Trained(NamedTuple):
    """What a command of `datagen train` has made."""

    path: Path | None
    """The folder of the model, or the file of rows; None where nothing is written."""
    report: Row
    """`run/report.json` of a training run; of `eval` what it has measured."""


@cache
def train_command(name: str) -> CheckedCommand:
    """Return a command of `datagen train`; InputError for another name."""
    group: Any = Commands(name="datagen").build("train")
    if name not in group.table or name in TALKING:
        raise unknown_value("train", name, [known for known in group.table if known not in TALKING])
    command: CheckedCommand = group.build(name)
    return command


def train(
    name: str, rows: Any = None, /, *, folder: Any = None, progress: bool | None = None, **options: Any
) -> Trained:
    """Train, evaluate or merge a model, or score rows with one, and wait for it (docs/python.md).

    Args:
        name: The command, as in `datagen train NAME`: pretrain, sft, reward, classify, dpo, distill, ppo, grpo, eval,
            score or merge.
        rows: Its input: a path, or rows in memory.
        folder: Folder whose .datagen/ holds rows given from memory.
        progress: Whether to pass on what the command says. None: on a terminal and in a notebook.
        options: The options of the command, with `_` for `-`.

    Raises:
        DatagenError: The command has failed; its own words.
    """
    command = train_command(name)
    values = keyword_values(f"train {name}", command, options)
    if rows is not None:
        free = next((p.name for p in command.params if p.param_type_name == "argument" and p.name not in values), None)
        if free is None:
            raise InputError(f"train {name}: takes no rows beside these keywords")
        values[free] = input_name(rows, "prompt", check_folder(folder))
        if "output" not in values and name not in (*PRINTED, "merge"):
            values["output"] = default_output(name, rows)
    words = value_words(command, {**values, "json": True})
    command.check_words(words, f"datagen train {name}")
    code, printed, last = run_process(["train", name, *words], is_watched() if progress is None else progress)
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    if code not in (DONE, SHORT):
        raise ERRORS.get(code, DatagenError)(f"train {name}: {error_in(last) or f'exit code {code}'}")
    if code == SHORT:
        warnings.warn(" ".join(last[-1:]), Incomplete, stacklevel=2)
    report: Row = json.loads(printed)
    path = values.get("output") or report.get("output")
    return Trained(Path(path) if path else None, report)


def error_in(lines: Sequence[str]) -> str:
    """Return the error that ends what a command has said, without its mark; all lines where none is marked."""
    starts = [number for number, line in enumerate(lines) if line.startswith(ERROR)]
    return "\n".join(lines[starts[-1] :] if starts else lines).removeprefix(ERROR)


def default_output(name: str, rows: Any) -> str:
    """Return the name of what a command writes, as the command line has it; InputError for rows in memory."""
    if not isinstance(rows, str | os.PathLike):
        raise InputError("output: rows in memory have no name to make one from; name the folder of the model")
    return f"{output_stem(os.fspath(rows))}.{name}{'.jsonl' if name == 'score' else ''}"


def run_process(words: list[str], shows: bool) -> tuple[int, str, list[str]]:
    """Run a command line of `datagen`; return its exit code, what it has printed, and the last lines that it has said.

    A KeyboardInterrupt is passed on, and raised once the command has saved what it has.
    """
    last: deque[str] = deque(maxlen=LAST_LINES)
    command, environment = [sys.executable, "-P", "-m", "datagen", *words], {**os.environ, IN_RECIPE: "1"}
    # A file takes the result: a pipe that nobody reads would block the command.
    with TemporaryFile() as result:
        with subprocess.Popen(command, stdout=result, stderr=subprocess.PIPE, env=environment) as process:
            assert process.stderr
            try:
                for line in process.stderr:
                    last.append(line.decode(errors="replace").rstrip("\n"))
                    if shows:
                        print(printable(last[-1]), file=sys.stderr, flush=True)
            except KeyboardInterrupt:
                process.send_signal(signal.SIGINT)
                process.communicate()  # it saves what it has
                raise
        result.seek(0)
        return process.returncode, result.read().decode(), list(last)
