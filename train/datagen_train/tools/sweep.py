"""`datagen train sweep`: train with several values of some options, and name the trial that is best on held-out rows.

Each trial is an ordinary run of the trainer in a folder of its own below the output, and a process of its own: a trial
that fails, or is killed for its memory, does not end the sweep, and none leaves anything in the memory of the device.
They run one after the other. A trial with a report is finished and is not run again; one that was stopped goes on from
its newest checkpoint.

    out/results.md, results.json    the trials so far, the best first; written anew after each
    out/NAME=VALUE,.../             a trial
    out/logs/                       what each one printed

All trials hold out the same rows, since prompts alone decide that. Options that would change the rows, or what the
metric means, cannot be swept.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from time import monotonic
from typing import Any

from datagen.engine.output import differences
from datagen.errors import InputError
from datagen.installation import program, shown
from datagen.llm.local.hub import resolve_model
from datagen.llm.local.weights import weights_digest
from datagen.printing import printable, printable_json
from datagen.records.files import content_digest
from datagen.signals import INTERRUPTED, LIFELINE, on_stop
from datagen_train.data.sources import Source, data_stem, parse_sources
from datagen_train.errors import Interrupted
from datagen_train.launch import LAUNCHED
from datagen_train.options import ANSWER_METRICS
from datagen_train.run.folder import RunFolder, lock_folder, read_object
from datagen_train.run.terminal import NOTHING_LEARNED, Terminal
from datagen_train.tools.search import (
    combinations,
    describe,
    flag_name,
    folder_name,
    option_words,
    parse_axes,
    trial_arguments,
)
from datagen_train.tools.trials import (
    FAILED,
    LONGEST_REASON,
    RESULTS,
    Sweep,
    Trial,
    as_dict,
    read_trial,
    result_line,
    take_report,
    write_results,
)

METRICS = {
    "pretrain": "eval_loss",
    "sft": "eval_loss",
    "dpo": "eval_loss",
    "distill": "eval_loss",
    "classify": "eval_accuracy",
    "reward": "eval_accuracy",
    "ppo": "eval_reward",
    "grpo": "eval_reward",
}
"""The metric of each trainer; --best exact_match and rouge_l replace it."""
DPO_ACCURACY = "eval_rewards/accuracies"
"""Share of the held-out pairs of which the chosen answer has the higher reward: it compares losses of any form."""
ROWS = {
    "output", "overwrite", "json", "quiet", "nproc", "format", "map", "limit", "held_out", "eval_data", "max_length",
    "generate", "best", "backward", "keep", "report_to", "log_every", "encode_workers",
}  # fmt: skip
"""Options that are never swept: they change which rows are measured, or nothing about the model."""
REWARDS = {"reward", "allow_self", "unscored"}
LOSS = {"model", "teacher", "template", "all_turns", "reasoning", "chat_template_kwargs"}
"""Options that change what the loss of held-out rows means; answers can be compared all the same."""
DPO_LOSS = {"loss", "beta", "label_smoothing"}
DISTILL_LOSS = {"beta", "temperature", "max_tokens"}
SHOWING = {"output", "overwrite", "json", "quiet"}
"""Options that change nothing about the trials."""
STEP = re.compile(r"step (\d+) of (\d+) ")


def lay_out(trainer: str, values: Mapping[str, Any], types: Iterable[Any]) -> Sweep:
    """Return the sweep that a command line describes; nothing is written, and no trial is checked yet.

    Args:
        trainer: its name.
        values: the values of all options and of "data", by name.
        types: the dataclasses of the trainer's options.

    Raises:
        InputError: the swept options do not fit, or the trials could not be compared.
    """
    if LAUNCHED in os.environ:
        raise InputError("a sweep starts the processes of its trials: say --nproc, without a launcher")
    known = {item.name: item for group in types for item in fields(group)}
    data = parse_sources(values["data"])
    if any(source.name == "-" or Path(source.name).is_fifo() for source in data):
        raise InputError("a sweep reads its rows once for each trial: name a file, not standard input or a pipe")
    if not (values["held_out"] or values["eval_data"]):
        raise InputError("a sweep compares trials on held-out rows: raise --held-out, or name --eval-data")
    axes = parse_axes(values["over"] or (), list(known))
    swept = [axis.option for axis in axes]
    given = {name: value for name in known if (value := values[name]) and value != known[name].default}
    if twice := [f"--{flag_name(name)}" for name in swept if name in given]:
        raise InputError(f"{', '.join(twice)}: is swept, so it has no other value; leave it out")
    metric = metric_of(trainer, values["best"], swept)
    refuse_incomparable(trainer, swept, metric)
    shared = {name: value for name, value in given.items() if name not in SHOWING}
    folder = Path(values["output"] or f"{data_stem(data)}.{trainer}.sweep")
    sweep = Sweep(trainer, folder, metric, identity(trainer, data, shared, swept))
    switches = [name for name in swept if known[name].type in (bool, "bool")]
    for settings in combinations(axes, values["random"], values["seed"]):
        words = [*values["data"], *shared_arguments(shared), *trial_arguments(settings, switches)]
        sweep.trials.append(Trial(settings, folder / folder_name(settings), words))
    return sweep


def shared_arguments(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield the values of options as arguments."""
    for name, value in values.items():
        if value is True:
            yield f"--{flag_name(name)}"
        else:
            for item in value if isinstance(value, list | tuple) else [value]:
                yield from option_words(name, item)


