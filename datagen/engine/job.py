"""One command from its options to its files: check everything, run the engine, put the files in place.

Nothing here touches the terminal: results are in the Outcome, and a RunObserver hears of events during the run.
"""

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from io import BytesIO
from itertools import islice
from pathlib import Path
from time import gmtime, monotonic, strftime
from typing import TYPE_CHECKING, Any, Literal, cast

from datagen.engine.batches import batch_options, batch_states, run_with_batches, with_earlier
from datagen.engine.fold import RunObserver
from datagen.engine.method import GrowingMemory, Method
from datagen.engine.options import RunOptions, file_values
from datagen.engine.output import Output, job_digest, named_output, piped_output
from datagen.engine.ray_cluster import RayAddress, choose_ray
from datagen.engine.scheduler import Engine, read_passes
from datagen.engine.shards import NoFiles, Shard, choose_shard
from datagen.errors import InputError, Stopped
from datagen.llm.batches.options import BatchOptions
from datagen.llm.budget import StopReason
from datagen.llm.call import Call, Layer, Reply
from datagen.llm.model import JUDGE_PARAMS, Model, Roles
from datagen.llm.models_file import MODELS_FILE
from datagen.llm.parameters import LENGTHS
from datagen.llm.prices import PriceTag, price_tags
from datagen.llm.spec import Spec, parse_spec
from datagen.llm.stack import StackOptions, build_stack, ungated
from datagen.prompts import Prompts
from datagen.records.columns import parse_map
from datagen.records.files import content_digest, input_digest
from datagen.records.places import paths_in, refuse_overlap
from datagen.records.reader import Reader
from datagen.records.record import Record, Row

if TYPE_CHECKING:
    from datagen.engine.ray_driver import Driver

GC_THRESHOLDS = 50_000, 20, 100
"""Thousands of open calls are no garbage, and scanning them again and again took a fifth of a run."""
COMPLETE = (None, "enough", "stall")
"""The reasons of a run that nothing has stopped."""
ENDED = (*COMPLETE, "failures", "in vain")
"""The reasons of a run that came to its end; after any other, the next run continues it."""
Status = Literal["finished", "incomplete", "short", "stopped"]


