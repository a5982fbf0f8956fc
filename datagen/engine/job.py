"""One command from its options to its files: check everything, run the engine, put the files in place.

Nothing here touches the terminal; what there is to say is in the Outcome, or told to a Watcher while it happens.
"""

import asyncio
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from math import ceil
from pathlib import Path
from time import gmtime, monotonic, strftime
from typing import Any, BinaryIO, Literal, Protocol, cast

from datagen.engine.fold import Fold, Listener
from datagen.engine.method import Growing, Method
from datagen.engine.options import RunOptions
from datagen.engine.output import Output, differences, named_output, piped_output
from datagen.engine.scheduler import Engine, passes
from datagen.errors import InputError, Stopped
from datagen.llm.call import Call, Reply
from datagen.llm.model import ATTEMPTS, Model, Roles
from datagen.llm.spec import Spec, parse_spec
from datagen.llm.stack import StackOptions, build_stack
from datagen.llm.stop import Stop, StopReason
from datagen.prompts import Prompts
from datagen.records.files import content_digest, input_digest
from datagen.records.reader import Reader
from datagen.records.record import BadLine, Record, Row

Status = Literal["finished", "incomplete", "short", "stopped"]


class Watcher(Listener, Protocol):
    """Whoever wants to know how a run is going."""

    def begin(self, engine: Engine, job: "Job") -> None: ...

    def interrupted(self) -> None: ...

    def end(self) -> None: ...


@dataclass(frozen=True)
class Job:
    """A command, checked; nothing has been sent."""

    method: Method
    run: RunOptions
    reader: Reader[Record]
    roles: Mapping[str, Sequence[Spec]]
    output: Output
    fingerprint: Row
    """Everything that decides the rows, and the limits."""

    @property
    def is_done(self) -> bool:
        """Was exactly this done before? Raise InputError if something else was, under the same name."""
        earlier = None if self.run.overwrite else self.output.earlier()
        if earlier is None:
            return False
        found = differences(earlier["result"]["fingerprint"], self.fingerprint)
        if found:
            raise InputError(
                f"{self.output.path}: made by another command:\n  " + "\n  ".join(found) + "\n"
                "Choose another name with -o, or add --overwrite (recorded answers are free)."
            )
        same = earlier["result"]["fingerprint"] == self.fingerprint
        return same and earlier["result"]["status"] == "finished" and self.output.is_there


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    status: Status
    reason: StopReason | None
    result: Row
    """The same on every run of the command that finishes."""
    run: Row
    """What this run took."""
    tables: list[list[list[str]]]
    unrecorded: int
    """The most requests that a killed predecessor may have paid for without a record."""
    error: BaseException | None


@contextmanager
def planned(
    method_type: type[Method],
    input_name: str | None,
    options: Any,
    run: RunOptions,
    chosen: Mapping[str, Sequence[str]],
) -> Iterator[Job]:
    """Check a command and hold its input open, if it has one; `chosen` maps a role to the models that its own option
    names."""
    method = method_type(options, Prompts(run.prompts))
    with method.kind.open(input_name) if input_name else BytesIO() as file:
        method.check()
        if method.endless and run.n is None:
            raise InputError(f"{method.name} has no end: say how many rows with -n")
        reader = open_reader(method, input_name, file, run.format)
        roles = {role: [parse_spec(text) for text in chosen.get(role) or run.model] for role in method.roles}
        check_speakers(method, roles)
        fingerprint = {
            "command": f"{method.name} {method.variant}".strip(),
            **{name: told(value) for name, value in asdict(options).items()},
            **method.identity(),
            "input": input_digest(file),
            "format": reader.shape,
            **{name: getattr(run, name) for name in ("limit", "strict", "seed", "n", "max_calls", "max_failed")},
            "params": run.params,
            **{role: [spec.identity for spec in specs] for role, specs in roles.items()},
            **{f"prompt {name}": method.prompts[name].digest for name in method.templates},
        }
        output = open_output(method, input_name, run.output, fingerprint)
        yield Job(method, run, reader, roles, output, fingerprint)


def open_reader(method: Method, name: str | None, file: BinaryIO, shape: str | None) -> Reader[Record]:
    """Open what a method reads; one that reads nothing has an empty reader."""
    if name is None:
        return Reader("nothing", file, method.kind, next(iter(method.kind.shapes)))
    return Reader("standard input" if name == "-" else name, file, method.kind, shape)


def check_speakers(method: Method, roles: Mapping[str, Sequence[Spec]]) -> None:
    """Refuse an endpoint where a model has to speak as the user."""
    for role in method.speaks:
        if endpoint := next((spec for spec in roles[role] if spec.url), None):
            raise InputError(
                f"{method.name}: {endpoint.name} at {endpoint.url} cannot speak as the user, an endpoint only answers; "
                f"name local weights: --{role} hf:PATH"
            )


def told(value: Any) -> Any:
    """Return an option as the fingerprint tells it: a file by what is in it."""
    return content_digest(value) if isinstance(value, Path) else value


def open_output(method: Method, input_name: str | None, given: str | None, fingerprint: Row) -> Output:
    """Return where rows go: the name given, a name made of the input's and the method's, or standard output."""
    if given == "-" or (given is None and input_name == "-"):
        return piped_output(method.name, fingerprint)
    stem = f"{Path(input_name).stem}." if input_name else ""
    output = named_output(Path(given or f"{stem}{method.name}.jsonl"))
    if input_name not in (None, "-") and output.path.resolve() == Path(input_name).resolve():
        raise InputError(f"-o {output.path}: is the input")
    return output


