"""A command as a function call: its keywords become the words of a command line, which is checked as one; then the job
runs in the event loop of the caller, or in a thread with one of its own.

No signal handler is set anywhere. Ctrl-C in a call that blocks is a KeyboardInterrupt: what is in flight is waited for
and recorded, then it is raised; a second one does not wait.
"""

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping
from contextvars import copy_context
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from threading import Event, Thread
from types import MappingProxyType
from typing import Any, TypeVar, cast

from datagen.api.inputs import input_name
from datagen.api.progress import Interrupt, Observer, is_watched
from datagen.api.rows import Account, InMemory, Rows, account_in_place, collect
from datagen.commands.endings import DONE, ending_of
from datagen.commands.flags import CheckedCommand, MethodCall, names_of, value_words
from datagen.commands.main import Commands
from datagen.commands.plugin_methods import plugin_command
from datagen.engine.job import Job, Outcome, lacks_models, open_job, run_job
from datagen.engine.options import TEMPLATE_PARAM
from datagen.errors import InputError, nothing_usable
from datagen.llm.default import VARIABLE, default_models
from datagen.llm.models_file import MODELS_FILE
from datagen.objects import remember
from datagen.records.record import Row
from datagen.text import count_of

T = TypeVar("T")
EMPTY: Mapping[str, Any] = MappingProxyType({})
LEFT_OUT = ("help", "input", "json", "quiet", "verbose", "dry_run", "shard")
"""Parameters of a command that are no keywords of its function."""
NO_MODEL = f"no model is named: model='NAME@URL', {VARIABLE}, or `default` in {MODELS_FILE}; model='sim' to try"


def command_of(name: str, options: Mapping[str, Any] = EMPTY) -> CheckedCommand:
    """Return a command of `datagen` by its name, with the options of the variant that its keywords select.

    A generator of others is a command, too: FILE.py:NAME, or a registered name.
    """
    group = Commands(name="datagen")
    if name not in group.table:
        if command := plugin_command(name, group.table):
            return cast(CheckedCommand, command)
        raise InputError(f"{name}: no generator; expected FILE.py:NAME, or a name that a package registers")
    selector = group.table[name].selector
    words = [f"--{selector}={options[selector]}"] if selector in options else []
    return cast(CheckedCommand, group.build(name, words))


async def call(name: str, rows: Any, options: Mapping[str, Any], interrupt: Interrupt | None = None) -> Rows:
    """Run a command in the running event loop.

    Args:
        name: Of the command, such as "self-instruct".
        rows: The input; None for a command that reads nothing.
        options: The keywords: those of the command line, with `_` for `-`, and `folder` and `progress`.
        interrupt: By which another thread can stop the run.

    Raises:
        DatagenError: As on the command line; what was paid for is recorded.
    """
    options = dict(options)
    folder, progress = check_folder(options.pop("folder", None)), options.pop("progress", None)
    parsed, values = parse(name, rows, options)
    method, reads, method_options, run, role_models = parsed
    if lacks_models(method, run, role_models):
        if not (models := default_models()):
            raise InputError(NO_MODEL)
        run = replace(run, model=models)
    source = input_name(rows, method.kind.text_key, folder) if reads else None
    with open_job(method, source, method_options, run, role_models) as job:
        job = replace(job, command={"name": name, "values": {**values, **({"input": source} if source else {})}})
        if run.output is None:
            job = replace(job, output=InMemory(folder, f"{name}.jsonl"))
        elif job.output.piped:
            raise InputError("output='-': a function returns its rows; name a file, or nothing")
        elif not run.overwrite and job.output.is_finished(job.fingerprint):
            return collect(job.output, account_in_place(cast(Row, job.output.read_meta())))
        observer = Observer(is_watched() if progress is None else progress, interrupt)
        outcome = await run_to_end(job, observer)
        return conclude(job, outcome, observer)


def parse(name: str, rows: Any, options: Mapping[str, Any]) -> tuple[MethodCall, dict[str, Any]]:
    """Return the call of a method, checked as a command line is, and the values that it was given by their names.

    Raises:
        InputError: The command does not take such a keyword, or refuses its value.
    """
    objects: dict[str, Any] = {}
    spellings = {keyword: spelled(keyword, value, objects) for keyword, value in options.items()}
    command = command_of(name, spellings)
    values = keyword_values(name, command, spellings)
    if rows is not None:
        values["input"] = "rows"
    words = value_words(command, values)
    given = {keyword: texts(value) for keyword, value in values.items() if value is not None}
    return cast(MethodCall, command.check_words(words, f"datagen {name}")), given


