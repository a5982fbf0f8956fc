"""One command from its options to its files: check everything, run the engine, put the files in place.

Nothing here touches the terminal: results are in the Outcome, and a RunObserver hears of events during the run.
"""

import asyncio
import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from math import ceil
from pathlib import Path
from time import gmtime, monotonic, strftime
from typing import Any, Literal, cast

from datagen.engine.fold import RunObserver
from datagen.engine.method import GrowingMemory, Method
from datagen.engine.options import RunOptions
from datagen.engine.output import Output, named_output, piped_output
from datagen.engine.scheduler import Engine, read_passes
from datagen.errors import InputError, Stopped
from datagen.llm.budget import StopReason
from datagen.llm.call import Call, Reply
from datagen.llm.model import ATTEMPTS, Model, Roles
from datagen.llm.spec import Spec, parse_spec
from datagen.llm.stack import StackOptions, build_stack
from datagen.prompts import Prompts
from datagen.records.files import content_digest, input_digest
from datagen.records.reader import Reader
from datagen.records.record import Record, Row

GC_THRESHOLDS = 50_000, 20, 100
"""Thousands of open calls are no garbage, and scanning them again and again took a fifth of a run."""
Status = Literal["finished", "incomplete", "short", "stopped"]


@dataclass(frozen=True)
class Job:
    """A command that has been checked; nothing has been sent."""

    method: Method
    run: RunOptions
    reader: Reader[Record]
    roles: Mapping[str, Sequence[Spec]]
    output: Output
    fingerprint: Row
    """Whatever decides the rows, and the limits."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended, once its files are in place."""

    status: Status
    reason: StopReason | None
    """Why it ended early; None if the input was read to its end."""
    result: Row
    """The same on every run of the command that finishes."""
    run: Row
    """Times and numbers of requests of this run."""
    tables: list[list[list[str]]]
    """The method's tables, to be printed."""
    next_command: str
    """What to run on the output; `{}` stands for its name."""
    unrecorded: int
    """The most requests that an earlier, killed run may have paid for without a record."""
    error: BaseException | None


@contextmanager
def open_job(
    method_type: type[Method],
    input_name: str | None,
    options: Any,
    run: RunOptions,
    role_models: Mapping[str, Sequence[str]],
) -> Iterator[Job]:
    """Check a command and hold its input open.

    Args:
        method_type: The method to run.
        input_name: The input file, "-" for standard input, None for a method that reads nothing.
        options: The method's options, an instance of its `options_type`.
        run: The options that all methods share.
        role_models: Model specs by role, for roles whose model differs from `run.model`.

    Raises:
        InputError: An option, the input, a prompt or a model cannot be used.
    """
    # 1. The prompts, the input and the method's options.
    prompts = Prompts(run.prompts)
    prompt_digests = {f"prompt {name}": prompts[name].digest for name in method_type.templates}
    method = method_type(options, prompts)
    with method.kind.open(input_name) if input_name else BytesIO() as file:
        input_sha256 = input_digest(file)
        method.check()
        if method.endless and run.n is None:
            raise InputError(f"{method.name} has no end: give the number of rows with -n")
        if input_name is None:
            reader = Reader("nothing", file, method.kind, next(iter(method.kind.shapes)))
        else:
            reader = Reader("standard input" if input_name == "-" else input_name, file, method.kind, run.format)

        # 2. The models of each role. An endpoint only answers, so it cannot speak as the user.
        roles = {role: [parse_spec(text) for text in role_models.get(role) or run.model] for role in method.roles}
        for role in method.speaks_as_user:
            if endpoint := next((spec for spec in roles[role] if spec.url), None):
                raise InputError(
                    f"{method.name}: {endpoint.name} at {endpoint.url} cannot speak as the user, an endpoint only "
                    f"answers; use local weights: --{role} hf:PATH"
                )

        # 3. The fingerprint: whatever decides the rows. A file counts by its contents.
        fingerprint = {
            "command": f"{method.name} {method.variant}".strip(),
            **{k: content_digest(v) if isinstance(v, Path) else v for k, v in asdict(options).items()},
            **method.identity(),
            "input": input_sha256,
            "format": reader.shape,
            **{name: getattr(run, name) for name in ("limit", "strict", "seed", "n", "max_calls", "max_failed")},
            "params": run.params,
            **{role: [spec.identity for spec in specs] for role, specs in roles.items()},
            **prompt_digests,
        }

        # 4. The output: that of -o, a file named after the input and the command, or standard output.
        if run.output == "-" or (run.output is None and input_name == "-"):
            output = piped_output(method.name, fingerprint)
        else:
            stem = f"{Path(input_name).stem}." if input_name else ""
            output = named_output(Path(run.output or f"{stem}{method.name}.jsonl"))
            if input_name not in (None, "-") and output.path.resolve() == Path(input_name).resolve():
                raise InputError(f"-o {output.path}: is the input")
        yield Job(method, run, reader, roles, output, fingerprint)


