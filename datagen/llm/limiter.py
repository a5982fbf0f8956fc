"""How many requests are in flight at once, and the retry policy of transport.

First come, first served. A slot is taken before sending and given back as soon as the reply is read, before the reply
is recorded and before any wait.

The concurrency adapts: one more slot per good reply until the first 429 (slow start), then GROWTH more per round trip;
a 429 cuts the limit to CUT of its value, at most once per round trip, since a request sent before the last cut says
nothing new. 5 % of random 429s then keep more than a third of the concurrency.
"""

import asyncio
import random
from collections import deque
from collections.abc import Mapping
from itertools import count

from datagen.errors import CallFailed, Outage, Stopped
from datagen.llm.budget import Stop
from datagen.llm.call import Call, Layer, Reply, Transient

MAX_TRIES = 8
"""Sends of one call before it has failed."""
TRIES_BEFORE_CONTACT = 4
"""The same while the endpoint has never answered, so that a wrong address is reported soon."""
FIRST_BACKOFF, LONGEST_BACKOFF = 0.5, 30.0
"""Seconds."""
LONGEST_RETRY_AFTER = 600.0
"""Seconds. A server that asks for a longer wait is out of service."""
ADAPTIVE_START, ADAPTIVE_CEILING = 16, 256
"""Requests in flight."""
GROWTH, CUT = 6, 0.9


class Limiter:
    """A layer that sends at most `limit` calls at once to one address, and sends again what failed in transport.

    Args:
        below: Model identity to the layer that sends its calls.
        stop: The switch of the run.
        concurrency: The limit; None adapts it up to ADAPTIVE_CEILING.
    """

    def __init__(self, below: Mapping[str, Layer], stop: Stop, concurrency: int | None = None) -> None:
        self._below, self._stop = below, stop
        self._adaptive = concurrency is None
        self.limit: float = ADAPTIVE_START if concurrency is None else concurrency
        self.in_flight = self.peak = self.sent = self.retries = 0
        self._answered = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._last_cut: float | None = None
        stop.callbacks.append(self._cancel_waiting)

    async def send(self, call: Call) -> Reply:
        clock = asyncio.get_running_loop().time
        answered_before = self._answered
        for tries in count(1):
            # 1. Take a slot, in the order of arrival.
            if self._stop.reason is not None:
                raise Stopped
            if self.in_flight >= int(self.limit) or self._waiting:
                turn = asyncio.get_running_loop().create_future()
                self._waiting.append(turn)
                await turn  # step 3 counts it as in flight before it wakes it up
            else:
                self.in_flight += 1
            self.sent += 1
            self.peak = max(self.peak, self.in_flight)

            # 2. Send. A good reply raises an adaptive limit that is used to the full.
            sent_at = clock()
            try:
                reply = await self._below[call.model].send(call)
                if self._adaptive and self.in_flight >= int(self.limit):
                    if self._last_cut is None:
                        self.limit = min(self.limit + 1, ADAPTIVE_CEILING)
                    elif sent_at > self._last_cut:
                        self.limit = min(self.limit + GROWTH / self.limit, ADAPTIVE_CEILING)
                self._answered += 1
                return reply
            except Transient as error:
                fault = error
            except Outage as error:
                self._stop.now("outage", error)  # before the slot is free, or the next in line would be sent
                raise
            finally:
                # 3. Give the slot back, and wake the calls that now fit.
                self.in_flight -= 1
                while self._waiting and self.in_flight < int(self.limit):
                    turn = self._waiting.popleft()
                    if not turn.done():
                        self.in_flight += 1
                        turn.set_result(None)

            # 4. Give up, or lower the limit after a 429 and try again. The wait is the longer of what the server asked
            #    for (Retry-After) and an exponential backoff with jitter; it holds no slot.
            self._check(fault, tries, call, is_silent=self._answered == answered_before)
            if fault.rate_limited and self._adaptive and (self._last_cut is None or sent_at > self._last_cut):
                self.limit = max(1.0, min(self.limit, self.in_flight + 1) * CUT)
                self._last_cut = clock()
            self.retries += 1
            backoff = min(FIRST_BACKOFF * 2.0 ** (tries - 1), LONGEST_BACKOFF) * random.uniform(0.5, 1.0)
            await self._stop.sleep(max(fault.retry_after, backoff))
            del fault  # it refers to this frame
        raise AssertionError

    def _check(self, fault: Transient, tries: int, call: Call, *, is_silent: bool) -> None:
        """Give up on the call after too many tries, or on an endpoint that has answered no call meanwhile."""
        if fault.retry_after > LONGEST_RETRY_AFTER:
            raise Outage(f"{call.model}: the endpoint asks to wait {fault.retry_after:.0f} s. Run again later.")
        if tries < (MAX_TRIES if self._answered else TRIES_BEFORE_CONTACT):
            return
        if is_silent:
            raise Outage(
                f"{call.model}: no answer in {tries} tries, last: {fault}. Run the same command again to continue."
            )
        raise CallFailed("no answer", stage=call.task, detail=f"{tries} tries, last: {fault}")

    def _cancel_waiting(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_exception(Stopped())
