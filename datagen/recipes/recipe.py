"""A recipe file: what it holds, and how it is read.

A recipe is commands written down. Each step is a command of `datagen` with its options; `${NAME}` in a value stands for
an input file, a model or a setting, which `--set NAME=VALUE` changes. Files connect the steps: nothing else does.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

import yaml

from datagen.errors import InputError, unknown_value
from datagen.plugins import REFERENCE

KEYS = ("about", "paper", "inputs", "models", "settings", "max_cost", "max_calls", "steps", "results")
RUN, OUTPUT, ACCEPT = "run", "output", "accept"
"""Keys of a step that are no options of its command."""
NAMED = ("inputs", "models", "settings")
"""What `${NAME}` stands for, and `--set` changes."""
STEP_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
CODE = re.compile(rf"((?:-?[\d.]+\*)?(?:verifier:)?){REFERENCE.pattern}", re.DOTALL)
"""FILE.py:NAME, as a reward with its weight, too."""
PACKAGED = "examples:"
"""Before the name of an input that comes with the package."""
PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Step:
    """One command of a recipe."""

    name: str
    run: str
    """The words of the command: `evolve`, `train sft`."""
    values: Mapping[str, Any]
    """Its arguments and options by name, with every `${NAME}` replaced."""
    place: str
    """FILE:LINE, for messages."""
    output: str | None = None
    """The file or folder that it writes; None: from its name."""
    accept: tuple[int, ...] = (0,)
    """Exit codes after which the recipe goes on."""


@dataclass(frozen=True)
class Result:
    """A number to show at the end."""

    name: str
    file: str
    """A JSON file that a step has written, in the folder of the run."""
    value: tuple[str, ...]
    """The keys that lead to the number in it."""
    expect: tuple[float, float] | None
    """The range that it lies in, if the recipe runs as it is."""


@dataclass(frozen=True)
class Recipe:
    """A recipe, read and changed as the user asks."""

    name: str
    about: str
    paper: str
    models: Mapping[str, str | list[str]]
    """`model` for every step that asks a model, and roles with models of their own."""
    steps: tuple[Step, ...]
    results: tuple[Result, ...]
    max_cost: float | None = None
    max_calls: int | None = None
    is_changed: bool = False
    """Whether anything was set; what it expects is then not to be expected."""


@dataclass
class Source:
    """The text of a recipe, with the lines of its keys."""

    path: Path
    lines: dict[tuple[str, ...], int] = field(default_factory=dict)
    """The line of each key, by the keys that lead to it."""

    def at(self, *keys: str) -> str:
        """Return FILE:LINE of a key, or of the nearest one around it."""
        while keys and keys not in self.lines:
            keys = keys[:-1]
        return f"{self.path}:{self.lines.get(keys, 1)}"


def bundled_folder() -> Path:
    """Return the folder of examples: in the package, or in the checkout beside it."""
    packaged = PACKAGE / "examples"
    return packaged if packaged.is_dir() else PACKAGE.parent / "examples"


def bundled(folder: str = "recipes") -> dict[str, Path]:
    """Return the recipes of a folder that comes with the package, by name."""
    return {path.stem: path for path in sorted(bundled_folder().glob(f"{folder}/*.yaml"))}


def find_recipe(name: str, folder: str = "recipes") -> Path:
    """Return the file of a recipe from its path, or from the name of one in a folder that comes with the package.

    Raises:
        InputError: There is none.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        if not path.is_file():
            raise InputError(f"{name}: no such file")
        return path
    recipes = bundled(folder)
    if name not in recipes:
        raise unknown_value("recipe", name, recipes)
    return recipes[name]


def load_recipe(path: Path, changes: Mapping[str, Any], folder: Path) -> Recipe:
    """Read a recipe, and change it.

    Args:
        path: Its file.
        changes: New values by the name of an input, a model or a setting, or by STEP.OPTION.
        folder: Where the steps will run: paths of inputs are told from there.

    Raises:
        InputError: The file is no recipe, or a change names what is not there.
    """
    source = Source(path)
    document = read_document(source)
    for name, value in changes.items():
        change(document, name, value)
    for key, value in document["inputs"].items():  # a path that the user gives is seen from the working folder
        document["inputs"][key] = from_folder(Path() if key in changes else path.parent, value, folder)
    names = {name: value for group in NAMED for name, value in document[group].items()}
    models = {
        role: with_files(fill(value, names, source.at("models", role)), path.parent)
        for role, value in document["models"].items()
    }
    steps = tuple(read_step(source, name, values, names) for name, values in document["steps"].items())
    results = tuple(read_result(source, name, values) for name, values in document["results"].items())
    return Recipe(
        path.stem,
        str(document["about"] or "").strip(),
        str(document["paper"] or "").strip(),
        models,
        steps,
        results,
        number(source, document, "max_cost", float),
        number(source, document, "max_calls", int),
        bool(changes),
    )


def read_document(source: Source) -> dict[str, Any]:
    """Return the keys of a recipe, checked as far as they are not steps; every group is there."""
    try:
        text = source.path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        source.lines.update(key_lines(source, node, ()))
        document = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise InputError(f"{source.path}{line}: no YAML: {getattr(error, 'problem', None) or error}") from None
    if not isinstance(document, dict) or not isinstance(document.get("steps"), dict) or not document["steps"]:
        raise InputError(f"{source.path}: no recipe: it needs `steps`, each with `run` and the options of that command")
    for key in document:
        if key not in KEYS:
            raise unknown_value(f"{source.at(str(key))}: key", str(key), KEYS)
    groups = {key: document.get(key) or {} for key in (*NAMED, "steps", "results")}
    for key, group in groups.items():
        if not isinstance(group, dict) or not all(isinstance(name, str) for name in group):
            raise InputError(f"{source.at(key)}: {key}: expected names with values")
    refuse_doubles(source, groups)
    return {**dict.fromkeys(KEYS), **document, **groups}


