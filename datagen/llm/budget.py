"""When a run ends early: `Stop` is the switch, `Cap` the number of calls, `Budget` the layer that counts them.

The cap counts every call that the output used, replayed ones too, so the same cap stops at the same place however often
the command is run, and a higher one continues. It also counts every reply of status 200 that holds no answer: it is
paid for, in the run where it came. A call takes its place before it is sent. One that does not fit waits while others
are in flight, since a call that fails in transport gives its place back. Then the run stops, with every answer that was
paid for recorded.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from datagen.errors import Queued, Stopped
from datagen.llm.call import Call, Layer, Reply

StopReason = Literal["enough", "cap", "interrupted", "outage", "failures", "in vain", "stall", "error", "batch"]


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


class Cap:
    """The number of calls that a run may use; None means no cap. A call holds a place from before it is sent."""

    def __init__(self, stop: Stop, most: int | None = None) -> None:
        self._stop, self._most = stop, most
        self._changed = asyncio.Event()
        stop.callbacks.append(self._changed.set)
        self.used = 0
        self.unanswered = 0
        """The replies of status 200 without an answer; they are paid for, so they are part of `used`."""
        self.queued = 0
        """The calls that are in a batch, or wait for one: they are to be paid for."""
        self.elsewhere = 0
        """Places of records that workers on other machines ask for, and that are not replayed yet."""
        self._held = 0

    def left(self) -> float:
        """Return how many more calls may begin."""
        if self._most is None:
            return float("inf")
        return self._most - self.used - self.queued - self.elsewhere - self._held

    def grow(self, places: int) -> None:
        """Add places, where there is a cap."""
        if self._most is not None:
            self._most += places
            self._changed.set()

    async def take(self) -> None:
        """Hold a place, as soon as there is one. Raises Stopped where there will be none."""
        while self.left() < 1:
            if not self._held:
                self._stop.now("cap")
            if self._stop.reason:
                raise Stopped
            self._changed.clear()
            await self._changed.wait()
        self._held += 1

    def give_back(self) -> None:
        """Let go of a place."""
        self._held -= 1
        self._changed.set()

    def count_unanswered(self) -> None:
        """Count a reply that is paid for and holds no answer."""
        self.used += 1
        self.unanswered += 1

    async def renew(self) -> None:
        """Change a place that such a reply has used for another one, for the call that is sent again.

        Raises:
            Stopped: There is no other place. The caller still holds one, to be given back.
        """
        self.give_back()
        try:
            await self.take()
        except Stopped:
            self._held += 1
            raise


class Budget:
    """A layer that lets no more calls through than the cap has places."""

    def __init__(self, below: Layer, cap: Cap) -> None:
        self._below, self.cap = below, cap

    async def send(self, call: Call) -> Reply:
        await self.cap.take()
        try:
            reply = await self._below.send(call)
            self.cap.used += 1
            return reply
        except Queued:
            self.cap.queued += 1
            raise
        finally:
            self.cap.give_back()
