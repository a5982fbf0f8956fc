"""`datagen trace ID`: how a row came about, from its seed on.

Every row names its parents, so the way back is in the files: the outputs of a folder, what was dropped beside them, and
what went through a pipe (.datagen/piped/). A seed is found in the input that an output names in x.meta.json.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from itertools import pairwise
from pathlib import Path

from datagen.commands.terminal import printable
from datagen.engine.options import option
from datagen.errors import InputError
from datagen.llm.journal import JOURNAL_FOLDER
from datagen.records.files import open_input
from datagen.records.reader import PROMPTS, Reader
from datagen.records.record import Record, Row, request_text

ARGUMENTS = (("id", "The id of a row, or its first letters."),)
LEAST_LETTERS = 4
TOLD = ("op", "round", "model", "evolver", "judge", "teacher", "answer", "verified", "finish_reason")
"""What of `meta` is worth a line."""


@dataclass(frozen=True)
class Options:
    """What `datagen trace` can be told."""

    folder: Path = option(Path(), "The folder whose outputs are searched.")
    json: bool = option(False, "Print the steps as JSON lines.")


@dataclass
class Step:
    """One row on the way."""

    row: Row
    file: str
    dropped: list[Row] = field(default_factory=list)
    """What was tried from this row and came to nothing."""


class Archive:
    """All rows of a folder, by id."""

    def __init__(self, folder: Path) -> None:
        self.rows: dict[str, tuple[str, Row]] = {}
        self.dropped: dict[str, list[Row]] = {}
        inputs: set[str] = set()
        for path in outputs(folder):
            self._read(path)
            inputs.add(str(json.loads(path.with_suffix(".meta.json").read_bytes())["run"].get("input")))
        for name in sorted(inputs):
            self._read_input(folder / name)

    def _read(self, path: Path) -> None:
        """Read an output and what lies beside it."""
        for row in lines(path):
            if isinstance(row.get("id"), str):
                self.rows.setdefault(row["id"], (str(path), row))
        for row in lines(path.with_suffix(".rejected.jsonl")):
            about: Row = row.get("record") or {}
            self.dropped.setdefault(str(about.get("id")), []).append(row)

    def _read_input(self, path: Path) -> None:
        """Read the rows of an input, whatever their shape; what is no longer there is not known."""
        if not path.is_file():
            return
        with open_input(str(path)) as file:
            try:
                items = list(Reader(str(path), file, PROMPTS).read())
            except InputError:
                return  # rows of another kind: an output, which is known already
            for item in items:
                if isinstance(item, Record):
                    row: Row = {"id": item.id, "prompt": item.prompt, "response": item.response, "meta": {}}
                    self.rows.setdefault(item.id, (f"{path}:{item.line}", row))

    def find(self, start: str) -> str:
        """Return the one id that begins so."""
        found = [name for name in self.rows if name.startswith(start)]
        if len(start) < LEAST_LETTERS or len(found) != 1:
            raise InputError(f"{start}: {len(found)} rows have an id that begins so; name one, with 4 letters or more")
        return found[0]

    def way(self, name: str) -> list[Step]:
        """Return the rows from the seed to the one named."""
        steps: list[Step] = []
        while name in self.rows and all(step.row["id"] != name for step in steps):
            file, row = self.rows[name]
            steps.append(Step(row, file, self.dropped.get(name, [])))
            name = next(iter((row.get("meta") or {}).get("parents") or []), "")
        return steps[::-1]


def outputs(folder: Path) -> list[Path]:
    """Return the outputs of a folder, those that went through a pipe included."""
    found = [*sorted(folder.glob("*.meta.json")), *sorted((folder / JOURNAL_FOLDER / "piped").glob("*.meta.json"))]
    paths = [path.with_name(path.name.removesuffix(".meta.json") + ".jsonl") for path in found]
    return [path for path in paths if path.exists()]


def lines(path: Path) -> Iterator[Row]:
    """Yield the rows of a file of ours."""
    if path.exists():
        with path.open("rb") as file:
            yield from (json.loads(line) for line in file if line.strip())


def run(id: str, options: Options) -> int:
    """Print the way to a row; return the exit code."""
    archive = Archive(options.folder)
    steps = archive.way(archive.find(id))
    told: Iterable[str] = [json.dumps(step.row, ensure_ascii=True) for step in steps] if options.json else tell(steps)
    print("\n".join(told))
    return 0


def tell(steps: list[Step]) -> Iterator[str]:
    """Write the way as text: the first prompt, then what changed from parent to child, then the reply."""
    yield from tell_step(steps[0], None)
    for before, after in pairwise(steps):
        yield from tell_step(after, before)


def tell_step(step: Step, before: Step | None) -> Iterator[str]:
    meta = step.row.get("meta") or {}
    told = " · ".join(f"{name} {printable(meta[name])}" for name in TOLD if meta.get(name) is not None)
    yield f"{step.row['id']}  {meta.get('method', 'seed')}  {told}".rstrip()
    yield f"  in {step.file}"
    now = request_text(step.row["prompt"])
    then = request_text(before.row["prompt"]) if before else now
    yield from indented("prompt", word_diff(then, now))
    for name, reply in replies(step.row):
        yield from indented(name, reply)
    for drop in step.dropped:
        yield f"  {drop['status']}: {printable(drop['reason'])} at {drop['stage']}"
        yield from indented("reply", str(drop.get("reply") or ""))
    yield ""


def replies(row: Row) -> list[tuple[str, str]]:
    """Return the answers that a row holds, and what they are."""
    one = [(name, row.get(name)) for name in ("response", "chosen", "rejected")]
    many = [("response", reply) for reply in row.get("responses") or []] or one
    return [(name, str(reply)) for name, reply in many if reply]


def indented(name: str, text: str) -> Iterator[str]:
    """Write a text under its name; nothing of it reaches the terminal raw."""
    if text:
        yield f"  {name}"
        yield from (f"    {printable(line)}" for line in text.splitlines())


def word_diff(before: str, after: str) -> str:
    """Write a text with what it adds to another and what it lacks: {+added+} [-removed-]."""
    old, new = before.split(), after.split()
    if old == new:
        return after
    parts: list[str] = []
    for tag, i, j, k, m in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            parts += new[k:m]
            continue
        parts += [f"[-{' '.join(old[i:j])}-]"] if i < j else []
        parts += [f"{{+{' '.join(new[k:m])}+}}"] if k < m else []
    return " ".join(parts)
