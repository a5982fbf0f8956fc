"""How the time of a function grows with the length of its text, and the texts that make slow ones slow.

A pattern with two adjacent groups that share a character tries every division of a run between them: time grows with
the square of the run or worse, and a single reply stops a program. Texts of one repeated unit show it.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import NamedTuple

UNITS = (
    *(" ", "\n", "\t", "\r", "\u3000", "_", "*", "#", "`", ">", "<", "-", "=", "~", "|", "/", "\\", "'", '"', "“"),
    *(",", ".", ":", ";", "!", "?", "：", "，", "。", "[", "]", "(", ")", "{", "}", "&", "%", "^", "+", "•", "−"),
    *("a", "A", "I", "我", "一", "0", "1", "é", "\u0301", "\x00", "\u202e", "\U0001f680"),
    *(" \n", "\n ", "\n\n ", "\r\n", "_ ", "* ", "- ", "# ", "> ", ". ", ", ", ": ", "a ", "I ", "A.", "1 "),
    *("1.", "1,"),
    *("1\n", "a\n", "=1", "1+", "(1", "1)", "**", "```", "```\n", "~~~\n", "<<", "<a", "<a ", "<!--", "</", "<think>"),
    *("![", "[a", "[a]", "](", "[1]", "{{", "{%", "\\(", "\\{", "\\boxed{", "\\frac{", "http://"),
    *("www.", "&#", "&amp;"),
    *("Verdict", "Verdict:", "Score", "Score:\n", "a is b", "the ", "this ", "and ", "please ", "A is ", "sorry "),
    *("new prompt ", "as an ai ", "answer ", "the answer is ", "Final answer: ", "Follow-up: ", "#### ", "def a():\n"),
    *('"a" ', "The b of C is ", "a, ", "1/", "1 and ", "24 1", "我是由", "如何", "的", "A: ", "- a\n"),
    *("# a\n", "\n\n1.", ",:", "'\""),
)  # fmt: skip
"""Signs, words and beginnings that patterns of this project know, each repeated."""
FRAMES = (("", "!"), ("a", "\nx"), ("Score: 3", "9"), ("", "a x"))
"""Beginnings before a run, and ends after it that may make a match fail."""
MOST = 100_000
"""Characters."""
ENOUGH = 0.02
"""Seconds that can be compared."""
SUSPICIOUS = 0.001
"""Seconds of a short text from which its growth is measured."""
LIMIT = 20.0
"""Seconds after which a call is ended."""


class Killer(NamedTuple):
    """A text of any length: a run of one unit between a prefix and a suffix."""

    prefix: str
    unit: str
    suffix: str

    def text(self, length: int) -> str:
        return self.prefix + self.unit * max(1, length // len(self.unit)) + self.suffix


def killers() -> list[Killer]:
    """Return all killers: every unit in each frame."""
    return [Killer(prefix, unit, suffix) for unit in UNITS for prefix, suffix in FRAMES]


class TooSlow(BaseException):
    """A call took more than LIMIT seconds; no function under test catches it."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TooSlow after so many seconds; a running pattern is interrupted too."""

    def end(*_: object) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def cost(work: Callable[[str], object], text: str, tries: int = 1) -> float:
    """Return the seconds of a call, the least of several tries."""
    times = []
    for _ in range(tries):
        start = perf_counter()  # the clock of CPU time has ticks of milliseconds on some machines
        work(text)
        times.append(perf_counter() - start)
    return min(times)


def growth(work: Callable[[str], object], killer: Killer, screen: int = 2048) -> str | None:
    """Return what is wrong with the time of a function on a killer, or None.

    Short texts come first. Where the time of `screen` characters could be more than linear, it is measured where it is
    long enough to be compared: twice the length may take three times as long at most.
    """
    length, small = 32, 1.0
    try:
        with time_limit(LIMIT):
            while length <= screen:
                large = cost(work, killer.text(length))
                if large > SUSPICIOUS and large > 8 * small and cost(work, killer.text(length), 3) > 8 * small:
                    break
                length, small = 4 * length, large
            else:
                return None
        with time_limit(LIMIT):
            return ratio(work, killer, length)
    except TooSlow:
        return f"{killer}: {length:,} characters take more than {LIMIT} s"


def ratio(work: Callable[[str], object], killer: Killer, length: int) -> str | None:
    """Return the problem where twice the length takes three times as long."""
    while (once := cost(work, killer.text(length), 3)) < ENOUGH:
        if length > MOST:
            return None
        length *= 2
    for _ in range(3):  # noise of a busy machine comes and goes
        twice = cost(work, killer.text(2 * length), 3)
        if twice < 3 * once:
            return None
        once = cost(work, killer.text(length), 3)
    return f"{killer}: {length:,} characters take {once:.3f} s, twice as many {twice:.3f} s"
