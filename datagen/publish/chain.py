"""The steps that led to outputs: each output, what it was made from, and so on, as far as the files are there.

An output names its input, and has the digest of it. A file that is another one by now ends the chain.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datagen.engine.output import read_meta
from datagen.errors import InputError
from datagen.records.files import input_digest, open_input
from datagen.records.hub import is_on_hub
from datagen.records.record import Row


@dataclass(frozen=True)
class Step:
    """A run of a command, and its output."""

    path: Path
    meta: Row
    """x.meta.json."""
    source: Path | None
    """The input; None where there is none, where it is on the hub, or where it is not there any more."""

    @property
    def result(self) -> Row:
        return dict(self.meta["result"])

    @property
    def fingerprint(self) -> Row:
        return dict(self.result["fingerprint"])

    @property
    def command(self) -> str:
        """The command and its variant, as `judge score`."""
        return str(self.fingerprint.get("command") or "")

    @property
    def given_input(self) -> str:
        """The input as it was named; "" for a command that reads nothing."""
        return str(self.meta["run"].get("input") or "")

    @property
    def input_name(self) -> str:
        """The name of the input without the folders that it is in."""
        name = self.given_input
        return name if is_on_hub(name) or not name else Path(name).name

    @property
    def typed(self) -> Row:
        """The values of its command line; empty where an earlier version made the output."""
        command = self.meta["run"].get("command")
        values = command.get("values") if isinstance(command, dict) else None
        return values if isinstance(values, dict) else {}

    @property
    def models(self) -> dict[str, dict[str, Any]]:
        """The models that answered, each with its roles and the number of answers."""
        models: dict[str, dict[str, Any]] = {}
        for part in self.result.get("spending", []):
            entry = models.setdefault(str(part["model"]), {"roles": [], "answers": 0})
            entry["roles"] = list(dict.fromkeys([*entry["roles"], str(part["role"])]))
            entry["answers"] += part["calls"]
        return models


def chain_of(outputs: Iterable[Path]) -> list[Step]:
    """Return the steps that led to outputs, each once and behind those that it needs.

    Raises:
        InputError: A file is no output of datagen.
    """
    steps: dict[Path, Step] = {}

    def visit(path: Path) -> None:
        place = path.resolve()
        meta = read_meta(path.with_suffix(".meta.json"))
        if place in steps or meta is None:
            return
        source = source_of(path, meta)
        if source:
            visit(source)
        steps[place] = Step(path, meta, source)

    for output in outputs:
        visit(output)
        if output.resolve() not in steps:
            raise InputError(f"{output}: has no {output.stem}.meta.json beside it, so nothing is known of its making")
    return list(steps.values())


def source_of(path: Path, meta: Row) -> Path | None:
    """Return the input of an output, if it is still the same; its name may count from the folder of the output."""
    name, digest = str(meta["run"].get("input") or ""), meta["result"]["fingerprint"].get("input")
    places = [] if not name or is_on_hub(name) else [Path(name), path.parent / name]
    return next((place for place in places if place.exists() and digest_of(place) == digest), None)


def digest_of(path: Path) -> str | None:
    """Return the digest of an input as a run records it; None if it cannot be read."""
    try:
        with open_input(str(path)) as file:
            return input_digest(file)
    except InputError:
        return None
