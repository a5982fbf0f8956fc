"""How many requests are in flight at once, when an address is left alone, and when a call or an address is given up.

First come, first served (waiting.py). A slot is taken before sending and given back as soon as the reply is read,
before the reply is recorded and before any wait.

The concurrency adapts: one more slot per good reply until the first 429 (slow start), then GROWTH more per round trip;
a 429 cuts the limit to CUT of its value, at most once per round trip, since a request sent before the last cut says
nothing new. 5 % of random 429s then keep more than a third of the concurrency.

Waiting is not failing: a server that is busy (429, 503, 529) has answered, so it uses up no try. Where it names a wait
twice in a row, nothing is sent to the address before, and then little at first; where it refuses some of many, they are
spaced out (pace.py). What its headers allow, and what the user does, is kept to (quota.py). It has PATIENCE in all
before the run stops.

A fault of one request is not a fault of the address. A call that is given up, or refused as if access were refused,
fails alone if another request is answered: one that was sent since, or else a probe. Only where nothing listens, or the
probe fails as well, the run stops, and only one call tries again meanwhile.
"""

import asyncio
import random
import re
from collections import Counter
from collections.abc import Mapping

from datagen.errors import CallFailed, Outage, Stopped
from datagen.llm.budget import Cap, Stop
from datagen.llm.call import Adapted, Call, Doubtful, Layer, Reply, Transient, error_message
from datagen.llm.pace import Pace
from datagen.llm.purse import Purse
from datagen.llm.quota import Quota, Ticket
from datagen.llm.waiting import WaitingCalls

MAX_TRIES = 8
"""Sends of one call before it has failed, without those that met a busy server."""
TRIES_BEFORE_CONTACT = 4
"""The same while the endpoint has never answered, so that a wrong address is reported soon."""
MAX_TIMEOUTS = 2
"""Sends of one call that took longer than --timeout: the server may have generated each answer, and bill it."""
MAX_BUSY = 30
"""Sends of one call that met a busy server while others were answered."""
FIRST_BACKOFF, LONGEST_BACKOFF, BACKOFF_GROWTH = 0.5, 30.0, 1.6
"""Seconds; and how much longer each wait is than the one before."""
SHARED_WAIT = 1.0
"""Seconds. A server that names a longer wait is left alone by all calls, and not only by the one that it told so."""
PATIENCE = 600.0
"""Seconds that an address may be busy, without one answer, before the run stops."""
EQUAL_REFUSALS = 8
"""Refusals in the same words, and no answer, after which a probe tells whether all requests are refused."""
ADAPTIVE_START, ADAPTIVE_CEILING = 16, 256
"""Requests in flight."""
GROWTH, CUT = 6, 0.9
PROBE = [{"role": "user", "content": "Hi"}], {"max_tokens": 16}
"""Messages and parameters of the request that tells whether a model answers anything."""
PROBE_KEY = b"probe"
UNREACHABLE_HINT = "Is the server running, and is the address right? datagen doctor looks for local servers"
SLOW_HINT = "Raise --timeout, or lower --concurrency or --max-tokens: the server may still be at work on what was sent."
NO_REPLY, BUSY = 0, 429
"""In place of a status."""


