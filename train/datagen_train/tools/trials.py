"""The trials of a sweep: what came of each, their order, and the table of them for people and for programs."""

import shlex
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from datagen.installation import program, shown
from datagen.printing import printable
from datagen.records.files import replace_file, write_json
from datagen.report.markdown import code, plain
from datagen_train.run.folder import RunFolder
from datagen_train.tools.search import Settings, flag_name, folder_name

LEARNED, NOT_LEARNED, UNKNOWN, FAILED = "learned", "nothing learned", "unknown", "failed"
LONGEST_REASON = 300
"""Characters."""
RESULTS, TABLE = "results.json", "results.md"
KEPT = ("arguments", "outcome", "value", "before", "reason", "seconds")
"""Fields of a trial that are kept in the results."""


@dataclass
class Trial:
    """One combination of values, and what came of it."""

    settings: Settings
    folder: Path
    arguments: list[str]
    """Of the trainer's command, without the output."""
    outcome: str = ""
    """Empty before it has run."""
    value: float | None = None
    before: float | None = None
    reason: str = ""
    """Why it is no result."""
    seconds: float = 0.0


@dataclass
class Sweep:
    """What is tried, in which folder, and how trials are compared."""

    trainer: str
    folder: Path
    metric: str
    identity: dict[str, Any]
    """What must be the same in all trials of the folder."""
    trials: list[Trial] = field(default_factory=list)

    @property
    def sign(self) -> int:
        """1 if more of the metric is better, -1 if less is."""
        return -1 if self.metric == "eval_loss" else 1

    def ranked(self) -> list[Trial]:
        """Return the trials that have run: those that learned, the best first, then the others, the failed last."""
        groups = [LEARNED, UNKNOWN, NOT_LEARNED, FAILED]
        ran = [trial for trial in self.trials if trial.outcome]
        return sorted(ran, key=lambda trial: (groups.index(trial.outcome), -self.sign * (trial.value or 0.0)))

    def best(self) -> Trial | None:
        """Return the best trial; None if none is better than its start."""
        first = next(iter(self.ranked()), None)
        return first if first and first.outcome in (LEARNED, UNKNOWN) else None

    def command(self, trial: Trial) -> str:
        """Return the command that makes the model of a trial."""
        words = [*map(shlex.quote, trial.arguments), "-o", shown(trial.folder)]
        return " ".join([program(), "train", self.trainer, *words])


def take_report(sweep: Sweep, trial: Trial) -> bool:
    """Take the result of a trial from its report; False if it has none yet."""
    run = RunFolder(trial.folder)
    if not run.report.exists():
        return False
    report = run.read_report()
    result = report["result"]
    trial.value, trial.before = result["end"].get(sweep.metric), result["start"].get(sweep.metric)
    trial.seconds = round(report["run"]["seconds"], 1)
    trial.outcome = {True: LEARNED, False: NOT_LEARNED, None: UNKNOWN}[result["learned"]]
    trial.reason = "" if result["learned"] else str(result["outcome"])[:LONGEST_REASON]
    if trial.value is None or not isfinite(trial.value):
        trial.outcome, trial.reason = FAILED, f"{shown_metric(sweep)} was not measured, or is no number"
    return True


def write_results(sweep: Sweep) -> None:
    """Write the table of all trials, for programs and for people."""
    write_json(sweep.folder / RESULTS, as_dict(sweep))
    replace_file(sweep.folder / TABLE, table(sweep).encode(errors="backslashreplace"))


def as_dict(sweep: Sweep) -> dict[str, Any]:
    """Return the sweep as JSON: what it is, and all trials, the best first, those that have not run last."""
    best, waiting = sweep.best(), [trial for trial in sweep.trials if not trial.outcome]
    trials = [
        {
            "settings": {flag_name(option): value for option, value in trial.settings.items()},
            "folder": str(trial.folder),
            "command": sweep.command(trial),
            **{name: getattr(trial, name) for name in KEPT},
        }
        for trial in (*sweep.ranked(), *waiting)
    ]
    return {
        "metric": sweep.metric,
        "best": str(best.folder) if best else None,
        "trials": trials,
        "sweep": sweep.identity,
    }


def table(sweep: Sweep) -> str:
    """Return the trials as a table in Markdown, the best one in bold."""
    best, options = sweep.best(), list(sweep.trials[0].settings)
    heads = ["", *map(flag_name, options), shown_metric(sweep), "before", "seconds", "folder", "remark"]
    lines = [f"# Sweep of {sweep.trainer}", "", f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for rank, trial in enumerate(sweep.ranked(), 1):
        mark = "**best**" if trial is best else str(rank)
        values = [plain(trial.settings[option]) for option in options]
        numbers = ["" if value is None else f"{value:.4g}" for value in (trial.value, trial.before, trial.seconds)]
        remark = plain(f"failed: {trial.reason}" if trial.outcome == FAILED else trial.reason)
        lines.append(f"| {' | '.join([mark, *values, *numbers, code(trial.folder.name), remark])} |")
    if best:
        lines += [
            "",
            f"The best trial is in {code(best.folder)}. Its command:",
            "",
            f"    {shown_command(sweep, best)}",
        ]
    return "\n".join(lines) + "\n"


def shown_command(sweep: Sweep, trial: Trial) -> str:
    """Return the command of a trial in one line."""
    return printable(sweep.command(trial)).replace("\n", " ")


def shown_metric(sweep: Sweep) -> str:
    """Return the name of the metric as people read it."""
    return sweep.metric.removeprefix("eval_")


def result_line(sweep: Sweep, trial: Trial) -> str:
    """Return what came of a trial in one line."""
    if trial.outcome == FAILED:
        return f"failed: {trial.reason}"
    remark = " (nothing learned)" if trial.outcome == NOT_LEARNED else ""
    return f"{shown_metric(sweep)} {trial.value:.4g}{remark}"


def read_trial(folder: Path, values: dict[str, Any]) -> Trial:
    """Read a trial of the results. Its folder follows from its values: no name in a file leads out of the sweep.

    Raises:
        LookupError, TypeError, ValueError, AttributeError: it was not written by `as_dict`.
    """
    settings = {str(name).replace("-", "_"): str(value) for name, value in values["settings"].items()}
    trial = Trial(settings, folder / folder_name(settings), list(map(str, values["arguments"])))
    trial.outcome, trial.reason, trial.seconds = values["outcome"], str(values["reason"]), float(values["seconds"])
    trial.value, trial.before = (None if values[name] is None else float(values[name]) for name in ("value", "before"))
    if trial.outcome not in ("", LEARNED, NOT_LEARNED, UNKNOWN, FAILED):
        raise ValueError(trial.outcome)
    return trial
