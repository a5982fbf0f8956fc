"""How much may be sent to a model at an address: requests and tokens per minute, as the server or the user names them.

A server names what is left and when all is there again. Half of what it grants may be sent at once, and the rest is
spread over the time until then. That keeps to a window that is refilled at its end, and to a bucket that is refilled
steadily: there the level settles at a half, and the rate at that of the refill. What was sent since the request that
the headers are about is counted here. Where nothing is said of the last window, a new one is taken to have begun.
"""

from collections.abc import Mapping
from typing import NamedTuple

from datagen.llm.allowances import INPUT, MINUTE, OUTPUT, REQUESTS, TOKENS, Allowance
from datagen.llm.call import Call, Reply
from datagen.llm.parameters import length_limit, length_of

LIMITS = {"requests_per_minute": REQUESTS, "tokens_per_minute": TOKENS}
"""Names of the user's limits, to what they count."""
FREE = 0.5
"""Share of a limit that may be sent at once."""
MOST_BUCKETS = 8
"""Limits of one server that are kept to."""
USUAL_TOKENS, USUAL_SHARE = 300, 0.3
"""Tokens of an answer, and tokens of a character of a prompt, until some are counted."""
Cost = dict[str, float]
"""Of a request, by unit."""


class Ticket(NamedTuple):
    """A request that was sent."""

    sent_at: float
    cost: Cost
    """As estimated."""
    used: Cost
    """By all requests up to this one."""


class Bucket:
    """One limit: so much in each window. Times are those of one clock, in seconds.

    Args:
        limit: The most in a window.
        window: Seconds.
    """

    def __init__(self, limit: float, window: float) -> None:
        self._limit, self._window = limit, window
        self._level = limit
        self._begin = self._end = self._next = float("-inf")

    def delay(self, cost: float, now: float) -> float:
        """Return the seconds until a request may be sent; 0 if it may be sent now."""
        self._renew(now)
        cost = min(cost, self._limit)  # what is larger than a window has a window of its own
        if self._level < cost:
            return self._end - now
        is_free = self._level - cost >= FREE * self._limit
        return 0.0 if is_free else max(0.0, self._next - now)

    def take(self, cost: float, now: float) -> None:
        """Count a request that is sent."""
        self._renew(now)
        if cost and self._level - cost < FREE * self._limit:
            self._next = max(self._next, now) + cost * (self._end - now) / max(self._level, cost)
        self._level -= cost

    def settle(self, difference: float) -> None:
        """Count what a request has cost beyond its estimate."""
        self._level = min(self._limit, self._level - difference)

    def learn(self, allowance: Allowance, used_since: float, sent_at: float, now: float) -> None:
        """Take over what the server says.

        Args:
            allowance: What its headers say.
            used_since: What was sent since the request that they are about.
            sent_at: When that was sent.
            now: The time.
        """
        remaining = allowance.remaining
        self._limit = allowance.limit or max(self._limit, remaining or 0)
        self._window = max(self._window, allowance.reset)
        if remaining is not None and sent_at >= self._begin:
            self._level, self._end = remaining - used_since, sent_at + allowance.reset

    def _renew(self, now: float) -> None:
        """Begin a new window after the end of the last one."""
        if now >= self._end:
            self._level, self._begin, self._end = self._limit, now, now + self._window


class Quota:
    """All limits of one model at one address.

    Args:
        limits: The user's, by the names in LIMITS.
    """

    def __init__(self, limits: Mapping[str, int]) -> None:
        self._buckets = {name: (unit, Bucket(limits[name], MINUTE)) for name, unit in LIMITS.items() if name in limits}
        self._used: Cost = dict.fromkeys((REQUESTS, TOKENS, INPUT, OUTPUT), 0)
        self._newest: Ticket | None = None
        """The last request that the server has said something about."""
        self._characters = self._input = self._output = self._answers = 0

    def delay(self, call: Call, now: float) -> float:
        """Return the seconds until a call may be sent; 0 if it may be sent now."""
        if not self._buckets:
            return 0.0
        cost = self._estimate(call)
        return max(bucket.delay(cost[unit], now) for unit, bucket in self._buckets.values())

    def take(self, call: Call, now: float) -> Ticket:
        """Count a call that is sent."""
        cost: Cost = self._estimate(call) if self._buckets else {REQUESTS: 1}
        for unit, number in cost.items():
            self._used[unit] += number
        for unit, bucket in self._buckets.values():
            bucket.take(cost[unit], now)
        return Ticket(now, cost, dict(self._used))

    def settle(self, ticket: Ticket, call: Call, reply: Reply | None) -> None:
        """Count the tokens that a call has cost; none where there is no reply."""
        if not self._buckets:
            return
        usage = reply.usage if reply else {"prompt_tokens": 0, "completion_tokens": 0}
        prompt, answer = usage["prompt_tokens"], usage["completion_tokens"]
        if prompt is None or answer is None:
            return
        if reply and prompt:
            self._characters += length_of(call.messages)
            self._input, self._output, self._answers = self._input + prompt, self._output + answer, self._answers + 1
        cost: Cost = {INPUT: prompt, OUTPUT: answer, TOKENS: prompt + answer}
        for unit, bucket in self._buckets.values():
            if unit in cost and unit in ticket.cost:
                bucket.settle(cost[unit] - ticket.cost[unit])

    def learn(self, ticket: Ticket, allowances: tuple[Allowance, ...], now: float) -> None:
        """Take over what the headers of a response say, unless those of a later request have come before."""
        if not allowances or (self._newest and self._newest.sent_at > ticket.sent_at):
            return
        self._newest = ticket
        for allowance in allowances:
            if allowance.name not in self._buckets:
                if len(self._buckets) == MOST_BUCKETS:
                    continue
                limit = allowance.limit or allowance.remaining or 1
                self._buckets[allowance.name] = allowance.unit, Bucket(limit, allowance.reset)
            unit, bucket = self._buckets[allowance.name]
            bucket.learn(allowance, self._used[unit] - ticket.used[unit], ticket.sent_at, now)

    def _estimate(self, call: Call) -> Cost:
        """Estimate the cost of a call, from what those before have cost."""
        share = self._input / self._characters if self._characters else USUAL_SHARE
        answer = self._output / self._answers if self._answers else USUAL_TOKENS
        prompt, answer = share * length_of(call.messages), min(answer, length_limit(call.params) or answer)
        return {REQUESTS: 1, INPUT: prompt, OUTPUT: answer, TOKENS: prompt + answer}