class Limiter:
    """A layer that sends at most `limit` calls at once to one address, and sends again what failed in transport.

    Args:
        below: Model identity to the layer that sends its calls.
        stop: The switch of the run.
        concurrency: The limit; None adapts it up to ADAPTIVE_CEILING.
        cap: Counts what is paid for without an answer. None: there is no cap.
        patience: Seconds that the address may be busy.
        pace: That of the address. None: nothing is known of it.
        limits: The user's limits of each model, as Quota takes them.
        purse: Counts what it may cost. None: nobody does.
    """

    def __init__(
        self,
        below: Mapping[str, Layer],
        stop: Stop,
        concurrency: int | None = None,
        cap: Cap | None = None,
        patience: float = PATIENCE,
        pace: Pace | None = None,
        limits: Mapping[str, Mapping[str, int]] | None = None,
        purse: Purse | None = None,
    ) -> None:
        self._purse = purse or Purse(stop, {})
        self._below, self._stop, self._cap, self._patience = below, stop, cap or Cap(stop), patience
        self._adaptive = concurrency is None
        self.limit: float = ADAPTIVE_START if concurrency is None else concurrency
        self.in_flight = self.peak = self.sent = self.answered = self.retries = 0
        self.tokens = 0
        """Of all answers, as the server counts them."""
        self.resumes_at = 0.0
        """When the address is asked again since it was busy, by the clock of the event loop."""
        self._pace = pace or Pace()
        self._timer: asyncio.TimerHandle | None = None
        self._quotas = {model: Quota((limits or {}).get(model, {})) for model in below}
        self._slow_start = float("inf")
        """As `limit`, after a wait of the whole address."""
        self._waiting = WaitingCalls(below)
        self._last_cut: float | None = None
        self._busy_since: float | None = None
        """When the address became busy, if nothing was answered since."""
        self._waits = 0
        """Waits of the whole address since the last answer."""
        self._prober: Call | None = None
        """The one call that tries again where nothing listens; all others wait for what it finds."""
        self._good = Counter[str]()
        """Answers by model, without refusals."""
        self._refusals = Counter[tuple[str, str]]()
        """Refusals by model and words."""
        self._probes: dict[str, asyncio.Task[int]] = {}
        """By model, while they last."""
        stop.callbacks.append(self._waiting.end)

    async def send(self, call: Call) -> Reply:
        clock, answered_before = asyncio.get_running_loop().time, self.answered
        tries = timeouts = busy = 0
        is_new = True
        while True:
            # 1. Take a slot, in the order of arrival; one that waited for a busy server goes first.
            ticket = await self._take_slot(call, is_new=is_new)
            is_new = False

            # 2. Send, and give the slot back as soon as there is an outcome.
            sent_at, fault, outage = clock(), None, None
            try:
                reply = await self._below[call.model].send(call)
                self._count(call, reply, sent_at)
                self._settle(call, ticket, reply)
            except Adapted:
                self.retries += 1
                continue
            except Doubtful as error:
                reply, outage = error.reply, error.outage
                if not self._good[call.model]:
                    self._begin_probe(call.model)
            except Transient as error:
                fault = error
                self._settle(call, ticket, fault)
                if fault.is_paid:
                    self._cap.count_unanswered()
                if fault.is_paid or fault.timed_out:
                    self._purse.lose(call)
                if not self.answered:
                    self._prober = (self._prober or call) if fault.unreachable else None
                if fault.rate_limited:
                    self._leave_alone(fault)
            except Outage as error:
                self._stop.now("outage", error)  # before the slot is free, or the next in line would be sent
                raise
            finally:
                self.in_flight -= 1
                self._wake()

            # 3. A refusal is that of the request, unless all requests are refused.
            if fault is None:
                if reply.status >= 400 and (problem := await self._refuses_all(call, reply, outage)):
                    raise self._outage(problem)
                return reply

            # 4. A busy server is waited for; that uses up no try.
            if fault.retry_after > self._patience:
                wait = f"{call.model}: the endpoint asks to wait {fault.retry_after:.0f} s. Run again later."
                raise self._outage(Outage(wait))
            if fault.rate_limited:
                busy += 1
                await self._wait_for_server(fault, call, busy, sent_at, is_silent=self.answered == answered_before)
                continue

            # 5. Any other fault uses one up. Give up, or send again after an exponential backoff with jitter.
            tries, timeouts = tries + 1, timeouts + fault.timed_out
            if timeouts == MAX_TIMEOUTS or tries >= (MAX_TRIES if self.answered else TRIES_BEFORE_CONTACT):
                raise await self._give_up(fault, call, tries, is_silent=self.answered == answered_before)
            if fault.is_paid:
                await self._cap.renew()
            await self._purse.renew(call)
            self.retries += 1
            await self._stop.sleep(max(fault.retry_after, backoff(tries)))
            del fault  # it refers to this frame

    @property
    def rate_allows_at(self) -> float:
        """When a limit of the rate lets the next request go, by the clock of the event loop; in the past where nothing
        waits for that, or requests are in flight."""
        return self._timer.when() if self._timer is not None and not self.in_flight else 0.0

    # Slots

    async def _take_slot(self, call: Call, *, is_new: bool) -> Ticket:
        """Wait until a request may be sent, and count it as in flight. Raises Stopped if the run ends."""
        if self._stop.reason is not None:
            raise Stopped
        if self._must_wait(call):
            ticket = await self._waiting.join(call, in_front=not is_new)  # `_wake` counts it as in flight
        else:
            ticket = self._begin(call)
        self.sent += 1
        self.peak = max(self.peak, self.in_flight)
        return ticket

    def _must_wait(self, call: Call) -> bool:
        if self._prober is not None:
            return call is not self._prober
        return self._waiting.is_waiting(call.model) or not self._has_room(call)

    def _has_room(self, call: Call) -> bool:
        if self._probes:  # it may be the last request of the run
            return False
        if self.in_flight >= int(min(self.limit, self._slow_start)):
            return False
        loop = asyncio.get_running_loop()
        now = loop.time()
        if self.resumes_at > now:
            return False
        delay = max(self._pace.delay(now), self._quotas[call.model].delay(call, now))
        if delay and (self._timer is None or self._timer.when() > now + delay):
            if self._timer is not None:
                self._timer.cancel()
            self._timer = loop.call_at(now + delay, self._wake_by_timer)
        return not delay

    def _begin(self, call: Call) -> Ticket:
        now = asyncio.get_running_loop().time()
        self.in_flight += 1
        self._pace.send(now)
        return self._quotas[call.model].take(call, now)

    def _wake_by_timer(self) -> None:
        self._timer = None
        self._wake()

    def _wake(self) -> None:
        """Let the calls go that now fit."""
        while self._prober is None and (place := self._waiting.next(self._has_room)):
            if not place.turn.done():
                place.turn.set_result(self._begin(place.call))

    # Replies, busy servers

    def _count(self, call: Call, reply: Reply, sent_at: float) -> None:
        """Count a reply. A good one raises an adaptive limit that is used to the full."""
        if self._adaptive and self.in_flight >= int(self.limit):
            if self._last_cut is None:
                self.limit = min(self.limit + 1, ADAPTIVE_CEILING)
            elif sent_at > self._last_cut:
                self.limit = min(self.limit + GROWTH / self.limit, ADAPTIVE_CEILING)
        self.answered += 1
        self._good[call.model] += reply.status < 400
        self._pace.answer(asyncio.get_running_loop().time())
        self._slow_start *= 2
        self._busy_since, self._waits, self._prober = None, 0, None
        self.tokens += reply.usage["completion_tokens"] or 0

    def _settle(self, call: Call, ticket: Ticket, outcome: Reply | Transient) -> None:
        """Count what a request has cost, and take over what the server allows."""
        quota = self._quotas[call.model]
        quota.settle(ticket, call, outcome if isinstance(outcome, Reply) else None)
        quota.learn(ticket, outcome.allowances, asyncio.get_running_loop().time())

    async def _wait_for_server(
        self, fault: Transient, call: Call, busy: int, sent_at: float, *, is_silent: bool
    ) -> None:
        """Wait until a busy server may be asked again.

        Args:
            fault: What it said.
            call: The call that it did not take.
            busy: How often it has not taken it.
            sent_at: When that was sent, by the clock of the event loop.
            is_silent: Whether it has answered nothing since the call began.

        Raises:
            Outage: It has been busy for longer than there is patience.
            CallFailed: It answers others, and never this one.
        """
        now = asyncio.get_running_loop().time()
        if self._busy_since is not None and now - self._busy_since > self._patience:
            busy_for = f"the endpoint has been busy for {now - self._busy_since:.0f} s, last: {fault}"
            raise self._outage(Outage(f"{call.model}: {busy_for}. Run the same command again to continue."))
        if busy >= MAX_BUSY and not is_silent:
            detail = f"{busy} tries while others were answered, last: {fault}"
            raise CallFailed("no answer", stage=call.task, detail=detail)
        is_paced = fault.retry_after >= SHARED_WAIT  # so it is a rate that is limited, and not what is in flight
        if self._adaptive and not is_paced and (self._last_cut is None or sent_at > self._last_cut):
            self.limit = max(1.0, min(self.limit, self.in_flight + 1) * CUT)
            self._last_cut = now
        self.retries += 1
        if self.resumes_at <= now:
            await self._stop.sleep(fault.retry_after or backoff(busy))

    def _leave_alone(self, fault: Transient) -> None:
        """Send nothing to a busy address before the time that it names; or, where it has never answered, for a while.

        After a short wait, or one that it names to one call while it answers others, only that call is sent again.
        """
        loop = asyncio.get_running_loop()
        now, is_alone = loop.time(), self._busy_since is None
        self._busy_since = now if self._busy_since is None else self._busy_since
        self._pace.refuse(now, is_wait_named=fault.retry_after >= SHARED_WAIT)
        if self.answered and (is_alone or fault.retry_after < SHARED_WAIT):
            return
        if now >= self.resumes_at:  # else another call has just been told the same
            self._waits += 1
            self._slow_start = 1
        self.resumes_at = max(self.resumes_at, now + (fault.retry_after or backoff(self._waits)))
        loop.call_at(self.resumes_at, self._wake)

    # Whose fault is it?

    async def _refuses_all(self, call: Call, reply: Reply, outage: Outage | None) -> Outage | None:
        """Return the outage behind a refusal, if the model refuses everything.

        Args:
            call: The refused call.
            reply: The refusal.
            outage: What it means if it meets all requests, where its status alone may mean that.
        """
        if self._good[call.model] and call.model not in self._probes:
            return None
        words = error_message(reply.body)
        if outage is None:
            kind = call.model, re.sub(r"\d+", "", words)  # such as the number of tokens of a prompt
            self._refusals[kind] += 1
            if self._refusals[kind] < EQUAL_REFUSALS:
                return None
            outage = Outage(f"{call.model}: every request is refused (HTTP {reply.status}): {words}")
        return None if 0 < await self._probe_status(call.model) < 400 else outage

    async def _give_up(self, fault: Transient, call: Call, tries: int, *, is_silent: bool) -> CallFailed | Outage:
        """Return what a call without an answer means: it fails alone if another request is answered."""
        if is_silent and fault.unreachable:
            return self._outage(Outage(f"{call.model}: {fault}. {UNREACHABLE_HINT}"))
        if is_silent and await self._probe_status(call.model) == NO_REPLY:
            problem = f"no answer in {tries} tries, last: {fault}"
            way_out = SLOW_HINT if fault.timed_out else "Run the same command again to continue."
            return self._outage(Outage(f"{call.model}: {problem}. {way_out}"))
        if fault.timed_out:
            return CallFailed("timed out", stage=call.task, detail=f"{fault}, {tries} times")
        return CallFailed("no answer", stage=call.task, detail=f"{tries} tries, last: {fault}")

    async def _probe_status(self, model: str) -> int:
        """Ask a model something else; return the status of its reply, or NO_REPLY. Calls that want to know it at the
        same time share one probe."""
        try:
            return await asyncio.shield(self._begin_probe(model))
        finally:
            self._probes.pop(model, None)
            if self._stop.reason is None:
                asyncio.get_running_loop().call_soon(self._wake)  # once the caller has said what it means

    def _begin_probe(self, model: str) -> asyncio.Task[int]:
        if model not in self._probes:
            self._probes[model] = asyncio.ensure_future(self._probe(model))
        return self._probes[model]

    async def _probe(self, model: str) -> int:
        messages, params = PROBE
        call = Call(PROBE_KEY, model, messages, params, 0, 1, "probe", {})
        while self._cap.left() >= 1 and self._purse.fits(call):
            self.sent += 1
            self.retries += 1
            reply = None
            try:
                reply = await self._below[model].send(call)
            except Adapted:
                continue
            except Transient as fault:
                return BUSY if fault.rate_limited else NO_REPLY
            except CallFailed:  # of a function, which is there
                return 500
            except (Doubtful, Outage):
                return NO_REPLY
            finally:
                await self._purse.release(call, reply)
            self.answered += 1
            if reply.status < 400:
                self._good[model] += 1
                self._cap.count_unanswered()
            return reply.status
        return NO_REPLY

    def _outage(self, outage: Outage) -> Outage:
        """Stop the run, before another call is sent; return the error to raise."""
        self._prober = None
        self._stop.now("outage", outage)
        return outage


def backoff(number: int) -> float:
    """Return the seconds to wait after so many faults in a row."""
    longest = min(FIRST_BACKOFF * BACKOFF_GROWTH ** (number - 1), LONGEST_BACKOFF)
    return longest * random.uniform(0.5, 1.0)
