"""What is printed to standard error: a live bar on a terminal, plain lines elsewhere, and the funnel at the end.

Text from files and models goes through `printable` first, since a terminal obeys control characters.
"""

import asyncio
import re
import shlex
import signal
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import monotonic

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from datagen.engine.job import Job, Outcome
from datagen.engine.scheduler import Engine
from datagen.errors import InputError
from datagen.records.record import BadLine, Candidate, Row

REFRESH_EVERY, LINE_EVERY = 0.2, 10.0
"""Seconds between two refreshes of the live bar, and between two plain lines."""
RATE_WINDOW = 5.0
"""Seconds over which requests per second are measured."""
MAX_BAD_LINES = 5
"""Unusable lines that are printed without --verbose."""
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
ENDINGS = {
    "cap": "Stopped at --max-calls {run.max_calls}. To continue, raise it:",
    "interrupted": "Interrupted; what was paid for is recorded. To continue:",
    "outage": "error: {error}\nWhat was paid for is recorded. To continue:",
    "failures": "More than --max-failed {run.max_failed} candidates failed: {failed}. To try them again:",
    "incomplete": "Failed: {failed}. The same command tries these again, and nothing else:",
    "stall": "Short of -n {run.n}: {candidates} candidates gave {kept} rows; dropped: {dropped}.",
}
"""Messages for a run that ended early or incomplete, by reason or status. All but `stall` precede the command."""
UNSAFE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: object) -> str:
    """Make text safe to print: control and direction characters become escapes."""
    return UNSAFE.sub(lambda match: match[0].encode("unicode_escape", "surrogatepass").decode(), str(text))


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lay cells out in columns, the first one left-aligned, the others right-aligned."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells[1:]]).rstrip())
    return lines