def metric_of(trainer: str, best: str | None, swept: Iterable[str]) -> str:
    """Return the metric that compares the trials of a sweep."""
    if best in ANSWER_METRICS:
        return f"eval_{best}"
    return DPO_ACCURACY if trainer == "dpo" and DPO_LOSS & set(swept) else METRICS[trainer]


def refuse_incomparable(trainer: str, swept: Iterable[str], metric: str) -> None:
    """Raise InputError for an option with which trials could not be compared."""
    for option in swept:
        name = f"--over {flag_name(option)}"
        if option in ROWS | REWARDS:
            raise InputError(f"{name}: trials are compared on the same rows, by the same measure; leave it out")
        if option in LOSS | (DISTILL_LOSS if trainer == "distill" else set()) and metric == "eval_loss":
            way = "add --generate 100 --best exact_match" if trainer in ("sft", "dpo", "distill") else "leave it out"
            raise InputError(f"{name}: it changes what the loss of held-out rows means; {way}")


def identity(trainer: str, data: Sequence[Source], shared: Mapping[str, Any], swept: Sequence[str]) -> dict[str, Any]:
    """Return what all trials of a folder share: the trainer, its other options, digests of its files and models.

    Args:
        trainer: its name.
        data: the files of rows.
        shared: its options that are given and not swept, by name.
        swept: the options that are swept.
    """
    inputs: dict[str, Any] = {"data": ", ".join(source.label(content_digest(source.name)) for source in data)}
    if "eval_data" in shared:
        inputs["eval_data"] = content_digest(shared["eval_data"])
    if "model" in shared and shared["model"].partition(":")[0] != "tiny":
        inputs["model"] = weights_digest(resolve_model(shared["model"]))
    if "reward" in shared:
        from datagen_train.rewards.specs import identity as reward_identity

        inputs["reward"] = reward_identity(shared["reward"])
    what = {"command": f"train sweep {trainer}", "over": sorted(swept), **shared, **inputs}
    return dict(json.loads(json.dumps(what)))  # as it is read again


def run(sweep: Sweep, terminal: Terminal, *, overwrite: bool) -> None:
    """Run the trials that are not finished.

    Raises:
        InputError: the folder holds another sweep, or something else.
        Interrupted: the sweep was asked to stop.
    """
    refuse_stranger(sweep.folder)
    sweep.folder.mkdir(parents=True, exist_ok=True)
    with lock_folder(sweep.folder):
        new, earlier = sweep.trials, earlier_trials(sweep, overwrite=overwrite)
        if overwrite:
            for trial in (*earlier, *new):
                clear(trial.folder)
        else:
            present = {trial.folder for trial in new}
            sweep.trials = [*(trial for trial in earlier if trial.folder not in present), *new]
        write_results(sweep)
        for number, trial in enumerate(new, 1):
            name = f"trial {number} of {len(new)}"
            terminal.phase(name)
            # The weights of swept models are not part of the sweep's identity; the trial itself looks at them.
            if "model" in trial.settings or not take_report(sweep, trial):
                run_trial(sweep, trial, terminal, name)
            write_results(sweep)
            terminal.say(f"{name}: {describe(trial.settings)}: {result_line(sweep, trial)}")


