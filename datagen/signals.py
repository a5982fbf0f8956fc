"""Ctrl-C, SIGTERM and SIGHUP end a command in the same way, at any moment: while it imports, works, or is blocked.

The first signal is a request to stop. What is to be finished before the process ends says so with `on_stop`; where
nothing is, the process ends at once, with one line. The second one ends the process at once in any case. Nothing is
lost then: what is on the disk is what a `kill -9` leaves, and every command goes on from there.

The signals are plain handlers, not those of asyncio, which run only when the event loop does. A handler runs between
two steps of Python. A thread helps where it does not: it wakes the main thread from a system call that began just after
the signal, and at the second signal it ends the process, whatever a library keeps the main thread from.
"""

import os
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Lock, Thread, Timer, current_thread, main_thread
from time import monotonic
from typing import Any, NoReturn

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
WAKE = signal.SIGURG
"""Sent to the main thread to end a system call that blocks it; the system and this program use it for nothing else."""
INTERRUPTED = 130
"""The exit code of a command that one of them has ended."""
SAME = 0.2
"""Seconds within which a second signal is the same request: a terminal that closes sends two, a launcher passes on what
the process was sent as well."""
LIFELINE = "DATAGEN_LIFELINE"
"""Set in a process that hears of a stop from its parent, by standard input, and ends with it."""
Reaction = Callable[[int], bool]

_reactions: list[Reaction] = []
_first_at: float | None = None
"""When the first request came."""
_ending = Lock()
"""Taken by the thread that ends the process."""


def listen() -> None:
    """Hear the signals from now on, until `stop_listening`. Call once, at the start of the program."""
    if LIFELINE in os.environ:
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        Thread(target=_follow_parent, daemon=True).start()
        return
    _install()
    signal.signal(WAKE, lambda *_: None)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    Thread(target=_watch, args=(reader,), daemon=True).start()


def stop_listening() -> None:
    """Let the signals end the process by themselves: while Python ends, no handler can run."""
    for number in STOP_SIGNALS:
        if signal.getsignal(number) is _handle:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def on_stop(reaction: Reaction) -> Iterator[None]:
    """Call `reaction` at the first signal, while the block runs.

    Args:
        reaction: Gets the number of the signal. Begins to stop, and returns whether the block will end by itself; if
            not, the reaction around it is called, and without one the process ends at once. It runs between any two
            steps of the main thread.
    """
    global _first_at
    before = _install()
    if not _reactions:
        _first_at = None
    _reactions.append(reaction)
    try:
        yield
    finally:
        _reactions.pop()
        for number, handler in before.items():
            signal.signal(number, handler)


def interrupt(_: int) -> NoReturn:
    """A reaction that raises KeyboardInterrupt in the block, so that what the block has opened is closed or removed."""
    raise KeyboardInterrupt


def is_asked() -> bool:
    """Was this process asked to stop?"""
    return _first_at is not None


def ask(number: int) -> None:
    """Begin to stop, or end the process if that has begun; `number` is of the signal."""
    global _first_at
    now = monotonic()
    if number == signal.SIGHUP:
        leave_terminal()
    if _first_at is None:
        _first_at = now
        if any(reaction(number) for reaction in reversed(_reactions)):
            return
        end_process()
    if now - _first_at > SAME:
        end_process()


def end_process() -> NoReturn:
    """End the process at once, with one line, whichever thread comes first."""
    if _ending.acquire(timeout=SAME):
        with suppress(OSError):
            os.write(2, b"Interrupted.\n")
    os._exit(INTERRUPTED)


def leave_terminal() -> None:
    """Write to nothing where there is a terminal: it is gone, or will be, and writing to it would then fail."""
    for descriptor in (0, 1, 2):
        with suppress(OSError):
            if stat.S_ISCHR(os.fstat(descriptor).st_mode):
                nothing = os.open(os.devnull, os.O_RDWR)
                os.dup2(nothing, descriptor)
                os.close(nothing)


def _install() -> dict[signal.Signals, Any]:
    """Set the handlers; return those before. A signal that is ignored (nohup, a job in the background) stays so."""
    if current_thread() is not main_thread():  # only the main thread may
        return {}
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    before = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, _handle)
    return before


def _handle(number: int, _: Any) -> None:
    ask(number)


def _watch(reader: int) -> None:
    """Wake the main thread after the first signal, and end the process at the second: its own handler may not run."""
    first = None
    while number := os.read(reader, 1):
        if number[0] in STOP_SIGNALS:
            if first is None:
                first = monotonic()
                wake_main_thread_later()
            if monotonic() - first > SAME:
                end_process()


def wake_main_thread_later() -> None:
    """Send it WAKE in a moment: a signal that comes just before a system call does not end that call."""
    timer = Timer(SAME, signal.pthread_kill, (main_thread().ident, WAKE))
    timer.daemon = True
    timer.start()


def _follow_parent() -> None:
    """Stop when the parent says so, and end when it has ended."""
    while number := os.read(sys.stdin.fileno(), 1):
        ask(number[0])
    os._exit(INTERRUPTED)
