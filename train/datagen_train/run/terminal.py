"""What a person sees of a training run: progress, messages and results on standard error."""

import json
import shlex
import sys
from time import monotonic
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from transformers import TrainerState

from datagen.commands.terminal import clock, printable
from datagen_train.options import TrainOptions
from datagen_train.run.report import worse

LINE_METRICS = (
    "reward",
    "eval_reward",
    "kl",
    "ended",
    "loss",
    "eval_loss",
    "rewards/accuracies",
    "eval_rewards/accuracies",
    "accuracy",
    "eval_accuracy",
    "eval_exact_match",
    "eval_rouge_l",
)
"""Metrics of a progress line, in this order."""
GATE_FAILED = 3
"""Exit code of a run whose result is worse than its start."""


class Terminal:
    """Shows progress: a live bar on a terminal, elsewhere one line at every log."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._live: Live | None = None
        self._began: tuple[float, int] | None = None

    def say(self, text: str) -> None:
        """Print a message, with control characters escaped."""
        if not self._quiet:
            self._console.print(Text(printable(text)))

    def show(self, state: TrainerState, numbers: dict[str, Any]) -> None:
        """Show the step, the time and the metrics of a run."""
        if self._quiet:
            return
        if self._began is None:
            self._began = (monotonic(), state.global_step)
        values = ", ".join(f"{name} {numbers[name]:.4g}" for name in LINE_METRICS if name in numbers)
        if not values:
            return
        seconds, steps = monotonic() - self._began[0], state.global_step - self._began[1]
        left = f", about {clock(seconds / steps * (state.max_steps - state.global_step))} left" if steps > 0 else ""
        position = f"step {state.global_step} of {state.max_steps}" if state.max_steps else "before the first step"
        line = f"{position} · {clock(seconds)}{left} · {values}"
        if not self._console.is_terminal:
            print(line, file=sys.stderr, flush=True)
            return
        if any(name.startswith("eval") for name in numbers):
            self.say(line)  # it stays above the bar
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        bar = Table.grid(padding=(0, 1))
        bar.add_row(ProgressBar(total=state.max_steps, completed=state.global_step, width=40), Text(line, no_wrap=True))
        self._live.update(bar, refresh=True)
        if state.global_step >= state.max_steps:
            self.end()

    def end(self) -> None:
        """Clear the live bar."""
        if self._live:
            self._live.stop()
            self._live = None

    def conclude(self, report: dict[str, Any], options: TrainOptions) -> int:
        """Print the result of a run and the next command; return the exit code."""
        self.end()
        result = report["result"]
        if options.json:
            print(json.dumps(report, indent=2, ensure_ascii=False))
        for name, value in result["end"].items():
            before = result["start"].get(name)
            change = f"{'' if before is None else f'{before:.4g}'} → {value:.4g}"
            self.say(f"{name:<28} {change}{worse(name, result['start'], value)}")
        folder = report["folder"]
        self.say(f"Model: {folder}   curves: {folder}/run/curves.svg   card: {folder}/README.md")
        if str(result.get("gate", "")).startswith("failed"):
            print(f"error: gate {result['gate']}: the model got worse at what it is for", file=sys.stderr)
            return GATE_FAILED
        for paragraph in result.get("about", []):
            self.say(paragraph)
        self.say(f"{result.get('next', 'datagen train chat')} {shlex.quote(folder)}")
        return 0