@dataclass(frozen=True)
class Job:
    """A command that has been checked; nothing has been sent."""

    method: Method
    run: RunOptions
    reader: Reader[Record]
    models: Mapping[str, Sequence[str]]
    """The specs as they were given: "model" for every role, and the roles with models of their own."""
    roles: Mapping[str, Sequence[Spec]]
    tags: Mapping[str, PriceTag]
    """The price of each model, by its identity."""
    output: Output
    fingerprint: Row
    """Whatever decides the rows, and the limits."""
    shard: Shard | None = None
    """The part of the input that is asked for; None is all of it."""
    batch: BatchOptions = BatchOptions()
    """Whether its calls go into batches."""
    ray: RayAddress | None = None
    """Where the workers are; None for a run without them."""
    command: Row = field(default_factory=dict)
    """The command line: its `name`, and the `values` that differ from the defaults; empty where none was typed."""
    gate: Callable[[Layer], Layer] = ungated
    """Returns what stands between the journal and the layer that sends the calls of a model."""


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
    unrecorded: int
    """The most answers that an earlier, killed run may have paid for without a record."""
    notes: list[str]
    """What is to be said about the journal, the servers and the rows."""
    error: BaseException | None
    rows_in_place: int | None = None
    """The number of rows of the earlier run that stay in place, since they account for more than those of this run."""


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
    prompts = Prompts(run.prompts, method_type.prompt_folder)
    prompt_digests = {f"prompt {name}": prompts[name].digest for name in method_type.templates}
    method = method_type(options, prompts)
    with method.kind.open(input_name) if input_name else BytesIO() as file:
        input_sha256 = input_digest(file)
        method.check()
        refuse_unused_params(method, run)
        if method.endless and run.n is None:
            raise InputError(f"{method.name} has no end: give the number of rows with -n")
        if input_name is None:
            reader = Reader("nothing", file, method.kind, next(iter(method.kind.shapes)))
        else:
            name = "standard input" if input_name == "-" else input_name
            reader = method.read_input(name, file, run.format, parse_map(run.map))

        # 2. The models of each role.
        roles = choose_models(method, run, role_models)
        tags = price_tags((spec for specs in roles.values() for spec in specs), run.price)
        if run.max_cost is not None:
            refuse_unknown_price(roles, tags)
        refuse_conflict(method, reader, run, roles)

        # 3. The fingerprint: whatever decides the rows. A file counts by its contents.
        fingerprint = {
            "command": f"{method.name} {method.variant}".strip(),
            **{k: content_digest(v) if isinstance(v, Path) else v for k, v in asdict(options).items()},
            **method.identity(),
            **({"code": method.origin} if method.origin else {}),
            **{f"code of {function.name}": function.identity for function in method.plugins},
            "input": input_sha256,
            "format": reader.shape,
            **({"map": run.map} if run.map else {}),
            **{name: getattr(run, name) for name in ("limit", "strict", "seed", "n", "max_calls", "max_cost")},
            "max_failed": run.failure_limit,
            "params": run.params,
            **model_params(roles),
            **({"judge params": run.judge_params} if run.judge_params else {}),
            **{role: [spec.identity for spec in specs] for role, specs in roles.items()},
            **prompt_digests,
        }

        # 4. The output: a file, or standard output; of a shard none.
        shard = choose_shard(method, run, asks_models=bool(roles))
        if run.output in (None, "-"):
            output = piped_output(method.name, fingerprint)
        else:
            output = named_output(Path(str(run.output)))
        batch = batch_options(method, run, roles, output)
        if shard:
            output = NoFiles(output.path, output.folder)
        named = paths_in([input_name, file_values(options), file_values(run), role_models])
        refuse_overlap(output.touched, named, input_name)
        output.refuse_strangers()
        models = {name: specs for name, specs in {"model": run.model, **role_models}.items() if specs}
        ray = choose_ray(method, run, roles)
        yield Job(method, run, reader, models, roles, tags, output, fingerprint, shard, batch, ray)


def choose_models(method: Method, run: RunOptions, role_models: Mapping[str, Sequence[str]]) -> dict[str, list[Spec]]:
    """Return the models of each role that the options need; an endpoint only answers, so it cannot speak as the user.

    Raises:
        InputError: A model cannot be used in its role, or is given for a role that asks nothing.
    """
    if unused := role_models.keys() - method.roles_in_use.keys():
        command = f"{method.name} {method.variant}".strip()
        raise InputError(f"--{min(unused)}: with these options, {command} asks no such model")
    default = [] if method.embeds else run.model
    texts = {role: models_of(method, role, role_models) or default for role in method.roles_in_use}
    if method.embeds and (missing := next((role for role, specs in texts.items() if not specs), None)):
        raise InputError(
            f"{method.name} compares vectors with these options, and no model for them is named: --{missing} NAME@URL "
            f"(an endpoint with /embeddings), hf:PATH, or sim, which knows letters and no meaning"
        )
    roles = {role: [parse_spec(text) for text in specs] for role, specs in texts.items()}
    if method.embeds:
        return {role: [embedding_spec(spec) for spec in specs] for role, specs in roles.items()}
    for role in method.speaks_as_user:
        if endpoint := next((spec for spec in roles[role] if spec.urls or spec.load), None):
            what = "an endpoint" if endpoint.urls else "a function"
            raise InputError(
                f"{method.name}: {endpoint.place} cannot speak as the user, {what} only answers; use local weights: "
                f"--{role} hf:PATH"
            )
    load_functions(spec for specs in roles.values() for spec in specs)
    return roles


