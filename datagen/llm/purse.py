"""The dollars of a run: what its answers cost, what it has paid, and `--max-cost`.

Two sums count towards the cap, and the larger one holds. What the output has used: all of its answers, replayed ones
too. What has been paid for it, by this run and by earlier ones of the same command: that knows of answers that are
recorded and not replayed yet, so runs together never pay more than the cap.

A call holds the most that it can cost from before it is sent until its answer is counted: one token for each byte of
its prompt, and an answer of the length limit. One that does not fit waits while others are in flight, then the run
stops. An attempt that may be paid for and brought no answer (status 200, a time-out) is counted at its most.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from datagen.errors import Stopped
from datagen.llm.budget import Stop
from datagen.llm.call import Call, Layer, Reply
from datagen.llm.parameters import length_limit
from datagen.llm.prices import Price, PriceTag, answer_limit, counted, prompt_bound, share_of, usage_of
from datagen.records.usage import Usage

NO_TAG = PriceTag()
"""Of a model whose price nobody asks for."""
UNIT = 10**12
"""The journal keeps what was paid as a whole number of so many parts of a dollar."""


@dataclass(eq=False, slots=True)
class Hold:
    """What a call in flight may cost."""

    amount: Decimal
    is_held: bool
    lost: int = 0
    """Attempts that may be paid for without an answer."""


class Purse:
    """The dollars of a run.

    Args:
        stop: The switch of the run.
        tags: The price of each model. With a cap they must be known.
        most: The cap in dollars; None means that there is none.
    """

    def __init__(self, stop: Stop, tags: Mapping[str, PriceTag], most: Decimal | None = None) -> None:
        self.stop, self.most = stop, most
        self.tags = tags
        self._changed = asyncio.Event()
        stop.callbacks.append(self._changed.set)
        self.used = self.paid = self.unanswered = Decimal(0)
        """Dollars: of the answers used; paid by this run; the part of it without an answer, at most."""
        self.paid_before = self.spent_cap = Decimal(0)
        """Dollars: paid by earlier runs of the command; the highest cap at which one of them has stopped."""
        self.shipped = self.leased = Decimal(0)
        """Dollars: paid by the workers of this run; what these may still spend."""
        self.answers = self.unpriced = 0
        """Answers used; answers and lost attempts of this run whose price is unknown."""
        self.waiting = 0
        """Calls that wait until they fit."""
        self.refused: Decimal | None = None
        """What was not left when the run stopped at the cap."""
        self._held = self._queued = Decimal(0)
        self._queued_calls = 0
        self._holds: dict[int, Hold] = {}
        """By the identity of the call as an object: probes have equal keys."""
        self._excess: dict[str, int] = {}
        """By model: tokens by which an answer was longer than its limit."""

    def tag(self, call: Call) -> PriceTag:
        """Return the price of the model of a call."""
        return self.tags.get(call.model, NO_TAG)

    def left(self) -> Decimal:
        """Return the dollars that may still be held."""
        if self.most is None:
            return Decimal("Infinity")
        if self.most <= self.spent_cap:  # it stops again at once: what an earlier run has left is not spent now
            return Decimal(0)
        return (
            self.most
            - max(self.used, self.paid_before + self.shipped + self.paid)
            - self._held
            - self._queued
            - self.leased
        )

    @property
    def committed(self) -> Decimal:
        """Return the dollars that this run has paid, and those that its workers may be spending."""
        return self.paid + self.shipped + self.leased

    def raise_cap(self, most: Decimal) -> None:
        """Raise the cap."""
        self.most = most
        self._changed.set()

    def change_lease(self, dollars: Decimal, spent: Decimal = Decimal(0)) -> None:
        """Lease dollars to a worker (less than 0: take them back), of which so much is spent now."""
        self.leased += dollars
        self.shipped += spent
        self._changed.set()

    def most_of(self, call: Call, price: Price) -> Decimal:
        """Return the most that one attempt of a call can cost."""
        limit = answer_limit(call, price.context)
        return price.most(prompt_bound(call), limit + self._excess.get(call.model, 0))

    async def hold(self, call: Call) -> None:
        """Hold what a call can cost, as soon as that fits. Raises Stopped where it never will."""
        amount = self._amount(call)
        await self._take(amount)
        self._holds[id(call)] = Hold(amount, is_held=True)

    async def queue(self, call: Call) -> None:
        """Hold what a call in a batch can cost until the end of the run. Raises Stopped where it never fits."""
        price = self.tag(call).look_up() if self.most is not None else None
        amount = self._amount(call) * price.batch if price else Decimal(0)
        await self._take(amount)
        self._give_back(amount)
        self._queued += amount
        self._queued_calls += 1

    async def pay_batched(self, call: Call, reply: Reply | None) -> None:
        """Pay for an answer of a batch, or for one that cannot be read (None): at its most."""
        price = await self.tag(call).get()
        if price is None:
            self.unpriced += 1
        elif reply is None:
            amount = self.most_of(call, price) * price.batch
            self.paid, self.unanswered = self.paid + amount, self.unanswered + amount
        else:
            self._pay(call, price, reply, 0)

    def fits(self, call: Call) -> bool:
        """Hold what a call can cost if that fits now; tell whether it does."""
        amount = self._amount(call)
        if self.left() < amount:
            return False
        self._held += amount
        self._holds[id(call)] = Hold(amount, is_held=True)
        return True

    def _amount(self, call: Call) -> Decimal:
        """Return what is to be held for a call: nothing, if there is no cap."""
        price = None if self.most is None else self.tag(call).look_up()
        return Decimal(0) if price is None else self.most_of(call, price)

    async def _take(self, amount: Decimal) -> None:
        while self.left() < amount:
            if not self._held:
                self.end(amount)
            if self.stop.reason:
                raise Stopped
            self._changed.clear()
            self.waiting += 1
            try:
                await self._changed.wait()
            finally:
                self.waiting -= 1
        self._held += amount

    def end(self, amount: Decimal) -> None:
        """End the run, since so much is not left."""
        if self.refused is None:
            self.refused = amount
        self.stop.now("cap")

    @property
    def end_cap(self) -> Decimal:
        """The cap, if one has ended this run or an earlier one; else 0."""
        return self.spent_cap if self.refused is None or self.most is None else max(self.most, self.spent_cap)

    def _give_back(self, amount: Decimal) -> None:
        self._held -= amount
        self._changed.set()

    def lose(self, call: Call) -> None:
        """Count an attempt that may be paid for and brought no answer. With a cap, what was held for it is paid."""
        hold = self._holds.get(id(call))
        if hold is None:  # a limiter without a purse
            return
        hold.lost += 1
        if self.most is not None:
            hold.is_held = False
            self.paid += hold.amount
            self.unanswered += hold.amount
            self._give_back(hold.amount)

    async def renew(self, call: Call) -> None:
        """Hold the same again for the next attempt, if the last one is counted. Raises Stopped where it never fits."""
        hold = self._holds.get(id(call))
        if hold is not None and not hold.is_held:
            await self._take(hold.amount)
            hold.is_held = True

    async def release(self, call: Call, reply: Reply | None) -> None:
        """Let go of what a call holds, and pay for its answer.

        Args:
            call: It was sent.
            reply: Its answer; None if it got none.
        """
        hold = self._holds.pop(id(call))
        if reply is not None or hold.lost:
            price = await self.tag(call).get()
            if price is None:
                self.unpriced += hold.lost + (reply is not None)
            else:
                self._pay(call, price, reply, 0 if self.most is not None else hold.lost)
        if hold.is_held:
            self._give_back(hold.amount)

    def _pay(self, call: Call, price: Price, reply: Reply | None, lost: int) -> None:
        """Pay for an answer, and for attempts without one."""
        if lost:
            self.unanswered += lost * self.most_of(call, price)
            self.paid += lost * self.most_of(call, price)
        if reply is None:
            return
        tokens, is_estimated = counted(call, reply)
        cost = self.most_of(call, price) if is_estimated and self.most is not None else price.cost(tokens)
        self.paid += cost * share_of(reply, price)
        if (limit := length_limit(call.params)) and (excess := (tokens.completion or 0) - limit) > 0:
            self._excess[call.model] = max(excess, self._excess.get(call.model, 0))

    async def use(self, call: Call, reply: Reply) -> Usage:
        """Count an answer that the output uses, replayed or not; return its account.

        Raises:
            Stopped: It is a recorded one, and beyond the cap.
        """
        usage = usage_of(call, reply, await self.tag(call).get())
        if self.most is not None and self.used + usage.cost > self.most:
            self.end(usage.cost)
            raise Stopped
        self.used += usage.cost
        self.answers += 1
        return usage

    def account(self) -> dict[str, Any]:
        """Return what this run has paid, for x.meta.json: in dollars, None where a price is unknown."""
        prices = {name: tag.look_up() for name, tag in self.tags.items() if tag.is_known}
        return {
            "paid": None if self.unpriced else float(self.paid + self.shipped),
            "paid_unanswered": None if self.unpriced else float(self.unanswered),
            "prices": {name: None if price is None else price.as_row() for name, price in prices.items()},
            **({} if self.refused is None else {"refused": float(self.refused)}),
        }

    def expected(self, calls: int) -> Decimal:
        """Return what so many calls cost, if they cost what those so far do; those in batches count at their most."""
        number = self.answers + self._queued_calls
        return (self.used + self._queued) / number * calls if number else Decimal(0)

    def covers(self, calls: int) -> bool:
        """Check that the cap leaves enough for so many calls of the usual cost.

        While recorded answers are replayed nothing is paid, so nothing speaks against more of them. The rule keeps few
        records begun and not finished where the run stops; the cap itself is kept call by call.

        Args:
            calls: The calls that are still expected of all records begun, and those of one more.
        """
        if self.most is None:
            return True
        if self.waiting:
            return False
        return self.used < self.paid_before + self.shipped or self.used + self.expected(calls) <= self.most


class Paying:
    """A layer that holds what a call may cost while it is in flight, and pays for its answer."""

    def __init__(self, below: Layer, purse: Purse) -> None:
        self._below, self._purse = below, purse

    async def send(self, call: Call) -> Reply:
        await self._purse.hold(call)
        reply = None
        try:
            reply = await self._below.send(call)
            return reply
        finally:
            await self._purse.release(call, reply)
