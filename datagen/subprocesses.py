"""A process of its own for work that may not end: a program or a formula of someone else.

A thread that computes for ever cannot be stopped. A process can: the system ends it after some seconds of computing for
one request, and gives it no more than MEMORY bytes. Requests and replies are JSON, a line each.
"""

import atexit
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from threading import Lock
from typing import Any

from datagen.signals import STOP_SIGNALS

MEMORY = 2 << 30
MAX_MESSAGE = 300
"""Characters of what went wrong."""
Row = dict[str, Any]


class ProcessEnded(Exception):
    """The process has ended before it replied.

    Args:
        code: Its exit code.
    """

    def __init__(self, code: int | None) -> None:
        super().__init__(f"exit code {code}")
        self.code = code

    @property
    def is_slow(self) -> bool:
        """Whether it ended because the request took too long."""
        return self.code == -signal.SIGPROF


class LineProcess:
    """A module that calls `serve`, in a process that the first request starts, and the next one after its end.

    Args:
        module: The module, run with `python -m`.
        cpu_seconds: Of computing, for one request.
    """

    def __init__(self, module: str, cpu_seconds: float) -> None:
        self.cpu_seconds = cpu_seconds
        self._module = module
        self._process: subprocess.Popen[str] | None = None
        self._of_parent: subprocess.Popen[str] | None = None
        """In a copy of the process that started it."""
        self._lock = Lock()
        atexit.register(self.close)
        os.register_at_fork(after_in_child=self._leave)

    def request(self, request: Row) -> Row:
        """Return the reply to a request; one thread at a time.

        Raises:
            ProcessEnded: It took too long, or something else ended the process.
        """
        with self._lock:
            line = self._exchange(json.dumps(request))
            if not line:
                raise ProcessEnded(self.close())
        reply: Row = json.loads(line)
        return reply

    def _leave(self) -> None:
        """Leave the process to the one that started it: this one is a copy of that."""
        self._of_parent, self._process, self._lock = self._process, None, Lock()

    def close(self) -> int | None:
        """End the process; return its exit code."""
        process, self._process = self._process, None
        if process is None:
            return None
        process.communicate()
        return process.returncode

    def _exchange(self, line: str) -> str:
        """Send a line; return the line that comes back, or "" if the process has ended."""
        process = self._process = self._process or start(self._module, self.cpu_seconds)
        assert process.stdin
        assert process.stdout
        try:
            process.stdin.write(line + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            return ""
        return process.stdout.readline()


def start(module: str, cpu_seconds: float) -> "subprocess.Popen[str]":
    """Start the process; Ctrl-C is not for it."""
    # -P keeps the working folder off the path, as for the program itself.
    command = [sys.executable, "-P", "-m", module, str(cpu_seconds)]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | threads, process_group=0
    )


def serve(reply_to: Callable[[Row], Row], cpu_seconds: float) -> None:
    """Reply to requests until standard input ends; an error is the reply {"error": its words}."""
    import resource

    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # nobody waits for the reply: the parent was killed
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for number in STOP_SIGNALS:  # a cluster sends them to every process; this one ends with its parent
        signal.signal(number, signal.SIG_IGN)
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)  # its signal ends the process, whatever it computes
        try:
            reply = json.dumps(reply_to(json.loads(line)))
        except MemoryError:
            reply = json.dumps({"error": "it needs too much memory"})
        except Exception as error:  # a program of someone else
            reply = json.dumps({"error": (str(error) or type(error).__name__)[:MAX_MESSAGE]})
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(reply, flush=True)
