"""How many requests are in flight at once, and the transport retry.

First come, first served. A slot is taken before sending and given back as soon as the reply is read, before it is
recorded and before any wait. The wait before the next try is the longer of what the server asked (Retry-After) and
an exponential backoff with jitter; it holds no slot.

Adaptive: one more slot per good reply until the first refusal (slow start), then GROWTH more per round trip; a 429
cuts to CUT of the present limit, at most once per round trip, since a request sent before the last cut says nothing
new. 5 % of random 429s then keep more than a third of the concurrency.
"""

import asyncio
import random
from collections import deque
from collections.abc import Mapping
from itertools import count

from datagen.errors import CallFailed, Outage, Stopped
from datagen.llm.call import Call, Layer, Reply, Transient
from datagen.llm.stop import Stop

MAX_TRIES = 8
"""Sends of one attempt that may fail in transport."""
TRIES_BEFORE_CONTACT = 4
"""The same while the endpoint has never answered: a wrong address should be told soon."""
FIRST_BACKOFF, LONGEST_BACKOFF = 0.5, 30.0
"""Seconds."""
LONGEST_RETRY_AFTER = 600.0
"""Seconds; a server that asks for more is out of service."""
ADAPTIVE_START, ADAPTIVE_CEILING = 16, 256
GROWTH, CUT = 6, 0.9


class Limiter:
    """A layer that sends at most `limit` calls at once to one address."""

    def __init__(self, below: Mapping[str, Layer], stop: Stop, concurrency: int | None = None) -> None:
        """`below` maps a model's identity to what sends its calls; `concurrency` None adapts up to ADAPTIVE_CEILING."""
        self._below, self._stop = below, stop
        self._adaptive = concurrency is None
        self.limit: float = ADAPTIVE_START if concurrency is None else concurrency
        self.in_flight = self.peak = self.sent = self.retries = 0
        self._answered = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._last_cut: float | None = None
        stop.call(self._turn_away)

    async def send(self, call: Call) -> Reply:
        answered_before = self._answered
        for tries in count(1):
            await self._acquire()
            sent_at = asyncio.get_running_loop().time()
            try:
                reply = await self._below[call.model].send(call)
            except Transient as fault:
                self._release()
                self._check(fault, tries, answered_before, call)
                if fault.limited:
                    self._cut(sent_at)
                self.retries += 1
                await self._stop.sleep(max(fault.retry_after, backoff(tries)))
            except Outage as error:
                self._stop.now("outage", error)  # before the slot is free, or the next in line would be sent
                self._release()
                raise
            except BaseException:
                self._release()
                raise
            else:
                self._grow(sent_at)
                self._release()
                self._answered += 1
                return reply
        raise AssertionError

    async def _acquire(self) -> None:
        self._stop.check()
        if self.in_flight >= int(self.limit) or self._waiting:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            await turn  # _release counts it as in flight before it wakes up
        else:
            self.in_flight += 1
        self.sent += 1
        self.peak = max(self.peak, self.in_flight)

    def _release(self) -> None:
        self.in_flight -= 1
        while self._waiting and self.in_flight < int(self.limit):
            turn = self._waiting.popleft()
            if not turn.done():
                self.in_flight += 1
                turn.set_result(None)

    def _turn_away(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_exception(Stopped())

    def _check(self, fault: Transient, tries: int, answered_before: int, call: Call) -> None:
        """Give up on the call, or on the endpoint if it has answered nobody since this call began."""
        most = MAX_TRIES if self._answered else TRIES_BEFORE_CONTACT
        if fault.retry_after > LONGEST_RETRY_AFTER:
            raise Outage(f"{call.model}: the endpoint asks to wait {fault.retry_after:.0f} s. Run again later.")
        if tries < most:
            return
        if self._answered == answered_before:
            raise Outage(
                f"{call.model}: no answer in {tries} tries, last: {fault}. Run the same command again to go on."
            )
        raise CallFailed("no answer", stage=call.task, detail=f"{tries} tries, last: {fault}")

    def _grow(self, sent_at: float) -> None:
        if self._adaptive and self.in_flight >= int(self.limit):
            if self._last_cut is None:
                self.limit = min(self.limit + 1, ADAPTIVE_CEILING)
            elif sent_at > self._last_cut:
                self.limit = min(self.limit + GROWTH / self.limit, ADAPTIVE_CEILING)

    def _cut(self, sent_at: float) -> None:
        if self._adaptive and (self._last_cut is None or sent_at > self._last_cut):
            self.limit = max(1.0, min(self.limit, self.in_flight + 1) * CUT)
            self._last_cut = asyncio.get_running_loop().time()


def backoff(tries: int) -> float:
    """Return the seconds to wait after so many tries; jitter moves time, never content."""
    return float(min(FIRST_BACKOFF * 2.0 ** (tries - 1), LONGEST_BACKOFF) * random.uniform(0.5, 1.0))
