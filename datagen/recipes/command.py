"""`datagen run RECIPE`: the commands of a recipe, one after the other."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from datagen.engine.options import option
from datagen.errors import InputError
from datagen.libraries import check_extra
from datagen.printing import printable
from datagen.recipes.recipe import find_recipe, load_recipe
from datagen.recipes.results import result_lines
from datagen.recipes.runner import Selection, run_steps, select
from datagen.recipes.steps import Line, plan

ARGUMENTS = (("recipe", "A file (.yaml), or the name of a recipe of `datagen recipes`."),)


@dataclass(frozen=True)
class Options:
    """Options of `datagen run`."""

    output: str | None = option(None, "Folder of all files. [the recipe's name]", short="-o")
    set: list[str] = option(
        [], "Change an input, a model, a setting or an option of a step: NAME=VALUE, STEP.OPTION=VALUE. Repeatable."
    )
    model: list[str] = option([], "Model for every step that asks one and names none. Repeatable.")
    max_cost: float | None = option(None, "Maximum cost of all steps together, in dollars.", least=0)
    max_calls: int | None = option(None, "Maximum number of calls of all steps together.", least=1)
    start: str | None = option(None, "Begin with this step; those before it must have run.", long="--from")
    only: str | None = option(None, "Run this step alone.")
    dry_run: bool = option(False, "Show what each step would run and cost; send nothing.")
    quiet: bool = option(False, "Print only warnings and errors.", short="-q")


def run(recipe: str, options: Options) -> int:
    """Run a recipe; return the exit code of the step that ends it, or 0."""

    def say(text: str) -> None:
        print(printable(text), file=sys.stderr, flush=True)

    path = find_recipe(recipe)
    folder = Path(options.output or path.stem)
    changes = parse_changes(options.set, options.model, options.max_cost, options.max_calls)
    loaded = load_recipe(path, changes, folder)
    lines = plan(loaded)
    chosen = select(lines, Selection(options.start, options.only))
    if options.dry_run:
        rehearse(lines, chosen, folder, say)
        return 0
    make_ready(f"datagen run {recipe}", chosen, folder)
    code = run_steps(loaded, lines, chosen, folder, (lambda text: None) if options.quiet else say, options.quiet)
    if code == 0 and options.only is None and (table := result_lines(loaded, folder)):
        print(printable("\n".join(table)))
    return code


def rehearse(lines: Sequence[Line], chosen: Sequence[Line], folder: Path, say: Callable[[str], None]) -> None:
    """Show the command of each chosen step, and what all steps would cost."""
    from datagen.recipes.forecast import forecast_lines

    for line in chosen:
        say(f"{line.step.name}: {line.typed(folder)}")
    print(printable("\n".join(forecast_lines(lines, folder))))


def make_ready(command: str, chosen: Sequence[Line], folder: Path) -> None:
    """Make the folder of a recipe; raise InputError if a step trains, and what that needs is not installed."""
    if any(line.step.run.startswith("train ") for line in chosen):
        check_extra(command)
    folder.mkdir(parents=True, exist_ok=True)


def parse_changes(
    texts: Sequence[str], model: Sequence[str], max_cost: float | None, max_calls: int | None
) -> dict[str, Any]:
    """Return what is to be changed, by name.

    Args:
        texts: NAME=VALUE; a value is read as YAML: a number, true, [a, b], or text.
        model: The models of every step that names none; empty for those of the recipe.
        max_cost: The cap of all steps in dollars; None for that of the recipe.
        max_calls: The same in calls.
    """
    changes: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InputError(f"--set {text}: expected NAME=VALUE or STEP.OPTION=VALUE")
        try:
            changes[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            changes[name] = value
        if isinstance(changes[name], dict):  # a model's name with ": " in it is text
            changes[name] = value
    given = {"model": list(model) or None, "max_cost": max_cost, "max_calls": max_calls}
    return changes | {name: value for name, value in given.items() if value is not None}
