"""A server's limit of requests and tokens, and how servers spell it."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import ceil


@dataclass
class Pot:
    """One limit: refilled steadily, or all at once when a window ends."""

    limit: float
    window: float
    is_steady: bool = True
    level: float = field(init=False)
    at: float = field(default=float("-inf"), init=False)  # of the last refill

    def __post_init__(self) -> None:
        self.level = self.limit

    def refill(self, now: float) -> None:
        if self.is_steady:
            self.level = min(self.limit, self.level + (now - self.at) * self.limit / self.window)
            self.at = now
        elif now >= self.at + self.window:
            self.level, self.at = self.limit, now

    def full_in(self, now: float) -> float:
        if self.is_steady:
            return (self.limit - self.level) * self.window / self.limit
        return self.at + self.window - now

    def wait(self, now: float) -> float:
        """Seconds until another request fits."""
        return max(0.0, 1 - self.level) * self.window / self.limit if self.is_steady else self.full_in(now)


@dataclass
class Meter:
    """Counts requests and tokens. Spellings: openai, anthropic, ietf, older, azure (what remains alone), retry
    (Retry-After alone), words (in the body alone), none."""

    spelling: str
    requests: Pot | None = None
    tokens: Pot | None = None

    @property
    def pots(self) -> dict[str, Pot]:
        return {name: pot for name in ("requests", "tokens") if (pot := getattr(self, name)) is not None}

    def admit(self, now: float) -> bool:
        """Count a request, unless it is refused."""
        for pot in self.pots.values():
            pot.refill(now)
        if any(pot.level < 1 for pot in self.pots.values()):
            return False
        if self.requests:
            self.requests.level -= 1
        return True

    def charge(self, tokens: int) -> None:
        if self.tokens:
            self.tokens.level -= tokens

    def wait(self, now: float) -> float:
        return max(pot.wait(now) for pot in self.pots.values())

    def headers(self, now: float, *, is_refused: bool) -> str:
        """Return what the spelling adds to a response."""
        lines = [line for name, pot in self.pots.items() for line in self.lines(name, pot, now)]
        if is_refused and self.spelling not in ("words", "none"):
            lines.append(f"Retry-After: {max(1, ceil(self.wait(now)))}")
        return "".join(f"{line}\r\n" for line in lines)

    def lines(self, name: str, pot: Pot, now: float) -> list[str]:
        limit, left, full_in = int(pot.limit), max(0, int(pot.level)), pot.full_in(now)
        if self.spelling == "openai":
            reset = f"{1000 * full_in:.0f}ms" if full_in < 1 else f"{full_in // 60:.0f}m{full_in % 60:.3f}s"
            values = {"limit": limit, "remaining": left, "reset": reset}
            return [f"x-ratelimit-{part}-{name}: {value}" for part, value in values.items()]
        if self.spelling == "anthropic":
            kind = "input-tokens" if name == "tokens" else name
            reset = datetime.fromtimestamp(ceil(datetime.now(UTC).timestamp() + full_in), UTC).isoformat()
            values = {"limit": limit, "remaining": left, "reset": reset.replace("+00:00", "Z")}
            return [f"anthropic-ratelimit-{kind}-{part}: {value}" for part, value in values.items()]
        if self.spelling == "ietf":
            rule = f'RateLimit-Policy: "{name}";q={limit};w={pot.window:.0f}'
            return [rule, f'RateLimit: "{name}";r={left};t={ceil(full_in)}'] if name == "requests" else []
        if self.spelling == "older":
            values = {"Limit": limit, "Remaining": left, "Reset": ceil(full_in)}
            return [f"X-RateLimit-{part}: {value}" for part, value in values.items()]
        return [f"x-ratelimit-remaining-{name}: {left}"] if self.spelling == "azure" else []

    def body(self, now: float) -> str:
        """Return the words of a refusal."""
        if self.spelling == "words":
            return f"Rate limit reached. Please try again in {self.wait(now):.3f}s."
        return "Too many requests"
