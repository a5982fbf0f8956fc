"""The live lines of a run: how far it is, how long it takes, and its rates, laid out for the width of the terminal.

Progress is counted in answers, since a candidate may take many of them, and may wait for others to be written in order.
"""

import asyncio
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Protocol

from rich.console import Console

from datagen.engine.job import Job
from datagen.engine.scheduler import Engine
from datagen.llm.prices import dollars
from datagen.records.usage import Usage
from datagen.text import count_of

RATE_WINDOW = 10.0
"""Seconds over which rates are measured."""
MIN_BAR, MAX_BAR = 8, 40
"""Characters."""
MAX_NUMBER_LINES = 3
"""Lines below the bar; numbers beyond them are left out."""
SHORT_WAIT = 1.0
"""Seconds. A shorter wait for a rate limit is not worth a word."""
SEPARATOR = " · "


@dataclass(eq=False)
class Progress:
    """What is known about a running job at a time."""

    job: Job
    engine: Engine
    start: float = field(default_factory=monotonic)
    _rows: int | None = None
    """Input rows, where that is known."""
    _samples: deque[tuple[float, int, int]] = field(default_factory=deque)
    """The time, and the requests and tokens until then."""

    def __post_init__(self) -> None:
        run = self.job.run
        lines = None if run.n else self.job.reader.count_lines()
        parts = self.job.shard.total if self.job.shard else 1
        self._rows = math.ceil(min(lines, run.limit or lines) / parts) if lines is not None else None
        self._samples.append((self.start, 0, 0))

    @property
    def done(self) -> int:
        """Answers so far; rows for a method without a model."""
        ahead = self.engine.ahead.calls if self.engine.ahead else 0
        return self.engine.usage.calls + ahead if self.job.roles else self.engine.records

    @property
    def total(self) -> float | None:
        """What `done` is expected to become; None if that is not known."""
        rows = None if self._rows is None else self._rows - self.engine.fold.funnel.unreadable
        return self.engine.expected_calls(rows) if self.job.roles else rows

    def head(self) -> list[str]:
        """Return what stands beside the bar: the progress, and the time."""
        done, total, seconds = self.done, self.total, monotonic() - self.start
        noun = "answer" if self.job.roles else "row"
        progress = count_of(done, noun) if total is None else f"{done:,} of about {count_of(math.ceil(total), noun)}"
        fresh = done - self.engine.stack.journal.replayed if self.job.roles else done
        pace = (fresh if fresh > 0 else done) / seconds if seconds else 0.0  # replayed answers take no time
        left = f", about {clock((total - done) / pace)} left" if total is not None and pace else ""
        return [progress, f"{clock(seconds)}{left}"]

    def numbers(self) -> list[str]:
        """Return the numbers below the bar, the most important first."""
        engine, run = self.engine, self.job.run
        funnel, aim = engine.fold.funnel, f" of {run.n:,}" if run.n else ""
        dropped = f"rejected {funnel.rejected.total():,}, failed {funnel.failed.total():,}"
        waiting = f", waiting {engine.waiting:,}" if engine.waiting else ""
        outcomes = f"kept {funnel.kept:,}{aim}, {dropped}{waiting}"
        if not self.job.roles:
            return [outcomes]
        traffic, usage = engine.stack.traffic, engine.usage
        now = asyncio.get_running_loop().time()
        busy, limited = engine.stack.resumes_at - now, engine.stack.rate_allows_at - now
        paused = [f"the server is busy, asked again in {clock(busy + 1)}"] if busy > 0 else []
        if limited > SHORT_WAIT and not paused:
            paused = [f"the rate limit is kept to, next request in {clock(limited + 1)}"]
        if batched := sum(batches.waiting for batches in engine.stack.batches):
            paused = [f"waiting for {count_of(batched, 'request')} in batches"]
        requests, tokens = self._rates(traffic.sent, traffic.tokens)
        return [
            outcomes,
            *paused,
            f"{short(tokens)} tokens/s",
            f"{short(requests)} requests/s",
            f"in flight {traffic.in_flight} of {traffic.limit}",
            f"replayed {engine.stack.journal.replayed:,}",
            count_of(usage.prompt_tokens + usage.completion_tokens, "token"),
            *self._cost(usage, funnel.kept),
        ]

    def _cost(self, usage: Usage, kept: int) -> list[str]:
        """Return the dollars so far, and those of a kept row; nothing where no model has a price."""
        if usage.unpriced or all(tag.is_free for tag in self.job.tags.values()):
            return []
        limit = self.job.run.cost_limit
        aim = "" if limit is None else f" of {dollars(limit)}"
        each = [f"{dollars(usage.cost / kept)} a kept row"] if kept else []
        return [f"{dollars(usage.cost)}{aim}", *each]

    def _rates(self, sent: int, tokens: int) -> tuple[float, float]:
        """Return requests and generated tokens per second, over the last RATE_WINDOW or since the last time."""
        now, samples = monotonic(), self._samples
        samples.append((now, sent, tokens))
        while len(samples) > 2 and samples[1][0] <= now - RATE_WINDOW:
            samples.popleft()
        then, sent_then, tokens_then = samples[0]
        if now == then:
            return 0.0, 0.0
        return (sent - sent_then) / (now - then), max(0.0, (tokens - tokens_then) / (now - then))

    def plain_line(self) -> str:
        """Return everything in one line."""
        return SEPARATOR.join([*self.head(), *self.numbers()])

    def lines(self, width: int, *, ascii_only: bool = False) -> list[str]:
        """Return the lines for a terminal of this width."""
        done, total = self.done, self.total
        bar = (lambda length: draw_bar(done / total, length, ascii_only=ascii_only)) if total else None
        name, head = self.job.method.name, self.head()
        space = width - len(f"{name}  {SEPARATOR.join(head)}")
        if bar and space >= MIN_BAR:
            top = [f"{name} {bar(min(space, MAX_BAR))} {SEPARATOR.join(head)}"]
        else:
            first = f"{name} {head[0]}"
            top = flow([first if len(first) <= width else head[0], *head[1:]], width, most=len(head))
        return [*top, *flow(self.numbers(), width, most=MAX_NUMBER_LINES)]


