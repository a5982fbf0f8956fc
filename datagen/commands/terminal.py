"""What is printed to standard error: a live bar on a terminal, plain lines elsewhere, and the funnel at the end.

Text from files and models goes through `printable` first, since a terminal obeys control characters.
"""

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from rich.console import Console
from rich.text import Text

from datagen.commands.live import Lines, LiveLines, Progress
from datagen.engine.job import Job, Outcome
from datagen.engine.scheduler import Engine
from datagen.errors import nothing_usable
from datagen.llm.prices import FREE, dollars
from datagen.printing import printable
from datagen.records.record import BadLine, Candidate, Row
from datagen.text import count_of

REFRESH_EVERY, LINE_EVERY = 0.2, 10.0
"""Seconds between two refreshes of the live bar, and between two plain lines."""
LEAST_NAME = len("unreadable lines")
"""Characters of the names in the funnel, so that the numbers of most runs stand in one place."""
MAX_BAD_LINES = 5
"""Unusable lines that are printed without --verbose."""


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lay cells out in columns, the first one left-aligned, the others right-aligned."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells[1:]]).rstrip())
    return lines


def funnel_lines(funnel: Row) -> list[str]:
    """Return lines with the number of candidates by their outcome, and with what was asked for and not obtained;
    `funnel` as in x.meta.json."""
    candidates, kept = funnel["asked"], funnel["kept"]
    rows = [
        ("asked", candidates, ""),
        ("kept", kept, f"{100 * kept / candidates:.1f} %" if candidates else ""),
        ("rejected", sum(funnel["rejected"].values()), counts(funnel["rejected"])),
        ("failed", sum(funnel["failed"].values()), counts(funnel["failed"])),
    ]
    others = [("unreadable lines", funnel["unreadable"], "")]
    others += [(name, ask["missing"], f"of {ask['asked']}") for name, ask in funnel.get("unobtained", {}).items()]
    rows += [row for row in others if row[1]]
    longest, width = max(LEAST_NAME, *(len(row[0]) for row in rows)), max(len(str(row[1])) for row in rows)
    return [f"{name:<{longest}}  {number:>{width}}  {note}".rstrip() for name, number, note in rows]


def account_lines(result: Row, run: Row) -> list[str]:
    """Return lines with the answers, tokens and requests of a run; `result` and `run` as in x.meta.json."""
    spent, written, seconds = run["usage"], result["usage"], f"{run['seconds']:.1f} s"
    if not spent["calls"] and not run["requests"]:
        return [f"{count_of(run['records'], 'row')} read in {seconds}"]
    tokens = count_of(written["prompt_tokens"] + written["completion_tokens"], "token")
    part = "all" if spent == written else f"of these {count_of(written['calls'], 'answer')}, {tokens}"
    lines = [
        f"{count_of(spent['calls'], 'answer')} used, {spent['prompt_tokens']:,} prompt + "
        f"{count_of(spent['completion_tokens'], 'completion token')};",
        f"{part} in the {count_of(result['funnel']['asked'], 'candidate')} written",
        f"{count_of(run['requests'], 'request')} sent in {seconds}, {count_of(run['replayed'], 'answer')} replayed",
    ]
    if run["unanswered"]:
        lines.append(f"{count_of(run['unanswered'], 'request')} paid for without an answer that can be used")
    if run["surplus"]:
        lines.append(f"{count_of(run['surplus'], 'more candidate')} generated and not written; free next time")
    return lines + cost_lines(result, run)


def cost_lines(result: Row, run: Row) -> list[str]:
    """Return lines with the cost of the rows and of the run; none if every model runs here, at no price."""
    sources = {name: price and price["source"] for name, price in run["prices"].items()}
    if set(sources.values()) <= {FREE.source}:
        return []
    used, kept = result["usage"], result["funnel"]["kept"]
    if used["cost"] is None or run["paid"] is None:
        names = ", ".join(name for name, source in sources.items() if source is None)
        return [f"cost unknown: there is no price for {names} (--price IN/OUT, in dollars per million tokens)"]
    each = f", {dollars(used['cost'] / kept)} a kept row" if kept else ""
    places = ", ".join(sorted({source for source in sources.values() if source not in (None, FREE.source)}))
    if not places:  # a model without a price was asked nothing
        return []
    lines = [f"cost {dollars(used['cost'])}{each}; paid by this run {dollars(run['paid'])} (prices: {places})"]
    if run["paid_unanswered"]:
        lines.append(f"of this up to {dollars(run['paid_unanswered'])} for requests without an answer")
    if used["estimated"]:
        lines.append(f"{count_of(used['estimated'], 'answer')} came without numbers of tokens: theirs are estimated")
    if len({(part["role"], part["model"]) for part in result["spending"]}) > 1:
        lines += [f"  {line}" for line in columns(cost_rows(result["spending"]))]
    return lines


def cost_rows(spending: Sequence[Row]) -> list[list[str]]:
    """Return a table of the answers and the cost of each model in each role."""
    sums: dict[tuple[str, str], tuple[int, float]] = {}
    for part in spending:
        calls, cost = sums.get((part["role"], part["model"]), (0, 0.0))
        sums[part["role"], part["model"]] = calls + part["calls"], cost + part["cost"]
    return [[" ".join(names), count_of(calls, "answer"), dollars(cost)] for names, (calls, cost) in sums.items()]


