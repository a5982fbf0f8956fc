"""A run with provider batches: their answers are read before it, and what can be asked now is submitted after it.

A batch is one more way to fill the journal (https://platform.openai.com/docs/guides/batch). The run itself is a replay
as always. It goes as far as recorded answers reach, so each run goes one call further in every record. As long as a
record waits for a batch the output is not complete, so no file is put in place.
"""

from collections.abc import Iterator, Mapping, Sequence

from datagen.engine.method import Method
from datagen.engine.options import RunOptions
from datagen.engine.output import Output
from datagen.engine.scheduler import Engine
from datagen.errors import InputError, Outage, Stopped
from datagen.llm.batches.options import BatchOptions
from datagen.llm.spec import Spec
from datagen.llm.stack import Stack
from datagen.records.record import BadLine, Record, Row

SUBMITTED_AFTER = ("batch", "cap")
"""The reasons of a run after which what was collected is submitted: a cap covers it."""
SUMS = ("seconds", "requests", "retries", "unanswered", "paid", "paid_unanswered")
"""What adds up over the replays of a run that waits, by the names in x.meta.json."""


async def run_with_batches(engine: Engine, items: Iterator[Record | BadLine]) -> None:
    """Run the engine between the two ends of batches. Without batches it just runs."""
    stop, batches = engine.stop, engine.stack.batches
    try:
        for batch in batches:
            await batch.fetch()
    except Outage as error:
        stop.now("outage", error)
    except Stopped:
        pass
    await engine.run(items)
    if not engine.queued.records or stop.reason not in SUBMITTED_AFTER:
        return
    stop.reason = "batch"
    try:
        for batch in batches:
            await batch.submit()
    except Outage as error:
        stop.reason, stop.error = "outage", error


def with_earlier(row: Row, earlier: Row | None) -> Row:
    """Return `run` of x.meta.json for a run that waits for its batches and so replays several times: what all of the
    replays have sent and paid."""
    if earlier is None:
        return row
    pairs = {name: (row[name], earlier[name]) for name in SUMS}
    return row | {name: None if None in pair else round(sum(pair), 12) for name, pair in pairs.items()}


def batch_states(stack: Stack) -> dict[str, str]:
    """Return what is known of each open batch, by its name at the provider."""
    return {name: state for batch in stack.batches for name, state in batch.states.items()}


def batch_options(method: Method, run: RunOptions, roles: Mapping[str, Sequence[Spec]], output: Output) -> BatchOptions:
    """Return whether, and how, a run uses batches.

    Raises:
        InputError: It cannot.
    """
    if not run.batch:
        if run.batch_wait is not None:
            raise InputError("--batch-wait: without --batch there is nothing to wait for")
        return BatchOptions()
    specs, name = [spec for specs in roles.values() for spec in specs], f"{method.name} {method.variant}".strip()
    if method.lag is not None or method.endless:
        raise InputError(
            f"--batch: what {name} asks next depends on the rows before, so few calls can be made together"
        )
    if not any(spec.urls for spec in specs):
        raise InputError("--batch: no model of this command is at an address that could have batches (NAME@URL)")
    if several := next((spec for spec in specs if len(spec.urls) > 1), None):
        raise InputError(f"--batch: {several.name} has several addresses, and a batch has one: name one of them")
    if run.ray is not None:
        raise InputError("--batch with --ray: a batch is asked for from one place; use one of them")
    if output.piped:
        raise InputError(
            "--batch: rows cannot go to standard output, since they come in a later run: name a file with -o"
        )
    return BatchOptions(True, None if run.batch_wait is None else 60 * run.batch_wait)
