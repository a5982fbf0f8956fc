"""`datagen filter`: keep the rows that no rule drops. No model is asked; a kept row is the very row that came in.

Rules look at one row (filters/heuristics.py), verifiers check its response (verify/), `--against` looks for the
questions of benchmarks in it (filters/contamination.py), and `--dedup` compares it with every row kept before it
(filters/novelty.py). The first rule that drops a row is its reason. With `--tag` rules, verifiers and benchmarks drop
nothing: all that they find stands in `meta.tags`.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from datagen.engine.method import Memory, Method, Table
from datagen.engine.options import option
from datagen.errors import InputError
from datagen.llm.model import Roles
from datagen.prompts import Prompts
from datagen.records.files import content_digest, open_input
from datagen.records.lines import json_lines
from datagen.records.reader import PROMPTS, Reader
from datagen.records.record import BadLine, Candidate, Record, Row, keep, reject, request_text
from datagen.select.contamination import Benchmark, Hit, Index, Tally
from datagen.select.heuristics import FILTERS
from datagen.select.novelty import Novelty
from datagen.verify import pick_verifier

ALL, NONE = "all", "none"


@dataclass(frozen=True)
class Options:
    """What filtering can be told."""

    rule: list[str] = option([ALL], f"Rules to apply: all, none, or {', '.join(FILTERS)}. Repeat it for more.")
    verify: list[str] = option([], "Drop what a verifier says is wrong: answer, equations, constraints and others.")
    only_verified: bool = option(False, "Drop what a verifier does not know about as well.")
    dedup: float | None = option(
        None,
        "Drop a prompt whose ROUGE-L F with an earlier one is above this: 0.7 as Self-Instruct; 1: only equal ones.",
        least=0,
        most=1,
    )
    against: list[str] = option(
        [],
        "A benchmark's file, or FILE#FIELD,FIELD to say where its questions stand: drop rows that contain them. "
        "Repeat it for more.",
    )
    tag: bool = option(False, "Drop nothing, but for --dedup: write what was found into meta.tags.")


def rules(options: Options) -> list[str]:
    """Return the names of the rules to apply."""
    unknown = [name for name in options.rule if name not in (*FILTERS, ALL, NONE)]
    if unknown:
        raise InputError(f"--rule {unknown[0]}: expected all, none, or one of {', '.join(FILTERS)}")
    return [name for name in FILTERS if ALL in options.rule or name in options.rule]


def questions(spec: str) -> list[str]:
    """Read the questions of a benchmark, FILE or FILE#FIELD,FIELD; one that cannot be read ends the run, since it could
    not be looked for."""
    path, _, fields = spec.partition("#")
    with open_input(path) as file:
        told = list(_fields(path, file, fields.split(",")) if fields else _requests(path, file))
    if not told:
        raise InputError(f"--against {spec}: holds no question")
    return told


def _requests(path: str, file: BinaryIO) -> Iterator[str]:
    """Yield what is asked in the rows of a file of any shape that is known."""
    otherwise = f"or name the fields that hold its questions: --against {path}#FIELD,FIELD"
    try:
        reader = Reader(path, file, PROMPTS)
    except InputError as error:
        raise InputError(f"{error}; {otherwise}") from error
    for row in reader.read():
        if isinstance(row, BadLine):
            raise InputError(f"{row}; mend the line, {otherwise}")
        yield request_text(row.prompt)


def _fields(path: str, file: BinaryIO, names: Sequence[str]) -> Iterator[str]:
    """Yield some fields of each row, joined by a blank."""
    for line in json_lines(path, file):
        parts = [(line.row or {}).get(name) for name in names]
        if not all(isinstance(part, str) and part.strip() for part in parts):
            raise InputError(f"{path}:{line.number}: {line.problem or 'no text as ' + ', '.join(names)}")
        yield " ".join(map(str, parts))


@cache
def benchmarks(specs: tuple[str, ...]) -> tuple[list[Benchmark], Index]:
    """Read all benchmarks, once; they are called by their files' names, or by all of the path where two share one."""
    paths = [spec.partition("#")[0] for spec in specs]
    stems = [Path(path).stem for path in paths]
    names = [path if stems.count(stem) > 1 else stem for path, stem in zip(paths, stems, strict=True)]
    read = [Benchmark(name, questions(spec)) for name, spec in zip(names, specs, strict=True)]
    return read, Index(read)