def keyword_values(name: str, command: CheckedCommand, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return values by the names of a command's parameters; InputError for a keyword that is none, with the nearest."""
    parameters = {flag: p.name for p in command.params for flag in names_of(p) if p.name not in LEFT_OUT}
    for keyword in options:
        if keyword not in parameters:
            near = get_close_matches(keyword, parameters, 1)
            raise InputError(f"{keyword}: no option of {name}" + (f". Did you mean {near[0]}?" if near else ""))
    return {parameters[keyword]: value for keyword, value in options.items()}


def spelled(keyword: str, value: Any, objects: dict[str, Any]) -> Any:
    """Return the value of a keyword as words can be made of it.

    An object of names and values is what the command line takes as text: `param={"top_k": 20}`,
    `map={"prompt": "question"}`, `price={"m": "1/2"}`. One of names and functions
    names them: `teacher={"mild": mild, "strict": strict}`.

    Args:
        keyword: Its name.
        value: What it was given.
        objects: The functions and classes of this call, by the words that name them; it is added to.
    """
    if isinstance(value, list | tuple):
        return [spelled(keyword, item, objects) for item in value]
    if isinstance(value, Mapping):
        if keyword == "map":
            return ",".join(f"{ours}={theirs}" for ours, theirs in value.items())
        if keyword == TEMPLATE_PARAM:
            return json.dumps(value)
        if keyword == "price":
            return [f"{name}={price}" for name, price in value.items()]
        if value and all(map(callable, value.values())):
            return [named(keyword, item, objects, name) for name, item in value.items()]
        return [f"{name}={json.dumps(item)}" for name, item in value.items()]
    return named(keyword, value, objects) if callable(value) else value


def named(keyword: str, value: Any, objects: dict[str, Any], name: str | None = None) -> str:
    """Return the word that names a function or a class in memory; InputError if it is the word for another one."""
    word = remember(value, name)
    if objects.setdefault(word, value) is not value:
        raise InputError(
            f"{keyword}: two functions have the name {word.rpartition('/')[0]} and the same source; name them: "
            f"{keyword}={{'NAME': FUNCTION, ...}}"
        )
    return word


def texts(value: Any) -> Any:
    """Return a value as JSON holds it."""
    if isinstance(value, list):
        return [texts(item) for item in value]
    return value if isinstance(value, str | int | float | bool) else str(value)


def check_folder(folder: Any) -> Path:
    """Return the folder of the journal; InputError if there is none."""
    path = Path(folder or ".")
    if not path.is_dir():
        raise InputError(f"folder: no such folder {path}")
    return path


async def run_to_end(job: Job, observer: Observer) -> Outcome:
    """Run a job; with `batch` and `batch_wait`, until no batch is open."""
    try:
        outcome = await run_job(job, observer)
        while outcome.reason == "batch" and job.batch.wait is not None:
            outcome = await run_job(job, observer, outcome)
        return outcome
    finally:
        observer.end()


def conclude(job: Job, outcome: Outcome, observer: Observer) -> Rows:
    """Return the rows of a run that has ended.

    Raises:
        DatagenError: The run ended with an error, or no row of the input could be used.
    """
    if outcome.error is not None and outcome.reason in ("error", "outage"):
        raise outcome.error
    if not outcome.run["records"] and outcome.reason not in ("interrupted", "cap", "batch"):
        raise nothing_usable(job.reader.name, "; ".join(map(str, observer.bad_lines[:1])))
    ending = ending_of(outcome, job.run, job.method, observer.details)
    specs = [spec for specs in job.roles.values() for spec in specs]
    notes = [*(spec.note for spec in specs if spec.note), *outcome.notes, *job.reader.account.lines()]
    warnings = [ending.message] if ending.exit_code != DONE or outcome.result["funnel"]["failed"] else []
    if bad := observer.bad_lines:
        warnings.append(f"{count_of(len(bad), 'row')} could not be used; the first: {bad[0]}")
    account = Account(
        outcome.status,
        ending.message,
        outcome.result,
        outcome.run,
        list(dict.fromkeys(notes)),
        warnings,
        outcome.tables,
    )
    return collect(job.output, account)


def call_and_wait(name: str, rows: Any, options: Mapping[str, Any]) -> Rows:
    """Run a command in a thread with an event loop of its own, and wait for it: this works in a notebook and in any
    thread, whether or not an event loop runs there."""
    interrupt = Interrupt()
    return wait_for(lambda: call(name, rows, options, interrupt), interrupt)


def wait_for(work: Callable[[], Coroutine[Any, Any, T]], interrupt: Interrupt) -> T:
    """Run a coroutine in a new thread; return its result, or raise its error."""
    results: list[T] = []
    errors: list[BaseException] = []
    loops: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[T]]] = []
    ended = Event()

    async def main() -> T:
        task = asyncio.ensure_future(work())
        loops.append((asyncio.get_running_loop(), task))
        return await task

    def run() -> None:
        try:
            results.append(asyncio.run(main()))
        except BaseException as error:
            errors.append(error)
        finally:
            ended.set()

    thread = Thread(target=copy_context().run, args=(run,), name="datagen", daemon=True)
    thread.start()
    try:
        ended.wait()
    except KeyboardInterrupt:
        interrupt.request()
        try:
            ended.wait()
        except KeyboardInterrupt:
            for loop, task in loops:
                loop.call_soon_threadsafe(task.cancel)
            raise
        raise
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
