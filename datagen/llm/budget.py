"""When a run ends early: `Stop` is the switch, `Budget` the cap on calls.

The cap counts every call that the output used, replayed ones too, so the same cap stops at the same place however often
the command is run, and a higher one continues. A call reserves its place before it is sent. One that does not fit waits
while others are in flight, since a call that fails in transport gives its place back. Then the run stops, with every
answer that was paid for recorded.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from datagen.errors import Stopped
from datagen.llm.call import Call, Layer, Reply

StopReason = Literal["enough", "cap", "interrupted", "outage", "failures", "stall", "error"]


@dataclass(eq=False, slots=True)
class Stop:
    """The switch that ends a run early. Calls in flight finish and are recorded; no further call is sent."""

    reason: StopReason | None = None
    """Why the run ends, once it does."""
    error: BaseException | None = None
    callbacks: list[Callable[[], None]] = field(default_factory=list)
    """Called once, when the run begins to end."""
    _event: asyncio.Event = field(default_factory=asyncio.Event)

    def now(self, reason: StopReason, error: BaseException | None = None) -> None:
        """End the run. The first reason stands."""
        if self.reason is None:
            self.reason, self.error = reason, error
            self._event.set()
            for callback in self.callbacks:
                callback()

    async def sleep(self, seconds: float) -> None:
        """Wait, or raise Stopped as soon as the run ends."""
        try:
            await asyncio.wait_for(self._event.wait(), seconds)
        except TimeoutError:
            return
        raise Stopped


class Budget:
    """A layer that lets at most `max_calls` calls through; None means no cap."""

    def __init__(self, below: Layer, stop: Stop, max_calls: int | None = None) -> None:
        self._below, self._stop, self._max_calls = below, stop, max_calls
        self._changed = asyncio.Event()
        stop.callbacks.append(self._changed.set)
        self.used = 0
        self._in_flight = 0

    def left(self) -> float:
        """Return how many more calls may begin."""
        return float("inf") if self._max_calls is None else self._max_calls - self.used - self._in_flight

    async def send(self, call: Call) -> Reply:
        while self.left() < 1:
            if not self._in_flight:
                self._stop.now("cap")
            if self._stop.reason:
                raise Stopped
            self._changed.clear()
            await self._changed.wait()
        self._in_flight += 1
        try:
            reply = await self._below.send(call)
            self.used += 1
            return reply
        finally:
            self._in_flight -= 1
            self._changed.set()
