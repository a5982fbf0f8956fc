"""What others need to run the commands of a data set again without a model: its inputs, and the answers it used.

Each command of the chain runs once more, in a folder of its own, with the journal of its output in the place of every
model. So the answers that are written are those that the outputs used, and no others. A command whose rows are then not
the same bytes as the output is refused. What names this machine is replaced: folders, and addresses of servers.
"""

import asyncio
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from contextlib import chdir
from dataclasses import dataclass, fields, replace
from filecmp import cmp
from pathlib import Path
from shutil import copyfile, copytree, ignore_patterns
from typing import Any, NamedTuple

from datagen.commands.flags import MethodCall, value_words
from datagen.commands.main import Commands
from datagen.engine.job import Job, Outcome, open_job, run_job
from datagen.engine.output import differences
from datagen.engine.scheduler import Engine
from datagen.errors import InputError
from datagen.llm.database import JOURNAL
from datagen.llm.recorded import Recorded, write_bare
from datagen.publish.chain import Step
from datagen.records.hub import is_on_hub
from datagen.records.places import is_there, spec_parts
from datagen.records.record import BadLine, Candidate

NOWHERE = "http://127.0.0.1:8000/v1"
"""The address in the place of every server: the name of a model counts in a journal, its address does not."""
OF_THE_RUN = (
    *("output", "quiet", "verbose", "json", "overwrite", "dry_run", "timeout", "concurrency", "patience"),
    *("batch", "batch_wait", "ray", "shard"),
)
"""Options that change nothing about the rows."""
MODELS_HEAD = "# The parameters of each model. No server needs to be at the address.\n"


class Command(NamedTuple):
    """A command as others run it."""

    name: str
    words: list[str]
    """What stands behind the name."""

    @property
    def line(self) -> str:
        return f"datagen {self.name} {shlex.join(self.words)}"


@dataclass(frozen=True)
class Replay:
    """What was written."""

    commands: list[Command]
    answers: int


class Quiet:
    """An observer of a run that says nothing."""

    def begin(self, job: Job, engine: Engine) -> None: ...

    def bad_line(self, bad: BadLine) -> None: ...

    def failure(self, candidate: Candidate) -> None: ...


def write_replay(steps: Sequence[Step], folder: Path) -> Replay:
    """Write inputs and journal into a new folder.

    Raises:
        InputError: A command cannot be run again by others, or would not make the same rows.
    """
    folder.mkdir()
    inputs = inputs_of(steps, folder)
    commands = [command_of(step, inputs) for step in steps]
    if inputs.models:
        (folder / "models.toml").write_text(models_toml(inputs.models), encoding="utf-8")
    for step, command in zip(steps, commands, strict=True):
        check_replay(step, command, folder)
    has_answers = (folder / JOURNAL).exists()
    answers = write_bare(folder) if has_answers else 0
    for step in steps:
        for suffix in (".jsonl", ".rejected.jsonl", ".meta.json"):
            (folder / step.path.with_suffix(suffix).name).unlink(missing_ok=True)
    return Replay(commands, answers)


def known_commands(steps: Sequence[Step]) -> list[Command]:
    """Return the commands as others would run them; none if one of them is not known, or cannot be run by others."""
    try:
        inputs = inputs_of(steps, None)
        return [command_of(step, inputs) for step in steps]
    except InputError:
        return []


def inputs_of(steps: Sequence[Step], folder: Path | None) -> "Inputs":
    """Return what collects the inputs of steps; raise InputError if two outputs cannot lie in one folder."""
    names = [step.path.name for step in steps]
    if double := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"{double}: two outputs of the chain have this name; give one of them another with -o")
    return Inputs(folder, {step.path.resolve(): step.path.name for step in steps})