def load_functions(specs: Iterable[Spec]) -> None:
    """Load the models that are functions, before anything is sent; InputError if one cannot be used."""
    for spec in specs:
        if spec.load is not None:
            from datagen.llm.functions import load_function

            load_function(spec)


def embedding_spec(spec: Spec) -> Spec:
    """Return the spec of a model that is asked for vectors.

    Raises:
        InputError: It has none.
    """
    if spec.name.startswith("replay:") or spec.load:
        what = "a function" if spec.load else "recorded replies hold"
        raise InputError(f"--embedder {spec.name}: {what} answers, and no vectors")
    return replace(spec, embeds=True)


def models_of(
    method: Method | type[Method], role: str, role_models: Mapping[str, Sequence[str]]
) -> Sequence[str] | None:
    """Return the specs that the user gave for a role, or for the role that stands in for it; None if there are none."""
    return role_models.get(role) or role_models.get(method.stand_ins.get(role, role))


def lacks_models(method: type[Method], run: RunOptions, role_models: Mapping[str, Sequence[str]]) -> bool:
    """Whether some role has no model that the user gave, so that the default ones are needed."""
    return not (method.embeds or run.model or all(models_of(method, role, role_models) for role in method.roles))


def refuse_unknown_price(roles: Mapping[str, Sequence[Spec]], tags: Mapping[str, PriceTag]) -> None:
    """Raise InputError if the price of a model is unknown, so that no cap in dollars can be kept."""
    for spec in (spec for specs in roles.values() for spec in specs):
        if tags[spec.identity].look_up() is None:
            raise InputError(
                f"--max-cost: the price of {spec.place} is unknown. Give it in dollars per million "
                f"tokens: --price IN/OUT, or `price = {{input = IN, output = OUT}}` in {MODELS_FILE}"
            )


def refuse_unused_params(method: Method, run: RunOptions) -> None:
    """Raise InputError for request parameters that no role of the method gets."""
    if run.judge_param and "judge" not in method.roles:
        raise InputError(f"--judge-param: {f'{method.name} {method.variant}'.strip()} has no judge")
    unused = [name for name in run.params if name not in (*JUDGE_PARAMS, *LENGTHS)]
    if unused and method.roles.keys() == {"judge"}:
        raise InputError(
            f"{unused[0]}: a verdict is a measurement, so the judge keeps the parameters of the method. To set it all "
            f"the same: --judge-param {unused[0]}=VALUE"
        )


def model_params(roles: Mapping[str, Sequence[Spec]]) -> Row:
    """Return the part of the fingerprint about the models' own parameters; empty where no model has any."""
    return {
        f"params of {role}": [dict(spec.params) for spec in specs]
        for role, specs in roles.items()
        if any(spec.params for spec in specs)
    }


def refuse_conflict(
    method: Method, reader: Reader[Record], run: RunOptions, roles: Mapping[str, Sequence[Spec]]
) -> None:
    """Raise InputError if the method cannot work on any row of the input with these models and options."""
    models = {role: [Model(spec.identity, Silent(), spec.params) for spec in specs] for role, specs in roles.items()}
    conflict = None
    for record in islice((item for item in reader.read() if isinstance(item, Record)), run.limit):
        conflict = method.conflict(record, Roles(models, record, run.params, run.judge_params))
        if conflict is None:
            return
    if conflict:
        raise InputError(f"{reader.name}: {conflict}")


class Silent:
    """A layer that sends nothing."""

    async def send(self, call: Call) -> Reply:
        raise Stopped