def tune_garbage_collector() -> None:
    """Exempt all objects made at start-up from garbage collection, and collect less often. Call once, before a run."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


async def run_job(job: Job, observer: RunObserver) -> Outcome:
    """Run a job to its end and put its files in place; every request in flight is waited for and recorded.

    Args:
        job: The command.
        observer: Hears of the beginning, of failures and of bad lines.

    Raises:
        DatagenError: Another process is writing the output, or the journal cannot be used.
        InputError: A model cannot be opened.
    """
    run, method, output = job.run, job.method, job.output
    with output.open_parts():
        # 1. Build the layers below the method, and the engine.
        limits = run.max_calls, run.in_flight, run.timeout
        stack = build_stack(job.roles, StackOptions(output.folder, *limits, output.path.name))
        engine = Engine(method, run, stack, output, observer)
        fold = engine.fold
        began, start = strftime("%Y-%m-%dT%H:%M:%SZ", gmtime()), monotonic()

        # 2. Run. The items are the rows of the input, or what an endless method draws from them.
        again = run.n is not None and not method.endless
        items = read_passes(job.reader.read, seed=run.seed, limit=run.limit, again=again, strict=run.strict)
        if method.endless:
            items = method.draw(items, cast(GrowingMemory, fold.memory[0]), run.seed)
        observer.begin(job, engine)
        drained = False
        try:
            await engine.run(items)
            reason, traffic, drained = engine.stop.reason, stack.traffic, True
        finally:
            await stack.close(drained=drained)
        seconds = round(monotonic() - start, 3)

        # 3. Conclude. Finished means that nothing failed: the same command asks for the failed ones again.
        status: Status = "short" if reason == "stall" else "stopped"
        if reason in (None, "enough"):
            status = "incomplete" if fold.funnel.failed else "finished"
        fold.funnel.check(output.rows, output.rejected_rows)
        result = {
            "status": status,
            "fingerprint": job.fingerprint,
            "funnel": fold.funnel.as_dict(),
            "usage": asdict(fold.usage),
            "table": fold.table.as_dict(),
        }
        tables = fold.table.tables()
        run_row = {
            "input": job.reader.name,
            "began": began,
            "seconds": seconds,
            "ended": reason or "input",
            "records": engine.records,
            "requests": traffic.sent,
            "replayed": stack.journal.replayed,
            "surplus": engine.surplus,
            "peak_in_flight": traffic.peak,
        }
        output.finish({"result": result, "run": run_row})
        if status == "finished":
            method.finish(result)
    return Outcome(
        status, reason, result, run_row, tables, method.next_command, stack.journal.unrecorded, engine.stop.error
    )


@dataclass(frozen=True)
class DryRun:
    """What a run would do."""

    request: Row | None
    """The first request, as it would be sent."""
    records: int
    unreadable: int
    calls: int
    """Expected for one pass, if every answer is good."""
    most_calls: int


class FirstCall:
    """A layer that keeps the first call and sends none."""

    def __init__(self) -> None:
        self.call: Call | None = None

    async def send(self, call: Call) -> Reply:
        self.call = call
        raise Stopped


def dry_run(job: Job) -> DryRun:
    """Render the first request and count the calls to expect; open no journal and send nothing."""
    method, run = job.method, job.run
    items = list(read_passes(job.reader.read, seed=run.seed, limit=run.limit, again=False, strict=run.strict))
    records = [item for item in items if isinstance(item, Record)]
    if method.endless:
        pool = cast(GrowingMemory, method.memory()[0])
        first = next(item for item in method.draw(iter(items), pool, run.seed) if isinstance(item, Record))
        if method.lag is not None:
            first = replace(first, view=pool.view(len(pool)))
        calls = method.bound(first) * ceil((run.n or 1) / method.candidates)
        usable = [first] if records or not method.reads_input else []
    else:
        usable, calls = records, sum(map(method.bound, records))
    call = asyncio.run(first_call(job, usable[0])) if usable else None
    request = {"model": call.model, "messages": call.messages, **call.params} if call else None
    return DryRun(request, len(records), len(items) - len(records), calls, calls * ATTEMPTS)


async def first_call(job: Job, record: Record) -> Call | None:
    """Return the first call that the method makes for a record, without sending it."""
    layer = FirstCall()
    models = {role: [Model(spec.identity, layer) for spec in specs] for role, specs in job.roles.items()}
    try:
        async for _ in job.method.generate(record, Roles(models, record, job.run.params)):
            break
    except Stopped:
        pass
    return layer.call
