"""Run a whole command inside a test: real files, real journal, real sockets."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import fields
from hashlib import sha256
from pathlib import Path
from typing import Any

from datagen.commands.table import load_methods
from datagen.engine.job import Job, Outcome, open_job, run_job
from datagen.engine.method import Method
from datagen.engine.options import RunOptions
from datagen.engine.reasons import reason_sentence
from datagen.engine.scheduler import Engine
from datagen.engine.unobtained import ask_sentence
from datagen.errors import PARSER_ERROR
from datagen.records.files import dump_line
from datagen.records.layout import unpack_row
from datagen.records.record import BadLine, Candidate, Row

STRATEGIES = load_methods("respond")

STYLES = load_methods("evolve")


class Quiet:
    """An observer that keeps the bad lines and the engine, and prints nothing."""

    def __init__(self) -> None:
        self.bad: list[BadLine] = []
        self.engine: Engine | None = None

    def begin(self, job: Job, engine: Engine) -> None:
        self.engine = engine

    def bad_line(self, bad: BadLine) -> None:
        self.bad.append(bad)

    def failure(self, candidate: Candidate) -> None: ...


def write_seeds(count: int, path: str = "seeds.jsonl") -> Path:
    """Write `count` different seeds."""
    rows = ({"prompt": f"Describe thing number {i} in a few words."} for i in range(count))
    Path(path).write_bytes(b"".join(map(dump_line, rows)))
    return Path(path)


def evolve(
    seeds: Path,
    model: str | Sequence[str],
    output: str = "out.jsonl",
    *,
    rounds: int = 4,
    style: str = "general",
    lang: str = "auto",
    rule: Sequence[str] = ("all",),
    **run: Any,
) -> Outcome:
    """Run `datagen evolve` as its command does, without terminal output."""
    method = STYLES[style]
    options = method.options_type(rounds=rounds, lang=lang, rule=list(rule))
    return perform(method, seeds, model, output, options, **run)


def respond(
    prompts: Path, model: str | Sequence[str], output: str = "out.jsonl", *, strategy: str = "direct", **settings: Any
) -> Outcome:
    """Run `datagen respond`; `settings` holds the strategy's options and those of every run."""
    method = STRATEGIES[strategy]
    names = {field.name for field in fields(method.options_type)}
    options = {name: settings.pop(name) for name in list(settings) if name in names}
    return perform(method, prompts, model, output, method.options_type(**options), **settings)


def perform(
    method: type[Method], rows: Path | None, model: str | Sequence[str], output: str, options: Any, **run: Any
) -> Outcome:
    """Run a method as its command does, without terminal output; no rows for a method that reads none."""
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    models = [model] if isinstance(model, str) else list(model)
    run_options = RunOptions(output=output, model=models, **{"timeout": 1.0, **run})
    with open_job(method, str(rows) if rows else None, options, run_options, {}) as job:
        outcome = asyncio.run(run_job(job, Quiet()))
    funnel = outcome.result["funnel"]
    assert PARSER_ERROR not in funnel["failed"], f"{method.name}: a reader raised something else than ParseError"
    for reason in funnel["rejected"] | funnel["failed"]:
        assert reason_sentence(method, reason), f"{method.name}: the reason {reason!r} is not declared"
    for name in funnel["unobtained"]:
        assert ask_sentence(method, name).endswith(".")
    return outcome


def digest(path: str | Path) -> str:
    """Return the SHA-256 of an output: rows, rejected rows and result."""
    path = Path(path)
    result = json.loads(path.with_suffix(".meta.json").read_text())["result"]
    files = path.read_bytes() + path.with_suffix(".rejected.jsonl").read_bytes()
    return sha256(files + json.dumps(result, sort_keys=True).encode()).hexdigest()


def rows(path: str | Path) -> list[Row]:
    """Return the rows of an output as its method made them, or its rejected rows."""
    output = [unpack_row(json.loads(line)) for line in Path(path).read_bytes().splitlines()]
    return [row | {"record": unpack_row(row["record"])} if "record" in row else row for row in output]
