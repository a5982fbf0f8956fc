"""The cap on calls. It counts every call that the output used, replayed ones too, so that the same cap stops at the
same place however often the command is run, and a higher one continues.

A call reserves its place before it is sent. One that does not fit waits while others are in flight, since a call
that fails in transport gives its place back; then the run stops, with everything that was paid for recorded.
"""

import asyncio

from datagen.errors import Stopped
from datagen.llm.call import Call, Layer, Reply
from datagen.llm.stop import Stop


class Budget:
    """A layer that lets at most `max_calls` through."""

    def __init__(self, below: Layer, stop: Stop, max_calls: int | None = None) -> None:
        self._below, self._stop, self._cap = below, stop, max_calls
        self._changed = asyncio.Event()
        stop.call(self._changed.set)
        self.used = 0
        self._flying = 0

    def left(self) -> float:
        """Return how many calls may still be begun."""
        return float("inf") if self._cap is None else self._cap - self.used - self._flying

    async def send(self, call: Call) -> Reply:
        while self.left() < 1:
            await self._wait()
        self._flying += 1
        try:
            reply = await self._below.send(call)
            self.used += 1
            return reply
        finally:
            self._flying -= 1
            self._changed.set()

    async def _wait(self) -> None:
        if not self._flying:
            self._stop.now("cap")
        if self._stop.reason:
            raise Stopped
        self._changed.clear()
        await self._changed.wait()
