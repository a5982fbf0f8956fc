"""`datagen trace ID`: how a row was made, from its seed on.

Every row names its parents, so its history is in the files: the outputs of a folder, their rejected rows, and what went
through a pipe (.datagen/piped/). A seed is looked up in the input that an output names in x.meta.json.
"""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from rapidfuzz.distance import Levenshtein

from datagen.engine.options import option
from datagen.engine.output import read_meta
from datagen.errors import InputError
from datagen.llm.database import JOURNAL_FOLDER
from datagen.printing import printable
from datagen.records.files import open_file, open_input
from datagen.records.layout import unpack_row
from datagen.records.lines import loads_strictly, raw_lines
from datagen.records.reader import PROMPTS, Reader
from datagen.records.record import ID_LENGTH, Record, Row, request_text

ARGUMENTS = (("id", "The id of a row, or a prefix of it."),)
PLAIN = re.compile(r"[A-Za-z0-9_-]+")
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
    """All rows of a folder: of its outputs, those that went through a pipe included, and of their inputs.

    Nothing is held in memory: the files are searched for one id after another.
    """

    def __init__(self, folder: Path) -> None:
        self.outputs: list[Path] = []
        inputs: set[str] = set()
        for place in (folder, folder / JOURNAL_FOLDER / "piped"):
            for meta_path in sorted(place.glob("*.meta.json")):
                path = meta_path.with_name(meta_path.name.removesuffix(".meta.json") + ".jsonl")
                meta = read_meta(meta_path)
                if meta is not None and path.exists():
                    self.outputs.append(path)
                    inputs.add(str(meta["run"].get("input")))
        self.inputs = [folder / name for name in sorted(inputs)]

    def find(self, start: str) -> str:
        """Return the only id that begins with `start`."""
        if len(start) < LEAST_LETTERS:
            raise InputError(f"{start}: too short for an id; at least {LEAST_LETTERS} letters")
        ids = dict.fromkeys(row["id"] for _, row in self._rows_of_outputs(start))
        if start not in ids or len(start) < ID_LENGTH:  # the id may be that of a row of an input, or another one too
            ids |= dict.fromkeys(row["id"] for _, row in self._rows_of_inputs(start))
        if not ids:
            raise InputError(f"no row's id begins with {start} here; --folder names another folder of outputs")
        if len(ids) > 1:
            first = next(iter(ids))
            raise InputError(f"{start}: {len(ids)} rows have an id that begins so, such as {first}; give more letters")
        return str(next(iter(ids)))

    def path(self, name: str) -> list[Step]:
        """Return the rows from the seed to the one with this id."""
        steps: dict[str, Step] = {}
        while name not in steps and (step := self._step(name)):
            steps[name] = step
            name = next(iter((step.row.get("meta") or {}).get("parents") or []), "")
        for row in self._rejected_rows(list(steps)):
            steps[row["record"]["id"]].rejected.append(row)
        return list(steps.values())[::-1]

    def _step(self, name: str) -> Step | None:
        """Return the first row with an id: of the outputs, else of the inputs."""
        rows = chain(self._rows_of_outputs(name), self._rows_of_inputs(name)) if name else ()
        return next((Step(row, file) for file, row in rows if row["id"] == name), None)

    def _rows_of_outputs(self, start: str) -> Iterator[tuple[str, Row]]:
        """Yield the rows whose id begins so."""
        for path in self.outputs:
            for row in read_rows(path, [start]):
                if isinstance(row.get("id"), str) and row["id"].startswith(start):
                    yield str(path), row

    def _rows_of_inputs(self, start: str) -> Iterator[tuple[str, Row]]:
        """Yield the rows of inputs in any format, which have no ids of ours before they are read. A file that is gone,
        or of another kind (an output), is skipped."""
        for path in filter(Path.is_file, self.inputs):
            with open_input(str(path)) as file, suppress(InputError):
                for item in Reader(str(path), file, PROMPTS).read():
                    if isinstance(item, Record) and item.id.startswith(start):
                        row: Row = {"id": item.id, "prompt": item.prompt, "response": item.response, "meta": {}}
                        yield f"{path}:{item.line}", row

    def _rejected_rows(self, names: list[str]) -> Iterator[Row]:
        """Yield the rejected and failed candidates that were made from these rows."""
        for path in self.outputs if names else ():
            for row in read_rows(path.with_suffix(".rejected.jsonl"), names):
                parent = row.get("record")
                if isinstance(parent, dict) and parent.get("id") in names:
                    yield row


def read_rows(path: Path, texts: list[str]) -> Iterator[Row]:
    """Yield those rows of one of our files, which somebody may have edited, that may hold one of the texts; none if
    the file does not exist. Other lines are not parsed, which takes far longer than to search them."""
    if not path.is_file():
        return
    search = re.compile("|".join(map(plain_part, texts)).encode()).search
    with open_file(str(path)) as file:
        for _, raw in raw_lines(file):
            if search(raw):
                with suppress(ValueError, RecursionError):
                    row = loads_strictly(raw.decode())
                    if isinstance(row, dict):
                        yield unpack_row(row)


def plain_part(text: str) -> str:
    """Return the longest part of a text that JSON spells in one way, whoever writes it."""
    return max(PLAIN.findall(text), key=len, default="")


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