class Inputs:
    """The files that commands read, copied into one folder under names of their own.

    Args:
        folder: Where they go. None: they are only named.
        names: The names of those that commands of the chain write there.
    """

    def __init__(self, folder: Path | None, names: Mapping[Path, str]) -> None:
        self._folder, self._names = folder, dict(names)
        self.models: dict[str, dict[str, Any]] = {}
        """Tables of models.toml, by alias."""

    def name(self, path: Path) -> str:
        """Copy a file or folder, once; return its name there."""
        place = path.resolve()
        if place not in self._names:
            name = free_name(path.name, self._names.values())
            self._names[place] = name
            if self._folder is not None:
                copy(place, self._folder / name)
        return self._names[place]

    def in_text(self, text: str, near: Path) -> str:
        """Return the value of an option that may name a file, such as FILE#FIELD, with the name of the copy in it."""
        places = {part: place for part in spec_parts(text) for place in (Path(part), near / part) if is_there(place)}
        part = max(places, key=len, default="")
        return text.replace(part, self.name(places[part])) if part else text


def copy(source: Path, target: Path) -> None:
    """Copy a file or a folder, without what is hidden in it."""
    if source.is_dir():
        copytree(source, target, ignore=ignore_patterns(".*"))
    else:
        copyfile(source, target)


def free_name(name: str, names: Iterable[str]) -> str:
    """Return a name that no other file has."""
    stem, dot, ending = name.partition(".")
    names = set(names)
    number = next(number for number in range(1, 1_000_000) if numbered(stem, number) + dot + ending not in names)
    return numbered(stem, number) + dot + ending


def numbered(stem: str, number: int) -> str:
    return stem if number == 1 else f"{stem}-{number}"


def command_of(step: Step, inputs: Inputs) -> Command:
    """Return the command of a step with the names of others in it, and copy what it reads.

    Raises:
        InputError: It cannot be run by others.
    """
    values = {name: value for name, value in step.typed.items() if name not in OF_THE_RUN}
    if not step.typed:
        raise InputError(
            f"{step.path}: an earlier version made it, which did not record its command line; run its command again "
            "with --overwrite (recorded answers cost nothing)"
        )
    if "input" in values:
        values["input"] = input_name(step, inputs)
    name = str(step.meta["run"]["command"]["name"])
    call = parse(name, value_words(command_named(name), values), step)
    values |= published_models(step, call, inputs)
    for field in [*fields(call.options), *fields(call.run)]:
        value = values.get(field.name)
        if value is None or field.name == "model" or not (field.metadata.get("file") or "Path" in str(field.type)):
            continue
        near = step.path.parent
        values[field.name] = (
            [inputs.in_text(item, near) for item in value] if isinstance(value, list) else inputs.in_text(value, near)
        )
    return Command(name, value_words(command_named(name), {**values, "output": step.path.name}))


def input_name(step: Step, inputs: Inputs) -> str:
    """Return the name of the input among the files of others."""
    if is_on_hub(step.given_input):
        return step.given_input
    if step.source is None:
        what = "was read from standard input" if step.given_input == "standard input" else "is not there any more"
        raise InputError(
            f"{step.path}: its input {step.input_name} {what}, or is another file now, so nobody could run its command "
            "again. Keep each step in a file, or pack without --journal"
        )
    return inputs.name(step.source)


def command_named(name: str) -> Any:
    """Return the typer command of a name."""
    return Commands(name="datagen").build(name)


def parse(name: str, words: Sequence[str], step: Step) -> MethodCall:
    """Parse a command line.

    Raises:
        InputError: The command does not take it.
    """
    try:
        call = command_named(name).check_words(words, f"datagen {name}")
    except InputError as error:
        raise InputError(f"{step.path}: its command cannot be run again by this version: {error}") from None
    assert isinstance(call, MethodCall)
    return call


def published_models(step: Step, call: MethodCall, inputs: Inputs) -> dict[str, list[str]]:
    """Return the models of each role by what the journal knows of them: name and tag, and no address."""
    published: dict[str, list[str]] = {}
    for role, texts in step.meta["run"].get("models", {}).items():
        roles, stand_ins = call.method.roles, call.method.stand_ins
        others = [name for name in roles if not {name, stand_ins.get(name)} & call.role_models.keys()]
        known = [role] if role in step.fingerprint else others
        identities = next((step.fingerprint[name] for name in known if name in step.fingerprint), texts)
        params = next((step.fingerprint.get(f"params of {name}") for name in known if name in step.fingerprint), None)
        published[role] = [
            published_model(step, text, identity, own, inputs)
            for text, identity, own in zip(texts, identities, params or [{}] * len(texts), strict=True)
        ]
    return published


