"""What a command with methods does around a job: choose the model, run, report how it ended and what to do next."""

import asyncio
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from datagen.commands.terminal import Display, funnel_lines
from datagen.engine.job import DryRun, Job, dry_run, open_job, run_job, tune_garbage_collector
from datagen.engine.method import Method
from datagen.engine.options import RunOptions
from datagen.errors import InputError
from datagen.llm.model import ATTEMPTS

SIM_NOTICE = (
    "No --model and no DATAGEN_MODEL: using sim, a procedural teacher for trying the tool. It is not a language model."
)
SHORT, AT_CAP, INTERRUPTED = 3, 4, 130
EXIT_CODES = {"stall": SHORT, "failures": SHORT, "cap": AT_CAP, "outage": 5, "interrupted": INTERRUPTED}
"""By the reason why a run ended; any other is 0, or an error with its own code."""


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
            code, next_command = 0, job.method.next_command
        else:
            tune_garbage_collector()
            try:
                outcome = asyncio.run(run_job(job, display))
            finally:
                display.end()
            display.report(job, outcome)
            code, next_command = EXIT_CODES.get(outcome.reason or "", 0), outcome.next_command
        if not code:
            if run.json:
                print(job.output.meta_path.read_text(encoding="utf-8"), end="")
            if not job.output.piped and not run.quiet:
                display.print(f"Rows: {job.output.path}   rejected: {job.output.rejected_path}")
                if job.output.path.stat().st_size:
                    display.print(next_command.format(shlex.quote(str(job.output.path))))
        return code


def report_dry_run(job: Job, dry: DryRun, display: Display) -> None:
    """Print the first request to standard output, and what to expect."""
    if dry.request is None:
        raise InputError(f"{job.reader.name}: no row could be used")
    print(json.dumps(dry.request, indent=2, ensure_ascii=True))
    bad = f", and {dry.unreadable} unusable lines" if dry.unreadable else ""
    if job.method.reads_input:
        display.print(f"{dry.records} rows to read ({job.reader.shape}){bad}.")
    display.print(
        f"About {dry.calls} calls for one pass; {dry.most_calls} at most, if every answer takes {ATTEMPTS} attempts."
    )
    display.print("Nothing was sent.")