def flow(fields: Sequence[str], width: int, *, most: int) -> list[str]:
    """Lay fields out in lines of at most `width` characters; a field that does not fit is left out, never cut."""
    lines: list[str] = []
    for text in fields:
        if lines and len(lines[-1]) + len(SEPARATOR) + len(text) <= width:
            lines[-1] += SEPARATOR + text
        elif len(lines) < most and len(text) <= width:
            lines.append(text)
    return lines


def draw_bar(share: float, length: int, *, ascii_only: bool) -> str:
    """Draw a bar of which a share is filled."""
    filled = round(min(1.0, share) * length)
    full, empty = "#-" if ascii_only else "━╌"
    return full * filled + empty * (length - filled)


def short(rate: float) -> str:
    """Format a rate."""
    return f"{rate:,.0f}" if rate >= 10 or not rate else f"{rate:.1f}"


def clock(seconds: float) -> str:
    """Format a time as m:ss, or h:mm:ss."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Lines(Protocol):
    """Lines that are drawn again and again in place."""

    @property
    def width(self) -> int:
        """Characters that a line may have."""
        ...

    def draw(self, lines: Sequence[str]) -> None:
        """Replace the lines."""
        ...

    def clear(self) -> None:
        """Erase the lines."""
        ...


@dataclass(eq=False)
class LiveLines:
    """Lines at the end of a terminal that are drawn again and again in place.

    A terminal that is made narrower wraps what it shows; the rows to erase are counted for the width that it has now.
    """

    console: Console
    _lines: list[str] = field(default_factory=list)

    @property
    def width(self) -> int:
        """Characters that a line may have: the last column stays empty, or the cursor would wrap."""
        return self.console.width - 1

    def draw(self, lines: Sequence[str]) -> None:
        """Replace the lines."""
        self._write(self._erasure() + "\n".join(lines))
        self._lines = list(lines)

    def clear(self) -> None:
        """Erase the lines."""
        self._write(self._erasure())
        self._lines = []

    def _erasure(self) -> str:
        """Return the control sequence that goes back to the first line and erases everything from there."""
        if not self._lines:
            return ""
        width = max(1, self.console.width)
        rows = sum(max(1, math.ceil(len(line) / width)) for line in self._lines)
        up = f"\x1b[{rows - 1}A" if rows > 1 else ""
        return f"\r{up}\x1b[J"

    def _write(self, text: str) -> None:
        self.console.file.write(text)
        self.console.file.flush()