def key_lines(source: Source, node: Any, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
    """Yield the line of each key; raise InputError if one stands twice in a mapping, where YAML keeps the last."""
    if not isinstance(node, yaml.MappingNode):
        return
    names = set()
    for key, value in node.value:
        line = key.start_mark.line + 1
        if key.value in names:
            raise InputError(f"{source.path}:{line}: {key.value} stands there twice")
        names.add(key.value)
        yield (*keys, str(key.value)), line
        yield from key_lines(source, value, (*keys, str(key.value)))


def refuse_doubles(source: Source, groups: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise InputError if one name stands for two things."""
    first: dict[str, str] = {}
    for group in NAMED:
        for name in groups[group]:
            if first.setdefault(name, group) != group:
                raise InputError(f"{source.at(group, name)}: {name} is one of `{first[name]}` as well; rename one")


def change(document: dict[str, Any], name: str, value: Any) -> None:
    """Set an input, a model, a setting, or an option of a step."""
    step, dot, option = name.partition(".")
    if dot:
        if step not in document["steps"]:
            raise unknown_value(f"--set {name}: step", step, document["steps"])
        document["steps"][step] = {**document["steps"][step], option.replace("-", "_"): value}
        return
    group = next((group for group in NAMED if name in document[group]), None)
    if group is None and name in ("max_cost", "max_calls"):
        document[name] = value
    elif group is None and name == "model":
        document["models"][name] = value
    elif group is None:
        raise unknown_value("--set", name, [name for group in NAMED for name in document[group]])
    else:
        document[group][name] = value


def from_folder(base: Path, name: Any, folder: Path) -> str:
    """Return the path of an input as the steps see it; the whole path if it is far from the folder of the run."""
    text = str(name)
    if "://" in text:
        return text
    if text.startswith(PACKAGED):
        base, text = bundled_folder(), text.removeprefix(PACKAGED)
    path = (base / text).resolve()
    if not path.exists():
        raise InputError(f"{base / text}: no such file")
    return os.path.relpath(path, folder) if path.is_relative_to(folder.resolve().parent) else str(path)


def read_step(source: Source, name: str, values: Any, names: Mapping[str, Any]) -> Step:
    """Return one step, with every `${NAME}` replaced."""
    place, base = source.at("steps", name), source.path.parent
    if not STEP_NAME.fullmatch(name):
        raise InputError(f"{place}: step {name}: a name has small letters, digits, - and _")
    if not isinstance(values, dict) or not isinstance(values.get(RUN), str):
        raise InputError(f"{place}: step {name}: expected `run: COMMAND`, and the options of that command")
    accept = values.get(ACCEPT, [])
    accept = accept if isinstance(accept, list) else [accept]
    if not all(isinstance(code, int) for code in accept):
        raise InputError(f"{source.at('steps', name, ACCEPT)}: {ACCEPT}: expected exit codes, such as 3")
    filled = {
        str(key).replace("-", "_"): with_files(fill(value, names, source.at("steps", name, str(key))), base)
        for key, value in values.items()
        if key not in (RUN, ACCEPT)
    }
    output = filled.pop(OUTPUT, None)
    return Step(
        name, with_files(values[RUN], base), filled, place, None if output is None else str(output), (0, *accept)
    )


def fill(value: Any, names: Mapping[str, Any], place: str) -> Any:
    """Replace `${NAME}` in a value; one that is nothing else keeps the type of what it stands for."""
    if isinstance(value, list):
        return [part for item in value for part in as_list(fill(item, names, place))]
    if not isinstance(value, str) or "$" not in value:
        return value
    try:
        whole = re.fullmatch(r"\$\{(\w+)\}", value)
        return names[whole[1]] if whole else Template(value).substitute(names)
    except KeyError as error:
        raise unknown_value(f"{place}: ${{...}}", str(error.args[0]), names) from None
    except ValueError:
        raise InputError(f"{place}: {value}: `$` begins a name, ${{NAME}}; write $$ for the sign itself") from None


def with_files(value: Any, folder: Path) -> Any:
    """Replace the FILE.py of each FILE.py:NAME in a value by its whole path, since a step runs in another folder.

    A file is looked for in the folder of the recipe, then in the working folder; one that is in neither stays as it is.
    """
    if isinstance(value, list):
        return [with_files(item, folder) for item in value]
    match = CODE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return value
    before, file, name = match.groups()
    paths = (path.resolve() for path in (folder / file, Path(file)) if path.is_file())
    return f"{before}{next(paths, file)}:{name}"


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def read_result(source: Source, name: str, values: Any) -> Result:
    """Return a number to show at the end."""
    place = source.at("results", name)
    if not isinstance(values, dict) or not {"file", "value"} <= values.keys() <= {"file", "value", "expect"}:
        raise InputError(f"{place}: result {name}: expected `file`, `value`, and `expect` if it is known")
    expect = as_list(values["expect"]) if "expect" in values else None
    if expect is not None and not (len(expect) in (1, 2) and all(isinstance(bound, int | float) for bound in expect)):
        raise InputError(f"{place}: expect: a number, or [LEAST, MOST]")
    bounds = None if expect is None else (float(expect[0]), float(expect[-1]))
    return Result(name, str(values["file"]), tuple(str(values["value"]).split(".")), bounds)


def number(source: Source, document: Mapping[str, Any], key: str, kind: type[int] | type[float]) -> Any:
    """Return a cap of the whole recipe; None if there is none."""
    value = document[key]
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | kind) or value <= 0:
        raise InputError(f"{source.at(key)}: {key}: expected a number above 0")
    return kind(value)