async def execute(job: Job, watcher: Watcher) -> Outcome:
    """Run a job to its end, whatever that is; every request in flight is waited for and recorded."""
    run, output = job.run, job.output
    with output.writing():
        stack = build_stack(job.roles, StackOptions(output.folder, run.max_calls, run.in_flight, run.timeout))
        unrecorded = stack.journal.begin_run(output.name, lambda: stack.peak)
        fold = Fold(
            output,
            job.method.table(),
            memory=job.method.memory(),
            n=run.n,
            max_failed=run.max_failed if job.method.lag() is None else 0,
            listener=watcher,
        )
        engine = Engine(job.method, stack, fold, run.params)
        began, start = strftime("%Y-%m-%dT%H:%M:%SZ", gmtime()), monotonic()
        await _work(job, engine, watcher)
        outcome = conclude(job, engine, unrecorded, {"began": began, "seconds": round(monotonic() - start, 3)})
        output.finish({"result": outcome.result, "run": outcome.run})
        if outcome.status == "finished":
            job.method.finish(outcome.result)
    return outcome


async def _work(job: Job, engine: Engine, watcher: Watcher) -> None:
    run, stack = job.run, engine.stack
    method = job.method
    again = run.n is not None and not method.endless
    items = passes(job.reader.read, seed=run.seed, limit=run.limit, again=again, strict=run.strict)
    if method.endless:
        items = method.draw(items, cast(Growing, engine.fold.memory[0]), run.seed)
    watcher.begin(engine, job)
    try:
        with draining(stack.stop, watcher):
            await engine.run(items)
        stack.journal.end_run()
    finally:
        watcher.end()
        await stack.close()


def conclude(job: Job, engine: Engine, unrecorded: int, times: Row) -> Outcome:
    """Say how a run ended, after checking that nothing disappeared."""
    fold, stack, stop = engine.fold, engine.stack, engine.stop
    engine.check()
    fold.funnel.check(job.output.rows, job.output.drops)
    status = status_of(stop.reason, fold.funnel.failed.total())
    result = {
        "status": status,
        "fingerprint": job.fingerprint,
        "funnel": fold.funnel.as_dict(),
        "usage": asdict(fold.used),
        "table": fold.table.as_dict(),
    }
    took = {
        "input": job.reader.name,
        **times,
        "ended": stop.reason or "input",
        "records": engine.records,
        "requests": stack.sent,
        "replayed": stack.journal.replayed,
        "surplus": engine.surplus,
        "peak_in_flight": stack.peak,
    }
    return Outcome(status, stop.reason, result, took, fold.table.tables(), unrecorded, stop.error)


def status_of(reason: StopReason | None, failures: int) -> Status:
    """Finished means that nothing failed: the same command asks for the failed ones again."""
    if reason in (None, "enough"):
        return "incomplete" if failures else "finished"
    return "short" if reason == "stall" else "stopped"


@contextmanager
def draining(stop: Stop, watcher: Watcher) -> Iterator[None]:
    """Let the first Ctrl-C (or SIGTERM) end the run, and the second the process; both lose nothing."""
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)

    def on_signal() -> None:
        for name in signals:
            loop.remove_signal_handler(name)
            signal.signal(name, signal.SIG_DFL)
        stop.now("interrupted")
        watcher.interrupted()

    for name in signals:
        loop.add_signal_handler(name, on_signal)
    try:
        yield
    finally:
        for name in signals:
            loop.remove_signal_handler(name)


@dataclass(frozen=True)
class DryRun:
    """What would be done."""

    request: Row | None
    """The first one, as it would be sent."""
    records: int
    unreadable: int
    calls: int
    """If every answer is good."""
    most_calls: int


class _Probe:
    """A layer that keeps the first call and sends none."""

    def __init__(self) -> None:
        self.call: Call | None = None

    async def send(self, call: Call) -> Reply:
        self.call = call
        raise Stopped


def dry_run(job: Job) -> DryRun:
    """Render the first request and count the calls to expect; open no journal and send nothing."""
    run = job.run
    items = list(passes(job.reader.read, seed=run.seed, limit=run.limit, again=False, strict=run.strict))
    records = [item for item in items if isinstance(item, Record)]
    method = job.method
    if method.endless:
        first = _first_draw(job, iter(items))
        calls = method.bound(first[0]) * _draws(job)
    else:
        first, calls = records[:1], sum(map(method.bound, records))
    call = asyncio.run(_first_call(job, first[0])) if records or not job.method.reads else None
    request = {"model": call.model, "messages": call.messages, **call.params} if call else None
    return DryRun(request, len(records), len(items) - len(records), calls, calls * ATTEMPTS)


def _draws(job: Job) -> int:
    """Return the least number of draws that give as many rows as are wanted."""
    return ceil((job.run.n or 1) / job.method.candidates())


def _first_draw(job: Job, items: Iterator[Record | BadLine]) -> list[Record]:
    """Return the first record that is drawn of the input, as it will be opened."""
    pool = cast(Growing, job.method.memory()[0])
    drawn = job.method.draw(items, pool, job.run.seed)
    record = next(item for item in drawn if isinstance(item, Record))
    return [record if job.method.lag() is None else replace(record, view=pool.view(len(pool)))]


async def _first_call(job: Job, record: Record) -> Call | None:
    probe = _Probe()
    models = {role: [Model(spec.identity, probe) for spec in specs] for role, specs in job.roles.items()}
    try:
        async for _ in job.method.generate(record, Roles(models, record, job.run.params)):
            break
    except Stopped:
        pass
    return probe.call
