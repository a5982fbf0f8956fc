"""What a call of the API shows while it runs: live lines on a terminal and in a notebook, or nothing."""

import asyncio
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from datagen.commands.terminal import Display
from datagen.engine.job import Job
from datagen.engine.scheduler import Engine
from datagen.printing import printable
from datagen.records.record import BadLine, Candidate

NOTEBOOK_WIDTH = 100
"""Characters of a line in the output of a notebook's cell."""


def notebook() -> Any:
    """Return IPython's module of displays in a notebook, else None. Nothing is imported that is not loaded already."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is None or not hasattr(shell, "kernel"):
        return None
    return import_module("IPython.display")


def is_watched() -> bool:
    """Does anybody see the progress: on a terminal, or in a notebook?"""
    return sys.stderr.isatty() or notebook() is not None


class NotebookLines:
    """Lines in the output of a notebook's cell that are replaced in place: plain text, never markup."""

    width = NOTEBOOK_WIDTH

    def __init__(self, display: Any) -> None:
        self._handle = display.display({"text/plain": ""}, raw=True, display_id=True)

    def draw(self, lines: Sequence[str]) -> None:
        self._handle.update({"text/plain": printable("\n".join(lines))}, raw=True)

    def clear(self) -> None:
        self._handle.update({"text/plain": ""}, raw=True)


@dataclass
class Interrupt:
    """How the thread of a blocked caller tells the run to stop."""

    stop: Callable[[], object] = lambda: None
    """Stops the run as soon as there is one."""
    is_requested: bool = False

    def request(self) -> None:
        self.is_requested = True
        self.stop()


class Observer:
    """A RunObserver that keeps what is to be said of a call, and shows its progress where somebody watches.

    Args:
        shows: Whether to show it.
        interrupt: What stops the run from another thread.
    """

    def __init__(self, shows: bool, interrupt: Interrupt | None) -> None:
        self.bad_lines: list[BadLine] = []
        self.details: dict[str, str] = {}
        """For each reason of a failed candidate, the words of the first one."""
        display = notebook()
        lines = (lambda: NotebookLines(display)) if display else None
        self._display = Display(live_lines=lines) if shows else None
        self._interrupt = interrupt

    def begin(self, job: Job, engine: Engine) -> None:
        if self._interrupt:
            loop = asyncio.get_running_loop()
            self._interrupt.stop = lambda: loop.call_soon_threadsafe(engine.stop.now, "interrupted")
            if self._interrupt.is_requested:
                engine.stop.now("interrupted")
        if self._display:
            self._display.begin(job, engine)

    def bad_line(self, bad: BadLine) -> None:
        self.bad_lines.append(bad)

    def failure(self, candidate: Candidate) -> None:
        if detail := candidate.row["record"].get("error"):
            self.details.setdefault(candidate.reason, str(detail))

    def end(self) -> None:
        if self._display:
            self._display.end()
