"""What `datagen METHOD` does around a job: pick the model, show the run, say how it ended and what to do next."""

import asyncio
import json
import os
import shlex
import sys
from dataclasses import replace
from typing import Any

from datagen.commands.flags import pick
from datagen.commands.terminal import Display, columns, counts, funnel_lines
from datagen.engine.job import DryRun, Job, Outcome, dry_run, execute, planned
from datagen.engine.method import Method
from datagen.engine.options import RunOptions
from datagen.engine.scheduler import tune_collector
from datagen.errors import InputError
from datagen.llm.model import ATTEMPTS
from datagen.records.record import Row

SIM_NOTICE = (
    "No --model and no DATAGEN_MODEL: using sim, a procedural teacher for trying the tool. It is not a language model."
)
SHORT, AT_CAP, INTERRUPTED = 3, 4, 130
EXIT_CODES = {"stall": SHORT, "failures": SHORT, "cap": AT_CAP, "outage": 5, "interrupted": INTERRUPTED}
"""By why a run ended; everything else is 0, or an error of its own."""


def run_method(method: type[Method], given: dict[str, Any]) -> int:
    """Run one command from its parsed options; return the exit code."""
    run = pick(RunOptions, given)
    display = Display(quiet=run.quiet, verbose=run.verbose)
    chosen = {role: given[role] for role in method.roles if given[role]}
    if method.roles and not run.model:
        run = replace(run, model=[os.environ.get("DATAGEN_MODEL") or "sim"])
        if not os.environ.get("DATAGEN_MODEL") and chosen.keys() != method.roles.keys():
            display.say(SIM_NOTICE)
    with planned(method, given.get("input"), pick(method.options_type, given), run, chosen) as job:
        return run_job(job, display)


def run_job(job: Job, display: Display) -> int:
    """Run a checked command; return the exit code."""
    if job.run.json and job.output.piped:
        raise InputError("--json and rows both want standard output: name a file with -o")
    if job.run.dry_run:
        return _show_dry_run(job, dry_run(job), display)
    if job.is_done:
        display.say(f"Nothing to do: {job.output.path} is finished.")
        if not job.run.quiet:
            _show_funnel((job.output.earlier() or {})["result"]["funnel"], display)
        return _finish(job, display)
    tune_collector()
    return report(job, asyncio.run(execute(job, display)), display)


def _show_dry_run(job: Job, dry: DryRun, display: Display) -> int:
    if dry.request is None:
        raise InputError(f"{job.reader.name}: no row could be used")
    print(json.dumps(dry.request, indent=2, ensure_ascii=True))
    bad = f", and {dry.unreadable} lines that cannot be used" if dry.unreadable else ""
    if job.method.reads:
        display.say(f"{dry.records} rows to read ({job.reader.shape}){bad}.")
    display.say(
        f"About {dry.calls} calls for one pass; {dry.most_calls} at most, if every answer takes {ATTEMPTS} attempts."
    )
    display.say("Nothing was sent.")
    return 0


def report(job: Job, outcome: Outcome, display: Display) -> int:
    """Say how a run ended; return the exit code."""
    if outcome.unrecorded:
        display.say(
            f"An earlier run was killed: up to {outcome.unrecorded} requests were in flight then, paid for and lost."
        )
    if not job.run.quiet:
        _show_tables(outcome, display)
    if outcome.error is not None and outcome.reason == "error":
        raise outcome.error
    if not outcome.run["records"]:
        raise InputError(f"{job.reader.name}: no row could be used")
    for line in _ending(job, outcome):
        display.say(line)
    code = EXIT_CODES.get(outcome.reason or "", 0)
    return code or _finish(job, display)


def _show_tables(outcome: Outcome, display: Display) -> None:
    result, run = outcome.result, outcome.run
    for table in outcome.tables:
        if len(table) > 1:
            display.say("\n".join(columns(table)) + "\n")
    _show_funnel(result["funnel"], display)
    usage = result["usage"]
    display.say(
        f"{run['requests']} requests in {run['seconds']:.1f} s, {run['replayed']} answers replayed, "
        f"{usage['prompt_tokens']:,} + {usage['completion_tokens']:,} tokens"
    )

    if run["surplus"]:
        display.say(f"{run['surplus']} more candidates were made and not written; they are free next time.")


def _show_funnel(funnel: Row, display: Display) -> None:
    display.say("\n".join(funnel_lines(funnel)))


def _ending(job: Job, outcome: Outcome) -> list[str]:
    """Say why a run ended early and how to go on; nothing for one that finished."""
    again = shlex.join(["datagen", *sys.argv[1:]])
    funnel = outcome.result["funnel"]
    if outcome.reason == "cap":
        return [f"Stopped at --max-calls {job.run.max_calls}. To go on, raise it:", again]
    if outcome.reason == "interrupted":
        return ["Interrupted; what was paid for is recorded. To go on:", again]
    if outcome.reason == "outage":
        return [f"error: {outcome.error}", "What was paid for is recorded. To go on:", again]
    if outcome.reason == "failures":
        return [f"More than --max-failed {job.run.max_failed} failed: {counts(funnel['failed'])}. To ask again:", again]
    if outcome.reason == "stall":
        eaten = counts(funnel["rejected"] | funnel["failed"])
        return [f"Short of -n {job.run.n}: {funnel['asked']} candidates gave {funnel['kept']} rows; dropped: {eaten}."]
    if outcome.status == "incomplete":
        return [
            f"Failed: {counts(funnel['failed'])}. The same command asks for these again, and for nothing else:",
            again,
        ]
    return []


def _finish(job: Job, display: Display) -> int:
    """Print what was asked for on standard output, and the next command."""
    if job.run.json:
        print(job.output.meta_path.read_text(encoding="utf-8"), end="")
    if not job.output.piped and not job.run.quiet:
        display.say(f"Rows: {job.output.path}   dropped: {job.output.rejected_path}")
        if job.output.path.stat().st_size:
            display.say(job.method.next_command().format(shlex.quote(str(job.output.path))))
    return 0