def funnel_lines(funnel: Row) -> list[str]:
    """Return lines with the number of candidates by their outcome; `funnel` as in x.meta.json."""
    candidates, kept = funnel["asked"], funnel["kept"]
    rows = [
        ("asked", candidates, ""),
        ("kept", kept, f"{100 * kept / candidates:.1f} %" if candidates else ""),
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
    """List reasons with their numbers, the most frequent first."""
    ordered = sorted(counter.items(), key=lambda pair: (-pair[1], pair[0]))
    return ", ".join(f"{reason} {number}" for reason, number in ordered)


@dataclass(eq=False)
class Display:
    """A RunObserver that shows the run on standard error and stops it at Ctrl-C."""

    quiet: bool = False
    verbose: bool = False
    _console: Console = field(default_factory=partial(Console, stderr=True, highlight=False, soft_wrap=True))
    _live: Live | None = None
    _timer: asyncio.TimerHandle | None = None
    _bad_lines: int = 0
    _sent: deque[tuple[float, int]] = field(default_factory=deque)
    """The time, and the requests sent until then."""

    def print(self, text: str) -> None:
        """Print lines for the user, above the live bar if there is one."""
        self._console.print(Text(printable(text)))

    def begin(self, job: Job, engine: Engine) -> None:
        """Start to show the run. The first Ctrl-C (or SIGTERM) drains it, the second ends the process; both lose
        nothing."""
        self._job, self._engine, self._start = job, engine, monotonic()
        lines = None if job.run.n else job.reader.count_lines()
        self._total = min(lines, job.run.limit or lines) * engine.per_record if lines else job.run.n
        self._loop = asyncio.get_running_loop()
        for name in STOP_SIGNALS:
            self._loop.add_signal_handler(name, self._interrupt)
        if not self.quiet:
            if self._console.is_terminal:
                self._live = Live(self._render(), console=self._console, auto_refresh=False, transient=True)
                self._live.start()
            self._timer = self._loop.call_later(REFRESH_EVERY if self._live else LINE_EVERY, self._refresh)

    def _refresh(self) -> None:
        if self._live:
            self._live.update(self._render(), refresh=True)
        else:
            print(" · ".join(self._lines()), file=sys.stderr, flush=True)
        self._timer = self._loop.call_later(REFRESH_EVERY if self._live else LINE_EVERY, self._refresh)

    def _interrupt(self) -> None:
        for name in STOP_SIGNALS:
            self._loop.remove_signal_handler(name)
            signal.signal(name, signal.SIG_DFL)
        self._engine.stop.now("interrupted")
        if self._live:
            self._live.stop()
            self._live = None
        waiting = self._engine.stack.traffic.in_flight
        self.print(f"Stopping: waiting for {waiting} requests in flight. Ctrl-C again to quit at once.")

    def end(self) -> None:
        """Clear the live bar."""
        if self._timer:
            self._timer.cancel()
        if self._live:
            self._live.stop()
        if self._bad_lines > MAX_BAD_LINES and not self.verbose:
            self.print(f"and {self._bad_lines - MAX_BAD_LINES} more unusable lines")

    def report(self, job: Job, outcome: Outcome) -> None:
        """Print how a run ended, and why if it ended early.

        Raises:
            InputError: No row of the input could be used.
            BaseException: The error that ended the run.
        """
        result, funnel, run = outcome.result, outcome.result["funnel"], outcome.run
        if outcome.unrecorded:
            lost = f"up to {outcome.unrecorded} requests were in flight, paid for and lost"
            self.print(f"An earlier run was killed: {lost}.")
        if not job.run.quiet:
            for table in outcome.tables:
                if len(table) > 1:
                    self.print("\n".join(columns(table)) + "\n")
            self.print("\n".join(funnel_lines(funnel)))
            self.print(
                f"{run['requests']} requests in {run['seconds']:.1f} s, {run['replayed']} answers replayed, "
                f"{result['usage']['prompt_tokens']:,} + {result['usage']['completion_tokens']:,} tokens"
            )
            if run["surplus"]:
                self.print(f"{run['surplus']} more candidates were generated and not written; they are free next time.")
        if outcome.error is not None and outcome.reason == "error":
            raise outcome.error
        if not run["records"]:
            raise InputError(f"{job.reader.name}: no row could be used")
        ending = outcome.reason if outcome.reason in ENDINGS else outcome.status
        if ending in ENDINGS:
            message = ENDINGS[ending].format(
                run=job.run,
                error=outcome.error,
                candidates=funnel["asked"],
                kept=funnel["kept"],
                failed=counts(funnel["failed"]),
                dropped=counts(funnel["rejected"] | funnel["failed"]),
            )
            self.print(message if ending == "stall" else f"{message}\n{shlex.join(['datagen', *sys.argv[1:]])}")

    def bad_line(self, bad: BadLine) -> None:
        """Print an unusable input line: the first few, or with --verbose all of them."""
        self._bad_lines += 1
        if self.verbose or self._bad_lines <= MAX_BAD_LINES:
            self.print(f"{bad} (skipped)")

    def failure(self, candidate: Candidate) -> None:
        """Print a failed candidate, with --verbose."""
        if self.verbose:
            row = candidate.row
            self.print(f"{row['record'].get('id')}: {row['stage']}: {row['reason']} {row['record'].get('error') or ''}")

    def _lines(self) -> tuple[str, str]:
        """Return the progress, and the rates and numbers behind it.

        Candidates count as soon as they are generated, even if they wait for others to be written in order.
        """
        engine, now = self._engine, monotonic()
        stack, usage, statuses, run = engine.stack, engine.usage, engine.status_counts, self._job.run
        traffic = stack.traffic
        self._sent.append((now, traffic.sent))
        while self._sent[0][0] < now - RATE_WINDOW:
            self._sent.popleft()
        then, before = self._sent[0]
        rate = (traffic.sent - before) / (now - then) if now > then else 0.0
        done, seconds = self._done(), now - self._start
        total = f" of {'' if run.n else 'about '}{self._total}" if self._total else ""
        left = f", about {clock(seconds * (self._total - done) / done)} left" if self._total and done else ""
        progress = f"{done}{total} {'rows' if run.n else 'candidates'} · {clock(seconds)}{left}"
        numbers = [
            f"kept {statuses['kept']}, rejected {statuses['rejected']}, failed {statuses['failed']}",
            f"{usage.calls:,} answers, {rate:.0f} requests/s",
            f"in flight {traffic.in_flight} of {stack.limit}",
            f"replayed {stack.journal.replayed}",
            f"{usage.prompt_tokens + usage.completion_tokens:,} tokens",
        ]
        return progress, " · ".join(numbers)

    def _done(self) -> int:
        """The rows so far with -n, else the candidates so far; `_total` counts the same."""
        return self._engine.fold.funnel.kept if self._job.run.n else self._engine.status_counts.total()

    def _render(self) -> RenderableType:
        progress, numbers = self._lines()
        bar = ProgressBar(total=self._total, completed=self._done(), width=40)
        grid = Table.grid(padding=(0, 1))
        grid.add_row(Text(self._job.method.name), bar, Text(progress, no_wrap=True))
        return Group(grid, Text(numbers, overflow="ellipsis", no_wrap=True))


def clock(seconds: float) -> str:
    """Format a time as m:ss."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