def conclude(sweep: Sweep, terminal: Terminal, *, as_json: bool) -> int:
    """Print the trials in their order, the best one with its command; return the exit code."""
    if as_json:
        print(printable_json(as_dict(sweep)))
    best = sweep.best()
    for trial in sweep.ranked():
        terminal.say(f"{'*' if trial is best else ' '} {describe(trial.settings):<40} {result_line(sweep, trial)}")
    terminal.say(f"Table: {sweep.folder}/results.md")
    if best is None:
        words = "failed" if all(trial.outcome == FAILED for trial in sweep.trials) else "learned nothing, or failed"
        text = f"error: every trial {words}; the table says why: {sweep.folder}/results.md"
        print(printable(text), file=sys.stderr)
        return NOTHING_LEARNED
    terminal.say(f"Best: {describe(best.settings)}, in {best.folder}")
    terminal.say(f"Its command: {sweep.command(best)}")
    if sweep.trainer not in ("reward", "classify"):
        terminal.say(f"Next: {program()} train chat {shown(best.folder)}")
    return 0


def refuse_stranger(folder: Path) -> None:
    """Raise InputError if something is in the folder that is no sweep: nothing is written beside it."""
    if folder.is_file():
        raise InputError(f"-o {folder}: is a file; the output of a sweep is a folder")
    others = [path for path in folder.iterdir() if not path.name.endswith(".part")] if folder.exists() else []
    if others and not (folder / RESULTS).exists():
        raise InputError(f"{folder}: exists and holds no sweep of datagen; choose another -o")


def earlier_trials(sweep: Sweep, *, overwrite: bool) -> list[Trial]:
    """Return the trials that the folder holds already, from its results.

    Raises:
        InputError: the folder holds another sweep, and is not to be overwritten; or its results are damaged.
    """
    path = sweep.folder / RESULTS
    if not path.exists():
        return []
    earlier = read_object(path)
    try:
        changes = differences(dict(earlier["sweep"]), sweep.identity)
        trials = [read_trial(sweep.folder, trial) for trial in earlier["trials"]]
    except (LookupError, TypeError, ValueError, AttributeError):
        raise InputError(f"{path}: damaged, or not written by datagen; move its folder away") from None
    if changes and not overwrite:
        raise InputError(
            f"{sweep.folder}: holds another sweep:\n  " + "\n  ".join(changes) + "\nChoose another -o, or --overwrite."
        )
    return [trial for trial in trials if trial.outcome]


def clear(folder: Path) -> None:
    """Remove the run in the folder of a trial."""
    run = RunFolder(folder)
    if folder.is_dir() and run.read_config() is not None:
        with run.locked():
            run.clear()


def run_trial(sweep: Sweep, trial: Trial, terminal: Terminal, name: str) -> None:
    """Run a trial in a process of its own, and take what came of it.

    Raises:
        Interrupted: the sweep was asked to stop; the trial has written a checkpoint if it was training.
    """
    log = sweep.folder / "logs" / f"{trial.folder.name}.txt"
    log.parent.mkdir(exist_ok=True)
    words = ["train", sweep.trainer, *trial.arguments, "-o", str(trial.folder)]

    def show(line: str) -> None:
        if at := STEP.match(line):
            terminal.count(int(at[1]), int(at[2]), "steps")

    began = monotonic()
    status = run_process([sys.executable, "-P", "-m", "datagen", *words], log, show)
    if status == INTERRUPTED:
        raise Interrupted(f"Interrupted in {name}; the same command goes on from there")
    is_whole = status in (0, NOTHING_LEARNED)
    if not (is_whole and take_report(sweep, trial)):
        trial.outcome, trial.reason = FAILED, reason_in(log, status)
    trial.seconds = round(monotonic() - began, 1)


def run_process(command: Sequence[str], log: Path, show: Callable[[str], None]) -> int:
    """Run a command that hears of a stop from this process alone, and ends with it; return its exit code.

    Args:
        command: the command.
        log: the file for what it prints.
        show: gets each line of it.
    """
    processes: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int) -> bool:
        for process in processes:
            if process.stdin:
                with suppress(OSError):  # it has ended
                    os.write(process.stdin.fileno(), bytes([number]))
        return bool(processes)

    with log.open("wb") as file, on_stop(pass_on):
        process = subprocess.Popen(
            command,
            env={**os.environ, LIFELINE: "0"},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        processes.append(process)
        with process:
            for line in process.stderr or ():
                file.write(line)
                file.flush()
                show(line.decode(errors="replace"))
    return process.returncode


def reason_in(log: Path, status: int) -> str:
    """Return why a trial failed: the line of its error, else its last line; of a killed one, the signal."""
    if status < 0:
        return f"killed by signal {-status}"
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (errors or lines or [f"exit code {status}"])[-1][:LONGEST_REASON]
