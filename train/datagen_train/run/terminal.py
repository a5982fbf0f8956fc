"""What a person sees of a training run on standard error: what it does now, its progress, messages and the result.

On a terminal live lines show it from the first second on, while the libraries are imported; a thread draws them, since
a step or an import may take long. They are never wider than the terminal: what matters least is left out first.
Elsewhere a plain line is printed at every log, and for whatever else takes long.
"""

import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from threading import Event, RLock, Thread
from time import monotonic
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.text import Text

from datagen.commands.live import SEPARATOR, LiveLines
from datagen.commands.next_steps import after_training
from datagen.llm.local.weights import is_adapter
from datagen.printing import printable, printable_json
from datagen.signals import on_stop
from datagen_train.options import TrainOptions
from datagen_train.run.progress import TRAINING, Numbers, Progress, metric_fields
from datagen_train.run.report import worse

if TYPE_CHECKING:
    from transformers import TrainerState

REFRESH_EVERY, SAY_PHASE_AFTER = 0.25, 5.0
"""Seconds between two drawings of the live lines; seconds after which a plain line names the phase."""
NOTHING_LEARNED = 3
"""Exit code of a run that made no better model than the one it started from."""


class Terminal:
    """Shows a run while it lasts.

    Args:
        name: the command.
        quiet: show nothing.
    """

    def __init__(self, name: str, *, quiet: bool) -> None:
        self._quiet = quiet
        self._progress = Progress(name)
        self._console = Console(file=sys.stderr, highlight=False, soft_wrap=True)
        is_live = self._console.is_terminal and not self._console.is_dumb_terminal
        self._live = LiveLines(self._console) if is_live else None
        self._lock = RLock()
        self._ended = Event()
        self._thread: Thread | None = None
        self._until_end = ExitStack()
        self._mid_line = False
        """Whether something else has written a part of a line: the live lines wait for its end."""

    def begin(self) -> None:
        """Start to show what happens, until `end`."""
        if self._quiet:
            return
        if self._live:
            sys.stdout, sys.stderr = (Above(stream, self._write_above) for stream in (sys.stdout, sys.stderr))
            self._until_end.enter_context(on_stop(self._clear_at_stop))
        self._thread = Thread(target=self._refresh, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Erase the live lines."""
        self._erase()
        if self._thread is None:
            return
        self._thread = None
        self._until_end.close()
        if self._live:
            sys.stdout, sys.stderr = (getattr(stream, "stream", stream) for stream in (sys.stdout, sys.stderr))

    def say(self, text: str) -> None:
        """Print a message, with control characters escaped."""
        if not self._quiet:
            with self._lock:
                if self._live:
                    self._live.clear()
                self._console.print(Text(printable(text)))
                self._draw()

    def phase(self, name: str) -> None:
        """Say what the run does from now on."""
        self._progress.enter(name)

    def count(self, done: int, total: int | None = None, unit: str = "") -> None:
        """Say how far the phase is, where it consists of equal parts."""
        self._progress.part = f"{done:,}{'' if total is None else f' of {total:,}'} {unit}".rstrip()

    def step(self, state: "TrainerState") -> None:
        """Say at which step the training is."""
        self._progress.move(state.global_step, state.max_steps)

    def update(self, numbers: Numbers) -> None:
        """Take the metrics of a step, which are logged later."""
        self._progress.numbers = {**self._progress.numbers, **numbers}

    def show(self, state: "TrainerState", numbers: dict[str, Any]) -> None:
        """Show the metrics of a log or a measurement, and at which step they were taken."""
        progress, is_measurement = self._progress, any(name.startswith("eval") for name in numbers)
        progress.move(state.global_step, state.max_steps)
        if not is_measurement:
            self.update(numbers)
        if not self._quiet and (is_measurement or not self._live) and metric_fields(numbers):
            self.say(progress.plain_line(numbers, with_time=not self._live))

    def conclude(self, report: dict[str, Any], options: TrainOptions, data: str) -> int:
        """Print the result of a run on `data` and the next commands; return the exit code."""
        self.end()
        result = report["result"]
        if options.json:
            print(printable_json(report))
        for name, value in result["end"].items():
            before = result["start"].get(name)
            change = f"{'' if before is None else f'{before:.4g}'} → {value:.4g}"
            self.say(f"{name:<28} {change}{worse(name, result['start'], value)}")
        folder = report["folder"]
        self.say(f"Model: {folder}   curves: {folder}/run/curves.svg   card: {folder}/README.md")
        for paragraph in result.get("about", []):
            self.say(paragraph)
        if result["learned"] is False:
            print(f"error: {printable(result['outcome'])}", file=sys.stderr)
            return NOTHING_LEARNED
        if result["learned"] is None:
            self.say(result["outcome"])
        command = result["command"].removeprefix("train ")
        for line in after_training(
            command, Path(folder), Path(data), options.model, is_adapter=is_adapter(Path(folder))
        ):
            self.say(line)
        return 0

    def _refresh(self) -> None:
        """Draw the live lines, or name a phase that lasts, until the end."""
        named = 0.0
        while not self._ended.wait(REFRESH_EVERY):
            progress = self._progress
            if self._live:
                with self._lock:
                    self._draw()
            elif progress.phase != TRAINING and named != progress.phase_start < monotonic() - SAY_PHASE_AFTER:
                named = progress.phase_start
                self.say(SEPARATOR.join(progress.head()))

    def _draw(self) -> None:
        if self._live and self._thread and not self._mid_line:
            ascii_only = self._console.options.ascii_only
            self._live.draw(self._progress.lines(self._live.width, ascii_only=ascii_only))

    def _write_above(self, stream: TextIO, text: str) -> None:
        with self._lock:
            if self._live:
                self._live.clear()
            stream.write(text)
            stream.flush()
            self._mid_line = not text.endswith("\n") if text else self._mid_line

    def _erase(self) -> None:
        self._ended.set()
        if self._thread:
            self._thread.join(timeout=1)  # it may wait for the lock that a signal has found taken
        if self._live:
            self._live.clear()

    def _clear_at_stop(self, _: int) -> bool:
        """Erase the live lines before the process ends: something else may stop in another way."""
        self._erase()
        return False


class Above:
    """A stream whose text appears above the live lines.

    Args:
        stream: the stream itself.
        write: writes to it.
    """

    def __init__(self, stream: TextIO, write: Callable[[TextIO, str], None]) -> None:
        self.stream, self._write = stream, write

    def write(self, text: str) -> int:
        self._write(self.stream, text)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)
