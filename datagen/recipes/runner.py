"""Runs the steps of a recipe one after the other, each as a command of its own.

Every step is a process: what it has loaded is gone when it ends, and what is wrong with it ends it alone. It hears of
Ctrl-C from this process, by its standard input, and ends with it (signals.py).
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from datagen.commands.endings import AT_CAP
from datagen.commands.next_steps import IN_RECIPE
from datagen.errors import InputError
from datagen.llm.models_file import MODELS_FILE
from datagen.recipes.recipe import Recipe
from datagen.recipes.state import State
from datagen.recipes.steps import Line
from datagen.records.files import replace_file
from datagen.records.record import Row
from datagen.signals import INTERRUPTED, LIFELINE, on_stop


@dataclass(frozen=True)
class Selection:
    """The steps that run."""

    start: str | None = None
    """The first one; those before it must have run."""
    only: str | None = None


def select(lines: Sequence[Line], selection: Selection) -> list[Line]:
    """Return the steps to run; raise InputError for a name that is none."""
    names = [line.step.name for line in lines]
    for option, name in (("--from", selection.start), ("--only", selection.only)):
        if name is not None and name not in names:
            raise InputError(f"{option} {name}: expected one of {', '.join(names)}")
    if selection.only is not None:
        return [lines[names.index(selection.only)]]
    return list(lines[names.index(selection.start) if selection.start else 0 :])


def run_steps(
    recipe: Recipe, lines: Sequence[Line], chosen: Sequence[Line], folder: Path, say: Callable[[str], None], quiet: bool
) -> int:
    """Run the chosen steps that are not done; return the exit code of the recipe.

    Args:
        recipe: For its caps.
        lines: All of its steps.
        chosen: Those to run, in their order.
        folder: Where they run.
        say: Prints a line for the user.
        quiet: Whether the steps print warnings and errors alone.
    """
    state = State(folder)
    share_models_file(folder)
    for line in chosen:
        place = f"step {lines.index(line) + 1}/{len(lines)} {line.step.name}"
        if state.is_done(line):
            say(f"{place}: done before")
            continue
        caps = caps_left(recipe, line, lines[: lines.index(line)], folder)
        must_replace = state.begin(line) and line.can_overwrite
        words = [
            *line.words,
            *caps,
            *(["--overwrite"] if must_replace else []),
            *(["-q"] if quiet and line.can_be_quiet else []),
        ]
        say(f"{place}: {line.typed(folder)}")
        code, text = run_command(words, folder, is_printed=line.is_printed)
        if code not in line.step.accept:
            say(ending_line(recipe, place, code, caps))
            return code
        if line.is_printed:
            replace_file(folder / line.output, text)
        state.end(line)
    return 0


def share_models_file(folder: Path) -> None:
    """Let the commands that run in a folder read the models.toml of the working folder, unless that one has its own."""
    here, there = Path(MODELS_FILE).absolute(), folder / MODELS_FILE
    if here.exists() and not os.path.lexists(there):
        there.symlink_to(os.path.relpath(here, folder.resolve()))


def ending_line(recipe: Recipe, place: str, code: int, caps: Sequence[str]) -> str:
    """Say how a step ended that does not let the recipe go on."""
    if code == INTERRUPTED:
        return f"Interrupted in {place}. Run the recipe again: it goes on from there."
    if code == AT_CAP and caps:
        of_all = [f"--max-cost {recipe.max_cost:g}"] if recipe.max_cost is not None else []
        of_all += [f"--max-calls {recipe.max_calls}"] if recipe.max_calls is not None else []
        return f"{place} stopped at what is left of {' and '.join(of_all)} for the whole recipe. To go on, raise it."
    return f"{place} ended with exit code {code}; above is why. When that is mended, run the recipe again."


def run_command(words: Sequence[str], folder: Path, *, is_printed: bool = False) -> tuple[int, bytes]:
    """Run a command of this program in a folder.

    Args:
        words: The command line without `datagen`.
        folder: Its working folder.
        is_printed: Whether to return what it prints to standard output.

    Returns:
        Its exit code, and what it has printed.
    """
    # -P keeps the working folder off the path, as for the program itself.
    command = [sys.executable, "-P", "-m", "datagen", *words]
    environment = os.environ | {LIFELINE: "1", IN_RECIPE: "1"}
    stdout = subprocess.PIPE if is_printed else None
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=stdout, start_new_session=True
    ) as process:

        def pass_on(number: int) -> bool:
            assert process.stdin
            with suppress(OSError):  # it has ended
                os.write(process.stdin.fileno(), bytes([number]))
            return True

        with on_stop(pass_on):
            text = process.stdout.read() if process.stdout else b""
            code = process.wait()
    return code if code >= 0 else 128 - code, text


def caps_left(recipe: Recipe, line: Line, before: Sequence[Line], folder: Path) -> list[str]:
    """Return the caps of a step: what the steps before it have left of those of the recipe; its own come first."""
    spent = [usage_of(folder / other.output) for other in before if other.asks_models]
    words: list[str] = []
    if not line.asks_models:
        return words
    if recipe.max_cost is not None and "--max-cost" not in line.words:
        left = recipe.max_cost - sum(usage.get("cost") or 0 for usage in spent)
        words += ["--max-cost", f"{max(left, 0):.6f}"]
    if recipe.max_calls is not None and "--max-calls" not in line.words:
        left = recipe.max_calls - sum(usage.get("calls") or 0 for usage in spent)
        words += ["--max-calls", str(max(left, 1))]
    return words


def usage_of(output: Path) -> Row:
    """Return what the run that wrote an output has used; empty where that is not known."""
    try:
        usage = json.loads(output.with_suffix(".meta.json").read_bytes())["run"]["usage"]
    except (OSError, ValueError, LookupError, TypeError):
        return {}
    return usage if isinstance(usage, dict) else {}
