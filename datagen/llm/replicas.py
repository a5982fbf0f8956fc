"""Several addresses of one model: each call goes to the one with the fewest calls, and an address that fails is left
out while another answers.

The answer does not depend on the address, so the journal knows the model alone. An address with an outage is out for
COOLDOWN seconds; then one call tries it. The run stops where a model has no address left.
"""

import asyncio
from dataclasses import dataclass, field

from datagen.errors import Outage, Stopped
from datagen.llm.budget import Stop, StopReason
from datagen.llm.call import Call, Layer, Reply, Transient
from datagen.llm.limiter import Limiter

COOLDOWN = 15.0
"""Seconds that an address is left out."""


class Breaker(Stop):
    """The switch of one address. It ends what waits there, and the run only where a model has no other address.

    Args:
        run: The switch of the run.
        url: The address, for messages.
    """

    def __init__(self, run: Stop, url: str) -> None:
        super().__init__()
        self._run, self._url = run, url
        self.groups: list[list[Breaker]] = []
        """For each model at this address, the breakers of all its addresses, this one too."""
        self.out_until = 0.0
        """When the address may be tried again, by the clock of the event loop."""
        self.is_on_trial = False
        """One call is finding out whether it answers again."""
        self.notes: dict[str, None] = {}
        run.callbacks.append(lambda: Stop.now(self, run.reason or "interrupted", run.error))

    def now(self, reason: StopReason, error: BaseException | None = None) -> None:
        """Leave the address out; end the run if a model has no other."""
        self.is_on_trial = False
        self.out_until = asyncio.get_running_loop().time() + COOLDOWN
        super().now(reason, error)
        if any(all(breaker.reason for breaker in group) for group in self.groups):
            self._run.now(reason, error)
        else:
            self.notes.setdefault(f"{self._url} was left out for a time, other addresses went on: {error}")

    @property
    def is_spare(self) -> bool:
        """Whether every model at this address has another one that is not left out."""
        return all(any(other.reason is None for other in group if other is not self) for group in self.groups)

    def try_again(self) -> None:
        """Let one call find out whether the address answers again."""
        self.reason, self.error, self.is_on_trial = None, None, True
        self._event.clear()


@dataclass(eq=False, slots=True)
class Address:
    """A server."""

    limiter: Limiter
    breaker: Breaker
    calls: int = field(default=0, init=False)
    """Calls that it has been given and has not ended, those that wait too."""


class Unreachable:
    """A layer below the limiter: where nothing listens, another address is asked at once, if there is one.

    Args:
        below: Sends the calls of one model to one address.
        breaker: That of the address.
    """

    def __init__(self, below: Layer, breaker: Breaker) -> None:
        self._below, self._breaker = below, breaker

    async def send(self, call: Call) -> Reply:
        try:
            return await self._below.send(call)
        except Transient as fault:
            if fault.unreachable and self._breaker.is_spare:
                raise Outage(f"{call.model}: {fault}") from fault
            raise


class Replicas:
    """A layer that sends the calls of a model to its addresses.

    Args:
        addresses: Those of the model, at least one.
        stop: The switch of the run.
    """

    def __init__(self, addresses: list[Address], stop: Stop) -> None:
        self._addresses, self._stop = addresses, stop

    async def send(self, call: Call) -> Reply:
        while True:
            address = self._choose()
            address.calls += 1
            try:
                return await address.limiter.send(call)
            except (Outage, Stopped):
                if self._stop.reason is not None:
                    raise
            finally:
                address.calls -= 1
                address.breaker.is_on_trial = False

    def _choose(self) -> Address:
        """Return the address for the next call. Raises Stopped if the run ends."""
        if self._stop.reason is not None:
            raise Stopped
        now = asyncio.get_running_loop().time()
        for address in self._addresses:
            if address.breaker.reason is not None and address.breaker.out_until <= now:
                address.breaker.try_again()
                return address

        def load(address: Address) -> tuple[bool, bool, int]:
            return address.breaker.is_on_trial, address.limiter.resumes_at > now, address.calls

        return min((address for address in self._addresses if address.breaker.reason is None), key=load)
