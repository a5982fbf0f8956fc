"""What a person sees on standard error: a live bar on a terminal, plain lines elsewhere, and the funnel at the end.

Text from files and models passes through `shown` first: a terminal obeys control characters.
"""

import asyncio
import re
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from time import monotonic

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from datagen.engine.job import Job
from datagen.engine.scheduler import Engine
from datagen.records.record import BadLine, Candidate, Row

REFRESH_EVERY, LINE_EVERY = 0.2, 10.0
"""Seconds: the live bar, and plain lines."""
RATE_OVER = 5.0
"""Seconds over which requests per second are counted."""
BAD_LINES_SHOWN = 5
UNSAFE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: object) -> str:
    """Make text safe to print: control and direction characters become escapes."""
    return UNSAFE.sub(lambda match: match[0].encode("unicode_escape", "surrogatepass").decode(), str(text))


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lay cells out in columns, the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        first, *rest = (
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join([first, *rest]).rstrip())
    return lines


def funnel_lines(funnel: Row) -> list[str]:
    """Say where every candidate ended, as `Funnel.as_dict` has it."""
    asked, kept = funnel["asked"], funnel["kept"]
    rows = [
        ("asked", asked, ""),
        ("kept", kept, f"{100 * kept / asked:.1f} %" if asked else ""),
        ("rejected", sum(funnel["rejected"].values()), counts(funnel["rejected"])),
        ("failed", sum(funnel["failed"].values()), counts(funnel["failed"])),
        ("unreadable lines", funnel["unreadable"], ""),
    ]
    width = max(len(str(number)) for _, number, _ in rows)
    return [
        f"{name:<16}  {number:>{width}}  {note}".rstrip()
        for name, number, note in rows
        if number or name != "unreadable lines"
    ]


def counts(counter: Mapping[str, int]) -> str:
    """List reasons, the most frequent first."""
    ordered = sorted(counter.items(), key=lambda pair: (-pair[1], pair[0]))
    return ", ".join(f"{reason} {number}" for reason, number in ordered)


class Display:
    """Watches a run."""

    def __init__(self, *, quiet: bool = False, verbose: bool = False) -> None:
        self._quiet, self._verbose = quiet, verbose
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._live: Live | None = None
        self._task: asyncio.Task[None] | None = None
        self._bad_lines = 0
        self._sent: deque[tuple[float, int]] = deque()

    def say(self, text: str) -> None:
        """Print a line for the user, above the live bar if there is one."""
        self._console.print(Text(printable(text)))

    def begin(self, engine: Engine, job: Job) -> None:
        """Start to show how a run is going."""
        self._engine, self._job, self._start = engine, job, monotonic()
        self._total = self._count_total()
        if self._quiet:
            return
        if self._console.is_terminal:
            self._live = Live(self._render(), console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        self._task = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_EVERY if self._live else LINE_EVERY)
            if self._live:
                self._live.update(self._render(), refresh=True)
            else:
                print(" · ".join(self._lines()), file=sys.stderr, flush=True)

    def end(self) -> None:
        """Clear the live bar."""
        if self._task:
            self._task.cancel()
        if self._live:
            self._live.stop()
        if self._bad_lines > BAD_LINES_SHOWN and not self._verbose:
            self.say(f"and {self._bad_lines - BAD_LINES_SHOWN} more lines that cannot be used")

    def bad_line(self, bad: BadLine) -> None:
        """Report an input line that cannot be used; the first few, unless all are wanted."""
        self._bad_lines += 1
        if self._verbose or self._bad_lines <= BAD_LINES_SHOWN:
            self.say(f"{bad} (skipped)")

    def failed(self, candidate: Candidate) -> None:
        """Report a failed candidate, if all are wanted."""
        if self._verbose:
            row = candidate.row
            self.say(f"{row['record'].get('id')}: {row['stage']}: {row['reason']} {row['record'].get('error') or ''}")

    def interrupted(self) -> None:
        """Say what an interrupt does."""
        if self._live:
            self._live.stop()
            self._live = None
        waiting = self._engine.stack.in_flight
        self.say(f"Stopping: {waiting} requests in flight are waited for. Ctrl-C again to quit at once.")

    def _count_total(self) -> int | None:
        """Say how many there will be of what `_done` counts, if that is known."""
        run = self._job.run
        if run.n:
            return run.n
        lines = self._job.reader.count_lines()
        return min(lines, run.limit or lines) * self._engine.per_record if lines else None

    def _done(self) -> int:
        engine = self._engine
        return engine.fold.funnel.kept if self._job.run.n else engine.produced.total()

    def _lines(self) -> tuple[str, str]:
        """How far, and how: what is made counts at once, also behind what is written in order."""
        stack, used, made = self._engine.stack, self._engine.answered, self._engine.produced
        of = f" of {'' if self._job.run.n else 'about '}{self._total}" if self._total else ""
        far = f"{self._done()}{of} {'rows' if self._job.run.n else 'candidates'} · {self._clock()}"
        how = [
            f"kept {made['kept']}, rejected {made['rejected']}, failed {made['failed']}",
            f"{used.calls:,} answers, {self._rate():.0f} requests/s",
            f"in flight {stack.in_flight} of {stack.limit}",
            f"replayed {stack.journal.replayed}",
            f"{used.prompt_tokens + used.completion_tokens:,} tokens",
        ]
        return far, " · ".join(how)

    def _rate(self) -> float:
        now, sent = monotonic(), self._engine.stack.sent
        self._sent.append((now, sent))
        while self._sent[0][0] < now - RATE_OVER:
            self._sent.popleft()
        then, before = self._sent[0]
        return (sent - before) / (now - then) if now > then else 0.0

    def _clock(self) -> str:
        seconds, done = monotonic() - self._start, self._done()
        left = f", about {clock(seconds * (self._total - done) / done)} left" if self._total and done else ""
        return clock(seconds) + left

    def _render(self) -> RenderableType:
        far, how = self._lines()
        bar = Table.grid(padding=(0, 1))
        progress = ProgressBar(total=self._total, completed=self._done(), width=40)
        bar.add_row(Text(self._job.method.name), progress, Text(far, no_wrap=True))
        return Group(bar, Text(how, overflow="ellipsis", no_wrap=True))


def clock(seconds: float) -> str:
    """Write a time as m:ss."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
