"""From a step of a recipe to the command line of it, checked before anything runs."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from datagen.commands.flags import names_of, value_words
from datagen.commands.main import Commands
from datagen.commands.plugin_methods import plugin_command
from datagen.commands.table import COMMANDS
from datagen.errors import InputError, unknown_value
from datagen.installation import program
from datagen.plugins import REFERENCE
from datagen.recipes.recipe import Recipe, Step

WRITES_NOTHING = (
    *("chat", "check", "doctor", "agents", "trace", "run", "recipes", "ablate", "review"),
    *("pack", "push"),
)
"""Commands that are no step: they talk to somebody, or leave no file for the next one."""
CHOSEN_BY_RUN = ("output", "json", "dry_run", "shard")
PRINTED = ("train eval",)
"""Commands that print their result; it goes to a file."""
REPORT = "report"
"""The command that reads whatever is there; in a recipe, what the steps before it have written."""


@dataclass(frozen=True)
class Line:
    """A step as it will run."""

    step: Step
    words: tuple[str, ...]
    """The command line without `datagen`."""
    output: str
    """The file or folder that it writes."""
    is_printed: bool
    """Whether the output is what the command prints."""
    asks_models: bool
    """Whether it asks models with `datagen`; a trainer does not."""
    can_overwrite: bool
    can_be_quiet: bool
    parsed: object
    """The command line as its command reads it: of a method a MethodCall."""

    def typed(self, folder: Path) -> str:
        """Return what to type to run the step alone."""
        target = f" > {shlex.quote(self.output)}" if self.is_printed else ""
        return f"(cd {shlex.quote(str(folder))} && {program()} {shlex.join(self.words)}{target})"


def plan(recipe: Recipe) -> list[Line]:
    """Return the command lines of a recipe.

    Raises:
        InputError: A step names no command, an option that its command does not take, or a value that it refuses.
    """
    lines: list[Line] = []
    outputs: dict[str, str] = {}
    for step in recipe.steps:
        if step.run == REPORT and "files" not in step.values:
            step = replace(step, values={**step.values, "files": list(outputs)})
        line = command_line(step, recipe.models)
        if other := outputs.get(line.output):
            raise InputError(f"{step.place}: {step.name} writes {line.output}, as {other} does")
        outputs[line.output] = step.name
        lines.append(line)
    return lines


def command_line(step: Step, models: Mapping[str, Any]) -> Line:
    """Return the command line of a step."""
    command, context = find_command(step)
    parameters = {name: parameter for parameter in command.params for name in names_of(parameter)}
    for name in step.values:
        if name not in parameters or name in CHOSEN_BY_RUN:
            known = sorted({p.name for p in command.params} - {"help", *CHOSEN_BY_RUN})
            near = get_close_matches(name, known, 1)
            raise InputError(
                f"{step.place}: step {step.name}: `{step.run}` takes no `{name}`"
                + (f"; did you mean `{near[0]}`?" if near else f". See: {context} --help")
            )
    asks = "max_calls" in parameters and not step.run.startswith("train ")
    output = step.output or default_output(step)
    is_printed = step.run in PRINTED
    values = {parameters[name].name: value for name, value in step.values.items()}
    if asks:
        values = {role: model for role, model in models.items() if role in parameters} | values
    words = [*run_words(step), *value_words(command, values)]
    if not is_printed:
        words += ["-o", output]
    try:
        parsed = command.check_words(words[len(run_words(step)) :], context)
    except InputError as error:
        raise InputError(f"{step.place}: step {step.name}: {error}") from None
    return Line(step, tuple(words), output, is_printed, asks, "overwrite" in parameters, "quiet" in parameters, parsed)


def run_words(step: Step) -> list[str]:
    """Return the words of a step's command; FILE.py:NAME is one, whatever the path holds."""
    return [step.run] if REFERENCE.fullmatch(step.run) else step.run.split()


def find_command(step: Step) -> tuple[Any, str]:
    """Return the typer command of a step, and its name."""
    names = run_words(step)
    group: Any = Commands(name="datagen")
    for depth, name in enumerate(names):
        table = getattr(group, "table", {})
        if depth == 0 and name not in table and (command := plugin_command(step.run, table)):
            return command, f"datagen {step.run}"
        if name not in table or (name in WRITES_NOTHING):
            known = [*(key for key in COMMANDS if key not in (*WRITES_NOTHING, "train")), "train TRAINER"]
            known = known if depth == 0 else [f"train {key}" for key in table if key not in WRITES_NOTHING]
            raise unknown_value(f"{step.place}: step {step.name}: run:", step.run, known)
        selector = getattr(table[name], "selector", "")
        group = group.build(name, [f"--{selector}={step.values.get(selector)}"] if selector else [])
    if hasattr(group, "table"):
        raise InputError(f"{step.place}: step {step.name}: `{step.run}` is a group: name its command")
    return group, f"datagen {step.run}"


def default_output(step: Step) -> str:
    """Return the name of what a step writes: a folder for a model, JSON for what is printed, a page, else rows."""
    if step.run in PRINTED or step.run == REPORT:
        return f"{step.name}.json" if step.run in PRINTED else f"{step.name}.html"
    is_folder = step.run.startswith("train ") and step.run != "train score"
    return step.name if is_folder else f"{step.name}.jsonl"
