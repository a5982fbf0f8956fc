"""From a recipe and a switch to one recipe that holds both arms, a copy of each step for every seed.

A step that is the same in both arms, inputs included, is there once for both; one that is the same for all seeds, once
for all. All copies write into one folder, so they share its journal: a request that both arms make is paid for once.

Every step that takes `--seed` gets the number of the seed, and its models get it as their tag, so that they are asked
anew. A step with a `seed` of its own keeps that, and its answers.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from datagen.commands.flags import MethodCall
from datagen.errors import InputError
from datagen.llm.default import default_models
from datagen.llm.spec import with_tag
from datagen.recipes.recipe import Recipe, load_recipe
from datagen.recipes.state import PREFIX
from datagen.recipes.steps import Line, find_command, plan

ARMS = ("a", "b")
"""The arms in the names of files; `a` has the first value of the switch."""
COUNTED = ("train pretrain", "train sft", "train dpo")
"""Trainers that count tokens; the others train for a number of steps."""
Cell = tuple[str, int]
"""An arm and a seed."""


@dataclass(frozen=True)
class Switch:
    """What is different between the arms."""

    name: str
    """STEP.OPTION, or an input, a model or a setting of the recipe."""
    values: tuple[Any, Any]

    def labels(self) -> tuple[str, str]:
        """Return the values as they are written."""
        first, second = (yaml.safe_dump(value, default_flow_style=True, width=1000) for value in self.values)
        return first.removesuffix("\n...\n").strip(), second.removesuffix("\n...\n").strip()


@dataclass(frozen=True)
class Study:
    """A recipe of both arms and all seeds."""

    recipe: Recipe
    names: Mapping[Cell, Mapping[str, str]]
    """For each cell what an output of the recipe is called in it."""
    counted: tuple[str, ...]
    """The models, by their outputs in the recipe, that both arms train on equally many tokens."""
    vary: tuple[str, ...]
    """The steps that the seed changes by itself."""


def parse_switch(text: str) -> Switch:
    """Read NAME=VALUE,VALUE or STEP.OPTION=VALUE,VALUE; values are YAML, null for none."""
    name, equals, rest = text.partition("=")
    try:
        values = yaml.safe_load(f"[{rest}]")
    except yaml.YAMLError:
        values = []
    if not (name and equals) or len(values) != 2 or values[0] == values[1]:
        raise InputError(
            f"--switch {text}: expected STEP.OPTION=VALUE,VALUE or NAME=VALUE,VALUE with two values, such as "
            "rows.dedup=0.7,null (null leaves the option out)"
        )
    return Switch(name, (values[0], values[1]))


def load_arms(path: Path, changes: Mapping[str, Any], switch: Switch, folder: Path) -> list[Recipe]:
    """Return the recipe of each arm.

    Raises:
        InputError: The recipe or a change cannot be used, or the switch names what is not there.
    """
    plan(load_recipe(path, changes, folder))  # what is wrong without the switch has nothing to do with it
    try:
        arms = [load_recipe(path, {**changes, switch.name: value}, folder) for value in switch.values]
        for arm in arms:
            plan(arm)
    except InputError as error:
        raise InputError(f"--switch {str(error).removeprefix('--set ')}") from None
    return arms


def lay_out(arms: Sequence[Recipe], seeds: int) -> Study:
    """Return the recipe of all arms and seeds.

    Raises:
        InputError: The switch changes no step, or the arms would train on different numbers of tokens or steps.
    """
    cells = [(arm, seed) for seed in range(seeds) for arm in ARMS]
    names: dict[Cell, dict[str, str]] = {cell: {} for cell in cells}
    copies, counted, vary = dict[str, tuple[int, int]](), list[str](), list[str]()
    steps, differs = {}, False
    for place, pair in enumerate(zip(*map(plan, arms), strict=True)):
        lines = dict(zip(ARMS, pair, strict=True))
        values = {(arm, seed): values_of(lines[arm], seed, names[arm, seed]) for arm, seed in cells}
        by_arm = any(values["a", seed] != values["b", seed] for seed in range(seeds))
        by_seed = any(values[cell] != values[cell[0], 0] for cell in cells)
        differs |= by_arm
        if by_arm and lines["a"].step.run.startswith("train ") and not lines["a"].is_printed:
            counted += check_length(lines)
        if takes_seed(lines["a"]):
            vary.append(lines["a"].step.name)
        for arm, seed in cells:
            line, parts = lines[arm], [*([arm] if by_arm else []), *([str(seed)] if by_seed else [])]
            name, output = "-".join([line.step.name, *parts]), with_parts(line.output, parts)
            names[arm, seed][line.output] = output
            copies.setdefault(name, (seed if by_seed else 0, place))
            steps[name] = replace(line.step, name=name, values=values[arm, seed], output=output)
    if not differs:
        raise InputError("--switch: both values give the same commands: no step of the recipe uses what it names")
    ordered = sorted(copies, key=lambda name: copies[name])
    recipe = replace(arms[0], models={}, results=(), steps=tuple(steps[name] for name in ordered))
    return Study(recipe, names, tuple(counted), tuple(vary))


def takes_seed(line: Line) -> bool:
    """Whether the seed is given to a step: its command takes one, and the recipe sets none."""
    command, _ = find_command(line.step)
    return "seed" not in line.step.values and any(parameter.name == "seed" for parameter in command.params)


def values_of(line: Line, seed: int, names: Mapping[str, str]) -> dict[str, Any]:
    """Return the arguments and options of a step in a cell: its models named, its inputs and the seed those of it."""
    values = dict(line.step.values)
    if isinstance(line.parsed, MethodCall):
        models = {"model": line.parsed.run.model or default_models(), **line.parsed.role_models}
        values |= {role: list(specs) for role, specs in models.items() if specs}
        if takes_seed(line):
            values |= {role: [with_tag(spec, str(seed)) for spec in specs] for role, specs in models.items() if specs}
    if takes_seed(line):
        values["seed"] = seed
    return {name: moved(value, names) for name, value in values.items()}


def moved(value: Any, names: Mapping[str, str]) -> Any:
    """Return a value of a step with the names of outputs that its cell has."""
    if isinstance(value, list):
        return [moved(item, names) for item in value]
    if not isinstance(value, str):
        return value
    head = match[0] if (match := PREFIX.match(value)) else ""
    return head + file_in(value.removeprefix(head), names)


def file_in(name: str, names: Mapping[str, str]) -> str:
    """Return what a file is called in a cell: an output, one beside it or in it; any other keeps its name."""
    for old, new in names.items():
        for before, after in beside(old, new):
            if name == before or name.startswith(f"{before}/"):
                return after + name.removeprefix(before)
    return name


def beside(old: str, new: str) -> Iterator[tuple[str, str]]:
    """Yield the names of an output and of the files beside it, before and after."""
    yield old, new
    if old.endswith(".jsonl"):
        for ending in (".meta.json", ".rejected.jsonl"):
            yield old.removesuffix(".jsonl") + ending, new.removesuffix(".jsonl") + ending


def with_parts(output: str, parts: Sequence[str]) -> str:
    """Return the name of an output with the arm and the seed before its ending."""
    path = Path(output)
    return str(path.with_name("-".join([path.stem, *parts]) + path.suffix))


def check_length(lines: Mapping[str, Line]) -> list[str]:
    """Return the output of a trainer that counts tokens; InputError if it does not train equally long in both arms."""
    first, second = (lines[arm].step for arm in ARMS)
    option = "tokens" if first.run in COUNTED else "steps"
    length = first.values.get(option)
    if length is None or length != second.values.get(option):
        others = " and sft.steps=null".replace("sft", first.name) if option == "tokens" else ""
        raise InputError(
            f"{first.place}: step {first.name}: both arms must train equally long: "
            f"--set {first.name}.{option}=NUMBER{others}"
        )
    return [lines["a"].output] if option == "tokens" else []
