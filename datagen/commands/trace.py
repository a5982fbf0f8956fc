"""`datagen trace ID`: how a row was made, from its seed on.

Every row names its parents, so its history is in the files: the outputs of a folder, their rejected rows, and what went
through a pipe (.datagen/piped/). A seed is looked up in the input that an output names in x.meta.json.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from rapidfuzz.distance import Levenshtein

from datagen.engine.options import option
from datagen.engine.output import read_meta
from datagen.errors import InputError
from datagen.llm.database import JOURNAL_FOLDER
from datagen.printing import printable
from datagen.records.files import open_file, open_input
from datagen.records.layout import unpack_row
from datagen.records.lines import json_lines
from datagen.records.reader import PROMPTS, Reader
from datagen.records.record import Record, Row, request_text

ARGUMENTS = (("id", "The id of a row, or a prefix of it."),)
LEAST_LETTERS = 4
MOST_WORDS = 5_000
"""Words of a prompt that are compared with its parent's."""
META_KEYS = ("op", "round", "model", "evolver", "judge", "teacher", "answer", "verified", "finish_reason")
"""The keys of `meta` that are printed."""


@dataclass(frozen=True)
class Options:
    """Options of `datagen trace`."""

    folder: Path = option(Path(), "Folder to search for the row.")
    json: bool = option(False, "Print the steps as JSON lines.")


@dataclass
class Step:
    """One row on the path from a seed."""

    row: Row
    file: str
    rejected: list[Row] = field(default_factory=list)
    """Rejected and failed candidates that were made from this row."""


class Archive:
    """All rows of a folder: of its outputs, those that went through a pipe included, and of their inputs."""

    def __init__(self, folder: Path) -> None:
        self.rows: dict[str, tuple[str, Row]] = {}
        """By id: the file and the row."""
        self.rejected: dict[str, list[Row]] = {}
        """By the id of the row that they were made from."""
        inputs: set[str] = set()
        for place in (folder, folder / JOURNAL_FOLDER / "piped"):
            for meta_path in sorted(place.glob("*.meta.json")):
                path = meta_path.with_name(meta_path.name.removesuffix(".meta.json") + ".jsonl")
                meta = read_meta(meta_path)
                if meta is not None and path.exists():
                    self._read_output(path)
                    inputs.add(str(meta["run"].get("input")))
        for name in sorted(inputs):
            self._read_input(folder / name)

    def _read_output(self, path: Path) -> None:
        """Read the rows of an output and its rejected rows."""
        for row in read_rows(path):
            if isinstance(row.get("id"), str):
                self.rows.setdefault(row["id"], (str(path), row))
        for row in read_rows(path.with_suffix(".rejected.jsonl")):
            parent = row.get("record")
            if isinstance(parent, dict):
                self.rejected.setdefault(str(parent.get("id")), []).append(row)

    def _read_input(self, path: Path) -> None:
        """Read the rows of an input in any format; a file that is gone, or of another kind (an output), is skipped."""
        if not path.is_file():
            return
        with open_input(str(path)) as file:
            try:
                items = list(Reader(str(path), file, PROMPTS).read())
            except InputError:
                return
            for item in items:
                if isinstance(item, Record):
                    row: Row = {"id": item.id, "prompt": item.prompt, "response": item.response, "meta": {}}
                    self.rows.setdefault(item.id, (f"{path}:{item.line}", row))

    def find(self, start: str) -> str:
        """Return the only id that begins with `start`."""
        ids = [name for name in self.rows if name.startswith(start)]
        if len(start) < LEAST_LETTERS:
            raise InputError(f"{start}: too short for an id; at least {LEAST_LETTERS} letters")
        if not ids:
            raise InputError(f"no row's id begins with {start} here; --folder names another folder of outputs")
        if len(ids) > 1:
            raise InputError(f"{start}: {len(ids)} rows have an id that begins so, such as {ids[0]}; give more letters")
        return ids[0]

    def path(self, name: str) -> list[Step]:
        """Return the rows from the seed to the one with this id."""
        steps: list[Step] = []
        while name in self.rows and all(step.row["id"] != name for step in steps):
            file, row = self.rows[name]
            steps.append(Step(row, file, self.rejected.get(name, [])))
            name = next(iter((row.get("meta") or {}).get("parents") or []), "")
        return steps[::-1]


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of one of our files, which somebody may have edited; none if it does not exist."""
    if path.is_file():
        with open_file(str(path)) as file:
            for line in json_lines(str(path), file):
                with suppress(ValueError):
                    if line.row is not None:
                        yield unpack_row(line.row)


def run(id: str, options: Options) -> int:
    """Print the path to a row; return the exit code."""
    archive = Archive(options.folder)
    parent: Step | None = None
    for step in archive.path(archive.find(id)):
        print(json.dumps(step.row) if options.json else printable("\n".join(step_lines(step, parent))))
        parent = step
    return 0


def step_lines(step: Step, parent: Step | None) -> Iterator[str]:
    """Describe a row: its origin, how its prompt differs from its parent's, its answers, the candidates rejected."""
    row = step.row
    meta = row.get("meta") or {}
    values = " · ".join(f"{key} {in_line(meta[key])}" for key in META_KEYS if meta.get(key) is not None)
    yield f"{in_line(row['id'])}  {in_line(meta.get('method', 'seed'))}  {values}".rstrip()
    yield f"  in {in_line(step.file)}"
    prompt = request_text(row["prompt"])
    yield from indented("prompt", word_diff(request_text(parent.row["prompt"]), prompt) if parent else prompt)
    answers = [("response", answer) for answer in row.get("responses") or []]
    for name, answer in answers or [(name, row.get(name)) for name in ("response", "chosen", "rejected")]:
        yield from indented(name, str(answer or ""))
    for candidate in step.rejected:
        status, reason, stage = (in_line(candidate[name]) for name in ("status", "reason", "stage"))
        yield f"  {status}: {reason} at {stage}"
        yield from indented("reply", str(candidate.get("reply") or ""))
    yield ""


def indented(name: str, text: str) -> Iterator[str]:
    """Yield a text under its name."""
    if text:
        yield f"  {name}"
        yield from (f"    {line}" for line in text.splitlines())


def in_line(value: object) -> str:
    """Write a value of someone's file in one line, so that it cannot look like a line of ours."""
    return str(value).replace("\n", "\\n")


def word_diff(before: str, after: str) -> str:
    """Mark the words that a text adds to another, {+added+}, and those that it lacks, [-removed-].

    Equal texts, and those of more than MOST_WORDS, are returned as they are.
    """
    old, new = before.split(), after.split()
    if old == new or max(len(old), len(new)) > MOST_WORDS:
        return after
    parts: list[str] = []
    for step in Levenshtein.opcodes(old, new):
        removed, added = old[step.src_start : step.src_end], new[step.dest_start : step.dest_end]
        if step.tag == "equal":
            parts += added
            continue
        parts += [f"[-{' '.join(removed)}-]"] if removed else []
        parts += [f"{{+{' '.join(added)}+}}"] if added else []
    return " ".join(parts)
