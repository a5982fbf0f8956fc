"""How many requests per second an address takes, learned from those that it refuses.

A server that limits requests per second or per minute refuses those above the limit. The rate of its answers is then
about that limit: a little below it hardly anything is refused. So the rate is measured, requests are spaced out to
SHARE of it. With each answer the rate grows a little, to notice a higher limit. The next run begins with it (facts.py).

Most such servers name a wait. One that names none, or a short one, may limit what is in flight at once, or refuse at
random: there FEWEST requests and more than MANY of all must be refused before they are spaced out further.
"""

from collections import deque
from time import time

from datagen.llm.facts import Facts, number_from

WINDOW = 2.0
"""Seconds over which answers are counted."""
MIN_ANSWERS = 5
"""Answers within the window below which there is nothing to measure: a minute may be used up, and not a second."""
MANY, FEWEST = 0.05, 3
"""Share and number of refusals within the window."""
SHARE = 0.96
GROWTH = 0.0008
"""By which the rate grows with each answer: at a steady limit about one request in fifty is refused."""
QUIET_SECONDS, QUIET_ANSWERS, RECOVERY = 2.0, 30, 0.2
"""Seconds, and answers, without a cut after which the rate grows by RECOVERY a second: it was measured while little was
sent."""
LEAST_RATE, MOST_RATE = 0.01, 10_000.0
"""Requests per second that are remembered."""
SLACK = 0.02
"""Seconds by which a request may be late while the next one is not: timers are late by more than lies between many."""
LEAST_TIME = 1.0
"""Seconds between two cuts: requests that were sent before the last one say nothing new."""


class Pace:
    """The pace of the requests to one address. Times are those of one clock, in seconds.

    Args:
        place: The address, for messages.
    """

    def __init__(self, place: str = "") -> None:
        self._place = place
        self.rate = float("inf")
        """Requests per second."""
        self._answers: deque[float] = deque()
        self._refusals: deque[float] = deque(maxlen=1000)
        self._began = float("inf")
        self._next = 0.0
        self._last_cut, self._since_cut = float("-inf"), 0
        self._learned = 0.0
        """When a server last lowered it, in seconds since 1970."""
        self._remembered = 0.0

    @property
    def facts(self) -> Facts:
        """What the next run begins with."""
        return Facts({"rate": round(self.rate, 3)} if self.rate < MOST_RATE else {}, self._learned)

    def recall(self, facts: Facts) -> None:
        """Begin with what an earlier run has learned."""
        if rate := number_from(facts.values.get("rate"), LEAST_RATE, MOST_RATE):
            self.rate = self._remembered = rate
            self._learned = facts.learned

    @property
    def notes(self) -> list[str]:
        """What is to be said of the pace at the end of the run."""
        is_used = self._remembered and self._began < float("inf")
        return [f"{self._place}: remembered: about {self._remembered:.3g} requests a second"] if is_used else []

    def delay(self, now: float) -> float:
        """Return the seconds until the next request may be sent; 0 if it may be sent now."""
        return max(0.0, self._next - now)

    def send(self, now: float) -> None:
        """Count a request that is sent."""
        self._began = min(now, self._began)
        self._next = max(now - SLACK, self._next) + 1 / self.rate

    def answer(self, now: float) -> None:
        """Count an answer."""
        since = now - (self._answers[-1] if self._answers else now)
        self._answers.append(now)
        while self._answers[0] < now - WINDOW:
            self._answers.popleft()
        self._since_cut += 1
        if self.rate < float("inf"):
            is_quiet = now - self._last_cut > QUIET_SECONDS and self._since_cut > QUIET_ANSWERS
            self.rate *= 1 + (RECOVERY * since if is_quiet else GROWTH)

    def refuse(self, now: float, *, is_wait_named: bool) -> None:
        """Lower the pace, after a refusal.

        Args:
            now: When it came.
            is_wait_named: Whether it names a wait that is not short.
        """
        self._refusals.append(now)
        if now - self._last_cut < LEAST_TIME:
            return
        recent, refused = (sum(at >= now - WINDOW for at in times) for times in (self._answers, self._refusals))
        are_many = now - self._began >= WINDOW and refused >= FEWEST and refused > MANY * (recent + refused)
        if recent < MIN_ANSWERS or not (is_wait_named or are_many):
            return
        self._last_cut, self._since_cut, self._learned = now, 0, time()
        measured = recent / min(WINDOW, max(now - self._began, 1e-3))
        self.rate = min(self.rate, measured) * SHARE
