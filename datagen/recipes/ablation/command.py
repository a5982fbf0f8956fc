"""`datagen ablate RECIPE`: does a switch help? The recipe with it on and off, on equally many training tokens."""

import sys
from dataclasses import dataclass
from pathlib import Path

from datagen.engine.options import option
from datagen.errors import InputError
from datagen.printing import printable
from datagen.recipes.ablation.arms import lay_out, load_arms, parse_switch
from datagen.recipes.ablation.table import as_dict, check_tokens, markdown, pick_measure, read_arms, text_lines
from datagen.recipes.command import make_ready, parse_changes, rehearse
from datagen.recipes.recipe import find_recipe
from datagen.recipes.runner import run_steps
from datagen.recipes.steps import plan
from datagen.records.files import replace_file, write_json

ARGUMENTS = (("recipe", "A file (.yaml), or the name of a recipe of examples/ablations."),)
REPORT = "ablation.json"


@dataclass(frozen=True)
class Options:
    """Options of `datagen ablate`."""

    switch: str | None = option(
        None,
        "What to switch, and its two values: STEP.OPTION=VALUE,VALUE, or NAME=VALUE,VALUE of an input, a model or a "
        "setting; null leaves an option out.",
    )
    seeds: int = option(5, "Number of seeds: both arms run once with each.", least=2, most=100)
    measure: str | None = option(None, "Which of the results of the recipe tells the arms apart. [the only one]")
    output: str | None = option(None, "Folder of all files. [RECIPE.SWITCH]", short="-o")
    set: list[str] = option([], "Change both arms, as in 'datagen run': NAME=VALUE, STEP.OPTION=VALUE. Repeatable.")
    model: list[str] = option([], "Model for every step that asks one and names none. Repeatable.")
    max_cost: float | None = option(None, "Maximum cost of all steps together, in dollars.", least=0)
    max_calls: int | None = option(None, "Maximum number of calls of all steps together.", least=1)
    dry_run: bool = option(False, "Show what each step would run and cost; send nothing.")
    json: bool = option(False, "Print ablation.json in place of the table.")
    quiet: bool = option(False, "Print only the table, warnings and errors.", short="-q")


def run(recipe: str, options: Options) -> int:
    """Run both arms with every seed and compare them; return the exit code of a step that ends it, or 0."""

    def say(text: str) -> None:
        if not options.quiet:
            print(printable(text), file=sys.stderr, flush=True)

    # 1. Lay out the steps of both arms and all seeds, and check them.
    if options.switch is None:
        raise InputError("--switch: name what to switch, such as --switch rows.dedup=0.7,null")
    path, switch = find_recipe(recipe, "ablations"), parse_switch(options.switch)
    folder = Path(options.output or f"{path.stem}.{switch.name}")
    arms = load_arms(
        path, parse_changes(options.set, options.model, options.max_cost, options.max_calls), switch, folder
    )
    study = lay_out(arms, options.seeds)
    measure = pick_measure(study, arms[0].results, options.measure)
    lines = plan(study.recipe)
    if options.dry_run:
        rehearse(lines, lines, folder, say)
        return 0
    make_ready(f"datagen ablate {recipe}", lines, folder)

    # 2. Run those that are not done.
    if code := run_steps(study.recipe, lines, lines, folder, say, quiet=True):
        return code

    # 3. Compare.
    results = read_arms(study, switch, measure, folder)
    check_tokens(results)
    report = as_dict(path.stem, switch, study, measure, results)
    write_json(folder / REPORT, report)
    replace_file(folder / "ablation.md", markdown(report).encode())
    print(printable((folder / REPORT).read_text() if options.json else "\n".join(text_lines(report))))
    return 0
