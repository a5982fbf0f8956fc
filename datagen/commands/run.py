"""What a command with methods does around a job: choose the model, run, report how it ended and what to do next."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from datagen.commands.dry_run import report_dry_run
from datagen.commands.endings import SHORT, Ending, ending_of, ending_of_input, ending_of_shard
from datagen.commands.next_steps import after_rows, is_step
from datagen.commands.terminal import Display, funnel_lines
from datagen.engine.forecast import dry_run
from datagen.engine.job import Job, Outcome, lacks_models, open_job, run_job, tune_garbage_collector
from datagen.engine.method import Method
from datagen.engine.options import RunOptions
from datagen.errors import InputError, nothing_usable
from datagen.llm.database import JOURNAL
from datagen.llm.default import VARIABLE, default_models
from datagen.llm.models_file import MODELS_FILE
from datagen.printing import printable
from datagen.records.files import output_stem
from datagen.records.makers import is_sim, makers
from datagen.records.record import BadLine, Row
from datagen.signals import on_stop
from datagen.text import count_of

SIM_BEFORE = (
    "No model is named, so this is a DEMONSTRATION by sim, the built-in rule-based teacher. sim is not a language "
    f"model. To use one: --model NAME@URL, or {VARIABLE}, or `default` in {MODELS_FILE}. datagen doctor "
    "looks for servers and keys."
)
SIM_AFTER = (
    "DEMONSTRATION: these rows come from sim, the built-in rule-based teacher. They show how the tool works; they are "
    "not training data."
)
SIM_REFUSED = (
    "{place}: {work}, and without a model named, sim would go on with it, a rule-based demonstration. Name a model: "
    f"--model NAME@URL; or --model NAME with OPENAI_API_KEY set; or `default` in {MODELS_FILE}, or {VARIABLE}. "
    "--model sim takes sim all the same."
)


def run_method(
    method: type[Method],
    input_name: str | None,
    options: Any,
    run: RunOptions,
    role_models: Mapping[str, Sequence[str]],
    output_word: str | None = None,
    command: Row | None = None,
) -> int:
    """Run one command from its parsed options, as `open_job` takes them; return the exit code.

    Args:
        output_word: What the name of the output adds to that of the input, if no -o is given. None: the method's name.
        command: The command line as it was typed, for x.meta.json.
    """
    display = Display(quiet=run.quiet, verbose=run.verbose)
    if run.output is None and input_name != "-":
        stem = f"{output_stem(input_name)}." if input_name else ""
        run = replace(run, output=f"{stem}{output_word or method.name}.jsonl")
    is_demonstration = False
    if lacks_models(method, run, role_models):
        named = default_models()
        run, is_demonstration = replace(run, model=named or ["sim"]), not named
    with open_job(method, input_name, options, run, role_models) as opened:
        job = replace(opened, command=command or {})
        for note in {spec.note: None for specs in job.roles.values() for spec in specs if spec.note}:
            display.print(note)
        if run.json and job.output.piped:
            raise InputError("--json and rows cannot both go to standard output: name a file with -o")
        if is_demonstration:
            refuse_rows_of_others(job)
            display.print(SIM_BEFORE)
        if run.dry_run:
            report_dry_run(job, dry_run(job), display)
            return 0
        if not run.overwrite and job.output.is_finished(job.fingerprint):
            ending = report_finished(job, display)
        else:
            ending = run_and_report(job, display)
        if run.json and not ending.exit_code and not ending.is_open:
            print(printable(job.output.meta_path.read_text(encoding="utf-8")), end="")
        lines = [ending.message] if ending.message else []
        if not run.quiet and not job.output.piped and not ending.is_open and job.output.has_lines:
            lines.append(f"Rows: {job.output.path}   rejected: {job.output.rejected_path}")
        if is_demonstration:
            lines.append(SIM_AFTER)
        if ending.again and not is_step():
            lines.append(f"Next: {ending.again}")
        elif ending.rows_are_next and not run.quiet and not job.output.piped:
            lines += after_rows(job.output.path, job.method, job.models)
        if lines:
            display.print("\n".join(lines))
        return ending.exit_code


def run_and_report(job: Job, display: Display) -> Ending:
    """Run a job, and print its funnel; return how it ended."""
    if notice := job.method.notice(job.reader):
        display.print(notice)
    tune_garbage_collector()
    if job.ray and not job.run.quiet:
        display.print(
            f"Ray: {'starting' if job.ray.address is None else 'joining'} {job.ray}, which takes some seconds."
        )
    try:
        with on_stop(display.interrupt):
            outcome = asyncio.run(run_job(job, display))
            while outcome.reason == "batch" and job.batch.wait is not None:
                display.begin_again(outcome)
                outcome = asyncio.run(run_job(job, display, outcome))
    finally:
        display.end()
    display.report(job, outcome)
    for line in job.reader.account.lines():
        display.print(line)
    if job.shard and outcome.reason is None:
        return ending_of_shard(job.shard, job.output.folder / JOURNAL)
    ending = ending_of(outcome, job.run, job.method, display.details)
    if outcome.rows_in_place is None:
        return ending
    message = f"{ending.message}\n{stays_in_place(job, outcome)}".strip()
    return replace(ending, exit_code=ending.exit_code or SHORT, message=message, rows_are_next=False)


def stays_in_place(job: Job, outcome: Outcome) -> str:
    """Say that the output of an earlier run was not replaced."""
    kept, part = outcome.result["funnel"]["kept"], job.output.part_of(job.output.path)
    return (
        f"{job.output.path} stays as it was, with {count_of(outcome.rows_in_place or 0, 'row')}: this run accounts for "
        f"less, with {count_of(kept, 'row')}, which are in {part}."
    )


def report_finished(job: Job, display: Display) -> Ending:
    """Say that a job is finished already; return how it ended then."""
    funnel = (job.output.read_meta() or {})["result"]["funnel"]
    if not funnel["asked"] and funnel["unreadable"]:
        raise nothing_usable(job.reader.name)
    display.print(f"Nothing to do: {job.output.path} is finished.")
    if not job.run.quiet:
        display.print("\n".join(funnel_lines(funnel)))
    return ending_of_input(funnel, None, job.run, job.method)


def refuse_rows_of_others(job: Job) -> None:
    """Raise InputError if another model than sim wrote or judged a row of the input.

    Where a model judges the answers of the input, they must be known to be by sim.
    """
    for record in job.reader.read() if job.method.reads_input else ():
        if isinstance(record, BadLine):
            continue
        names = list(makers(record.meta))
        other = next((name for name in names if not is_sim(name)), None)
        if other:
            raise InputError(
                SIM_REFUSED.format(place=f"{job.reader.name}:{record.line}", work=f"is the work of {other}")
            )
        if job.method.judges_input and not names:
            raise InputError(
                SIM_REFUSED.format(place=f"{job.reader.name}:{record.line}", work="is not the work of sim")
            )