def published_model(step: Step, text: str, identity: str, params: Mapping[str, Any], inputs: Inputs) -> str:
    """Return the spec of a model for others.

    Raises:
        InputError: Nobody else has it.
    """
    if text == "sim" or text.startswith("sim:"):
        return text
    if text.startswith("replay:"):
        return "replay:" + inputs.in_text(text.removeprefix("replay:"), step.path.parent)
    if text.startswith("hf:"):
        if Path(text.removeprefix("hf:")).expanduser().is_dir():
            raise InputError(
                f"{step.path}: its model {text} is a folder of this machine, without which nobody can run the command; "
                "publish it and name it by its repository, or pack without --journal"
            )
        return text
    if not params:
        return f"{identity}@{NOWHERE}"
    name, _, tag = identity.partition("#")
    table = {"name": name.replace("%23", "#"), "url": NOWHERE, "params": params}
    inputs.models[text.partition("@")[0]] = table | ({"tag": tag} if tag else {})
    return text.partition("@")[0]


def models_toml(models: Mapping[str, Mapping[str, Any]]) -> str:
    """Write the tables of models as TOML."""
    tables = [
        "\n".join([f"[models.{json.dumps(alias)}]", *(f"{key} = {toml(value)}" for key, value in table.items())])
        for alias, table in models.items()
    ]
    return MODELS_HEAD + "\n" + "\n\n".join(tables) + "\n"


def toml(value: Any) -> str:
    """Write a value of JSON as TOML."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(item)}" for key, item in value.items()) + "}"
    return f"[{', '.join(map(toml, value))}]" if isinstance(value, list) else json.dumps(value, ensure_ascii=False)


def check_replay(step: Step, command: Command, folder: Path) -> None:
    """Run a command with the journal of its output, and compare; its answers are in the journal of `folder` then.

    Raises:
        InputError: The rows are not those of the output, or the command would send a request.
    """
    journal = (step.path.parent / JOURNAL).absolute()
    outcome = replay(step, command, folder, journal, ends_here=True)
    same = all(
        cmp(step.path.with_suffix(suffix), folder / step.path.with_suffix(suffix).name, shallow=False)
        for suffix in (".jsonl", ".rejected.jsonl")
        if step.path.with_suffix(suffix).exists()
    )
    if outcome.error or not same:
        reason = f": {outcome.error}" if outcome.error else ": other rows than those in the file, which was edited"
        raise InputError(f"{step.path}: its command does not make it again{reason}. Run it again, then pack")
    if outcome.result["funnel"]["failed"] and replay(step, command, folder, journal, ends_here=False).error:
        failed = sum(outcome.result["funnel"]["failed"].values())
        raise InputError(
            f"{step.path}: {failed:,} candidates failed, and its command asks a server for them whenever it is run. "
            "Run it until none fails, or pack without --journal"
        )


def replay(step: Step, command: Command, folder: Path, journal: Path, *, ends_here: bool) -> Outcome:
    """Run a command in a folder with a journal in the place of its models."""
    with chdir(folder):
        call = parse(command.name, command.words, step)
        with open_job(*call._replace(run=replace(call.run, overwrite=True))) as job:
            if lines := differences(step.fingerprint, job.fingerprint):
                raise InputError(f"{step.path}: its command would not be the same:\n  " + "\n  ".join(lines))
            if not job.roles:
                return asyncio.run(run_job(job, Quiet()))
            recorded = Recorded(journal, ends_here=ends_here)
            try:
                return asyncio.run(run_job(replace(job, gate=recorded.gate), Quiet()))
            finally:
                recorded.close()