def counts(counter: Mapping[str, int]) -> str:
    """List reasons with their numbers, the most frequent first."""
    ordered = sorted(counter.items(), key=lambda pair: (-pair[1], pair[0]))
    return ", ".join(f"{reason} {number}" for reason, number in ordered)


@dataclass(eq=False)
class Display:
    """A RunObserver that shows the run on standard error and stops it at Ctrl-C."""

    quiet: bool = False
    verbose: bool = False
    live_lines: Callable[[], Lines] | None = None
    """Makes the lines that are drawn in place; None for those of a terminal, if this is one."""
    _console: Console = field(default_factory=partial(Console, stderr=True, highlight=False, soft_wrap=True))
    _live: Lines | None = None
    _timer: asyncio.TimerHandle | None = None
    _loop: asyncio.AbstractEventLoop | None = None
    _bad_lines: int = 0
    _is_again: bool = False
    details: dict[str, str] = field(default_factory=dict)
    """For each reason of a failed candidate, the words of the first one."""

    def print(self, text: str) -> None:
        """Print lines for the user, above the live bar if there is one."""
        if self._live:
            self._live.clear()
        self._console.print(Text(printable(text)))
        if self._live:
            self._draw(self._live)

    def begin(self, job: Job, engine: Engine) -> None:
        """Start to show the run."""
        self._engine, self._progress = engine, Progress(job, engine)
        self._loop = asyncio.get_running_loop()
        if not self.quiet:
            rows_on_terminal = job.output.piped and sys.stdout.isatty()
            if self.live_lines or (self._console.is_terminal and not rows_on_terminal):
                self._live = self.live_lines() if self.live_lines else LiveLines(self._console)
                self._draw(self._live)
            self._refresh_later()

    def _refresh_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(REFRESH_EVERY if self._live else LINE_EVERY, self._refresh)

    def _draw(self, live: Lines) -> None:
        live.draw(self._progress.lines(live.width, ascii_only=not self._console.encoding.startswith("utf")))

    def _refresh(self) -> None:
        if self._live:
            self._draw(self._live)
        else:
            self.print(self._progress.plain_line())
        self._refresh_later()

    def interrupt(self, _: int) -> bool:
        """Drain the run: what is in flight is waited for. Returns False if it has not begun, and there is nothing to
        wait for. A signal calls this in the middle of anything, so the work is left to the event loop."""
        if self._loop is None:
            return False
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._drain)
        return True

    def _drain(self) -> None:
        self._engine.stop.now("interrupted")
        self._clear()
        waiting = count_of(self._engine.stack.traffic.in_flight, "request")
        self.print(f"Stopping: waiting for {waiting} in flight. Ctrl-C again to quit at once.")

    def begin_again(self, outcome: Outcome) -> None:
        """Say how a run ended that is followed by another one over the same rows, of which nothing is said twice."""
        self._clear()
        self._is_again = True
        for note in [*outcome.notes, *(f"{name}: {state}" for name, state in outcome.run["batches"].items())]:
            self.print(f"{note}.")

    def end(self) -> None:
        """Clear the live bar."""
        if self._timer:
            self._timer.cancel()
        self._clear()
        if self._bad_lines > MAX_BAD_LINES and not self.verbose:
            self.print(f"and {count_of(self._bad_lines - MAX_BAD_LINES, 'more unusable line')}")

    def _clear(self) -> None:
        if self._live and self._timer:
            self._timer.cancel()
            self._timer = None
        if self._live:
            self._live.clear()
            self._live = None

    def report(self, job: Job, outcome: Outcome) -> None:
        """Print what became of the candidates, and what the run used.

        Raises:
            InputError: No row of the input could be used.
            BaseException: The error that ended the run.
        """
        result, funnel, run = outcome.result, outcome.result["funnel"], outcome.run
        if outcome.unrecorded:
            lost = count_of(outcome.unrecorded, "answer")
            self.print(f"An earlier run was killed: up to {lost} on the way or not recorded yet, paid for and lost.")
        for note in outcome.notes:
            self.print(f"{note}.")
        if (
            not job.run.quiet
            and outcome.reason != "batch"
            and (funnel["asked"] or funnel["unreadable"] or run["usage"]["calls"])
        ):
            for table in outcome.tables:
                if len(table) > 1:
                    self.print("\n".join(columns(table)) + "\n")
            self.print("\n".join(funnel_lines(funnel)))
            self.print("\n".join(account_lines(result, run)))
        if outcome.error is not None and outcome.reason == "error":
            raise outcome.error
        is_stopped = outcome.reason in ("interrupted", "outage", "cap")
        if not run["records"] and not is_stopped and (job.shard is None or funnel["unreadable"]):
            raise nothing_usable(job.reader.name)

    def bad_line(self, bad: BadLine) -> None:
        """Print an unusable input line: the first few, or with --verbose all of them."""
        if self._is_again:
            return
        self._bad_lines += 1
        if self.verbose or self._bad_lines <= MAX_BAD_LINES:
            self.print(f"{bad} (skipped)")

    def failure(self, candidate: Candidate) -> None:
        """Keep the words of a failure; print it with --verbose."""
        if detail := candidate.row["record"].get("error"):
            self.details.setdefault(candidate.reason, str(detail))
        if self.verbose:
            row = candidate.row
            self.print(f"{row['record'].get('id')}: {row['stage']}: {row['reason']} {row['record'].get('error') or ''}")
