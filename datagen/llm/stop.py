"""The one switch that ends a run early. Calls in flight finish and are recorded; no further one is sent."""

import asyncio
from collections.abc import Callable
from typing import Literal

from datagen.errors import Stopped

StopReason = Literal["enough", "cap", "interrupted", "outage", "failures", "stall", "error"]


class Stop:
    """Set once; the first reason stands."""

    def __init__(self) -> None:
        self.reason: StopReason | None = None
        self.error: BaseException | None = None
        self._event = asyncio.Event()
        self._callbacks: list[Callable[[], None]] = []

    def now(self, reason: StopReason, error: BaseException | None = None) -> None:
        """End the run for this reason."""
        if self.reason is None:
            self.reason, self.error = reason, error
            self._event.set()
            for callback in self._callbacks:
                callback()

    def check(self) -> None:
        """Raise Stopped if the run is ending."""
        if self.reason is not None:
            raise Stopped

    def call(self, callback: Callable[[], None]) -> None:
        """Have this called at the stop."""
        self._callbacks.append(callback)

    async def sleep(self, seconds: float) -> None:
        """Wait, or raise Stopped as soon as the run ends."""
        try:
            await asyncio.wait_for(self._event.wait(), seconds)
        except TimeoutError:
            return
        raise Stopped
