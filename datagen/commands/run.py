"""What a command with methods does around a job: choose the model, run, report how it ended and what to do next."""

import asyncio
import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from datagen.commands.terminal import Display, columns, counts, funnel_lines
from datagen.engine.job import DryRun, Job, Outcome, dry_run, open_job, run_job
from datagen.engine.method import Method
from datagen.engine.options import RunOptions
from datagen.engine.scheduler import tune_garbage_collector
from datagen.errors import InputError
from datagen.llm.model import ATTEMPTS

SIM_NOTICE = (
    "No --model and no DATAGEN_MODEL: using sim, a procedural teacher for trying the tool. It is not a language model."
)
SHORT, AT_CAP, INTERRUPTED = 3, 4, 130
EXIT_CODES = {"stall": SHORT, "failures": SHORT, "cap": AT_CAP, "outage": 5, "interrupted": INTERRUPTED}
"""By the reason why a run ended; any other is 0, or an error with its own code."""
ENDINGS = {
    "cap": "Stopped at --max-calls {run.max_calls}. To continue, raise it:",
    "interrupted": "Interrupted; what was paid for is recorded. To continue:",
    "outage": "error: {error}\nWhat was paid for is recorded. To continue:",
    "failures": "More than --max-failed {run.max_failed} candidates failed: {failed}. To try them again:",
    "incomplete": "Failed: {failed}. The same command tries these again, and nothing else:",
    "stall": "Short of -n {run.n}: {asked} candidates gave {kept} rows; dropped: {dropped}.",
}
"""What to say of a run that ended early or incomplete; the command follows, but after a stall."""


def run_method(
    method: type[Method],
    input_name: str | None,
    options: Any,
    run: RunOptions,
    role_models: Mapping[str, Sequence[str]],
) -> int:
    """Run one command from its parsed options, as `open_job` takes them; return the exit code."""
    display = Display(quiet=run.quiet, verbose=run.verbose)
    if method.roles and not run.model:
        default = os.environ.get("DATAGEN_MODEL")
        run = replace(run, model=[default or "sim"])
        if not default and role_models.keys() != method.roles.keys():
            display.print(SIM_NOTICE)
    with open_job(method, input_name, options, run, role_models) as job:
        if run.json and job.output.piped:
            raise InputError("--json and rows cannot both go to standard output: name a file with -o")
        if run.dry_run:
            report_dry_run(job, dry_run(job), display)
            return 0
        if not run.overwrite and job.output.is_finished(job.fingerprint):
            display.print(f"Nothing to do: {job.output.path} is finished.")
            if not run.quiet:
                meta = job.output.read_meta() or {}
                display.print("\n".join(funnel_lines(meta["result"]["funnel"])))
            code = 0
        else:
            tune_garbage_collector()
            code = report(job, asyncio.run(run_job(job, display)), display)
        if not code:
            if run.json:
                print(job.output.meta_path.read_text(encoding="utf-8"), end="")
            if not job.output.piped and not run.quiet:
                display.print(f"Rows: {job.output.path}   rejected: {job.output.rejected_path}")
                if job.output.path.stat().st_size:
                    display.print(job.method.next_command.format(shlex.quote(str(job.output.path))))
        return code


def report(job: Job, outcome: Outcome, display: Display) -> int:
    """Print how a run ended, and why if it ended early; return the exit code.

    Raises:
        InputError: No row of the input could be used.
        BaseException: The error that ended the run.
    """
    result, funnel, run = outcome.result, outcome.result["funnel"], outcome.run
    if outcome.unrecorded:
        lost = f"up to {outcome.unrecorded} requests were in flight, paid for and lost"
        display.print(f"An earlier run was killed: {lost}.")
    if not job.run.quiet:
        for table in outcome.tables:
            if len(table) > 1:
                display.print("\n".join(columns(table)) + "\n")
        display.print("\n".join(funnel_lines(funnel)))
        display.print(
            f"{run['requests']} requests in {run['seconds']:.1f} s, {run['replayed']} answers replayed, "
            f"{result['usage']['prompt_tokens']:,} + {result['usage']['completion_tokens']:,} tokens"
        )
        if run["surplus"]:
            display.print(f"{run['surplus']} more candidates were generated and not written; they are free next time.")
    if outcome.error is not None and outcome.reason == "error":
        raise outcome.error
    if not run["records"]:
        raise InputError(f"{job.reader.name}: no row could be used")
    ending = outcome.reason if outcome.reason in ENDINGS else outcome.status
    if ending in ENDINGS:
        message = ENDINGS[ending].format(
            run=job.run,
            error=outcome.error,
            asked=funnel["asked"],
            kept=funnel["kept"],
            failed=counts(funnel["failed"]),
            dropped=counts(funnel["rejected"] | funnel["failed"]),
        )
        display.print(message if ending == "stall" else f"{message}\n{shlex.join(['datagen', *sys.argv[1:]])}")
    return EXIT_CODES.get(outcome.reason or "", 0)


def report_dry_run(job: Job, dry: DryRun, display: Display) -> None:
    """Print the first request to standard output, and what to expect."""
    if dry.request is None:
        raise InputError(f"{job.reader.name}: no row could be used")
    print(json.dumps(dry.request, indent=2, ensure_ascii=True))
    bad = f", and {dry.unreadable} unusable lines" if dry.unreadable else ""
    if job.method.reads:
        display.print(f"{dry.records} rows to read ({job.reader.shape}){bad}.")
    display.print(
        f"About {dry.calls} calls for one pass; {dry.most_calls} at most, if every answer takes {ATTEMPTS} attempts."
    )
    display.print("Nothing was sent.")