def tune_garbage_collector() -> None:
    """Exempt all objects made at start-up from garbage collection, and collect less often. Call once, before a run."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


async def run_job(job: Job, observer: RunObserver, earlier: Outcome | None = None) -> Outcome:
    """Run a job to its end and put its files in place; every request in flight is waited for and recorded.

    Args:
        job: The command.
        observer: Hears of the beginning, of failures and of bad lines.
        earlier: How the last replay of this run ended, if it waits for batches.

    Raises:
        DatagenError: Another process is writing the output, or the journal cannot be used.
        InputError: A model cannot be opened.
    """
    from datagen.engine.ray_crew import crew_of  # which imports this module
    from datagen.engine.ray_driver import Driver

    run, method, output, name = job.run, job.method, job.output, job_digest(job.fingerprint)
    with output.open_parts(), crew_of(job) as crew:
        # 1. Build the layers below the method, and the engine.
        in_flight, roles = (crew.own_concurrency(job), crew.own_roles(job)) if crew else (run.in_flight, job.roles)
        limits = run.max_calls, in_flight, run.timeout, 60 * run.patience
        money = job.tags, run.cost_limit, name
        stack = build_stack(roles, StackOptions(output.folder, *limits, output.label, *money, job.batch, job.gate))
        engine = Engine(method, run, stack, output, observer, job.reader.name)
        fold = engine.fold
        began, start = strftime("%Y-%m-%dT%H:%M:%SZ", gmtime()), monotonic()

        # 2. Run. The items are the rows of the input, or what an endless method draws from them.
        again = run.n is not None and not method.endless
        items = read_passes(job.reader.read, seed=run.seed, limit=run.limit, again=again, strict=run.strict)
        if method.endless:
            items = method.draw(items, cast(GrowingMemory, fold.memory[0]), run.seed)
        items = job.shard.take(items) if job.shard else items
        driver = engine.ahead = Driver(job, stack, engine, crew, items, name) if crew else None
        observer.begin(job, engine)
        drained = ended = False
        try:
            try:
                await run_with_batches(engine, driver.items() if driver else items)
                ended = engine.stop.reason in ENDED and job.shard is None  # the run without --shard continues it
            finally:
                if driver:
                    await driver.close(ended=ended)
            reason, drained = engine.stop.reason, True
        finally:
            await stack.close(drained=drained, ended=ended)
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
            "usage": fold.usage.as_row(),
            "spending": fold.spending_rows(),
            "table": fold.table.as_dict(),
        }
        tables = fold.table.tables()
        run_row = {"began": began, "seconds": seconds, **account_of(job, engine, driver)}
        run_row, rows_in_place = with_earlier(run_row, earlier.run if earlier else None), None
        if reason != "batch":
            rows_in_place = output.finish({"result": result, "run": run_row}, complete=reason in COMPLETE)
        if status == "finished" and rows_in_place is None and job.shard is None:
            method.finish(result)
    lost, notes = (driver.lost_before, driver.notes) if driver else (0, [])
    account = stack.journal.unrecorded + lost, [*stack.notes, *notes, *method_notes(method), *fold.table.warnings()]
    return Outcome(status, reason, result, run_row, tables, *account, engine.stop.error, rows_in_place)


def method_notes(method: Method) -> list[str]:
    """Return what is to be told about the functions of others that a method has called."""
    return [note for function in method.plugins for note in function.faults.notes]


def account_of(job: Job, engine: Engine, driver: "Driver | None") -> Row:
    """Return the numbers of a run, for x.meta.json."""
    stack = engine.stack
    return {
        **({"command": job.command} if job.command else {}),
        "input": job.reader.name,
        "models": job.models,
        "ended": engine.stop.reason or "input",
        "records": engine.records,
        "usage": engine.usage.as_row(),
        **stack.purse.account(),
        **({"cap": engine.cap} if engine.stop.reason == "cap" else {}),
        "requests": stack.traffic.sent,
        "retries": sum(limiter.retries for limiter in stack.limiters),
        "replayed": max(0, stack.journal.replayed - (driver.replayed if driver else 0)),
        **({"shipped": driver.shipped} if driver else {}),
        "unanswered": stack.budget.cap.unanswered,
        "surplus": engine.surplus,
        "peak_in_flight": stack.traffic.peak,
        **({"batches": batch_states(stack)} if job.batch.is_on else {}),
    }