def contained(record: Record, options: Options) -> list[Hit]:
    """Return the benchmark questions that a row contains."""
    return benchmarks(tuple(options.against))[1].hits(record.prompt) if options.against else []


def findings(record: Record, options: Options, hits: Sequence[Hit]) -> Iterator[str]:
    """Yield the name of everything that speaks against a row."""
    yield from (found for name in rules(options) if (found := FILTERS[name](record)))
    for name in options.verify:
        verdict = pick_verifier(name)(record, record.response or "")
        if verdict is False:
            yield f"wrong:{name}"
        elif verdict is None and options.only_verified:
            yield f"unverified:{name}"
    yield from dict.fromkeys(f"contaminated:{hit.benchmark}" for hit in hits)


async def filter_rows(record: Record, llm: Roles, prompts: Prompts, options: Options) -> AsyncIterator[Candidate]:
    """Yield the row, kept or dropped."""
    hits = contained(record, options)
    found = list(findings(record, options, hits))
    if found and not options.tag:
        about = {"id": record.id, "prompt": record.prompt, "hits": [hit._asdict() for hit in hits]}
        yield reject(found[0], stage="filter", record=about, reply=record.response, meta=record.meta)
    else:
        tags = {"tags": found, "hits": [hit._asdict() for hit in hits]} if options.tag else {}
        yield keep(as_row(record, tags))


def as_row(record: Record, tags: Row) -> Row:
    """Return the row that a record was read from, in our own shape."""
    said = {} if record.response is None else {"response": record.response}
    meta = record.meta or {"method": "input", "parents": [], "source_id": record.source_id}
    return {"id": record.id, "prompt": record.prompt, **said, "meta": meta | tags, **record.extra}


def memory(options: Options) -> list[Memory]:
    return [Novelty(options.dedup)] if options.dedup is not None else []


class BenchmarkTable:
    """What was found of each benchmark."""

    def __init__(self, options: Options) -> None:
        self._tally = Tally(benchmarks(tuple(options.against))[0])

    def add(self, candidate: Candidate) -> None:
        told = candidate.row["meta"] if candidate.status == "kept" else candidate.row["record"]
        self._tally.add([Hit(**hit) for hit in told.get("hits") or []])

    def as_dict(self) -> dict[str, Any]:
        return self._tally.as_dict()

    def tables(self) -> list[list[list[str]]]:
        heading = ["benchmark", "rows with a question of it", "questions found", "of", ""]
        told = [
            [name, str(each["rows"]), str(each["found"]), str(each["questions"]), verdict(each)]
            for name, each in self._tally.as_dict().items()
        ]
        return [[heading, *told]] if told else []


def verdict(found: Row) -> str:
    return "contaminated" if found["contaminated"] else "clean"


def prepare(options: Options) -> None:
    rules(options)
    for name in options.verify:
        pick_verifier(name)
    benchmarks.cache_clear()
    benchmarks(tuple(options.against))


class Filter(Method):
    """filter."""

    name = "filter"
    options_type = Options
    options: Options

    def generate(self, record: Record, llm: Roles) -> AsyncIterator[Candidate]:
        return filter_rows(record, llm, self.prompts, self.options)

    def identity(self) -> dict[str, Any]:
        return {"against": {spec: content_digest(Path(spec.partition("#")[0])) for spec in self.options.against}}

    def memory(self) -> Sequence[Memory]:
        return memory(self.options)

    def check(self) -> None:
        prepare(self.options)

    def table(self) -> Table:
        return BenchmarkTable(self.options)
