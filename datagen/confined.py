"""A process of its own for work on what others have made: a line of JSON asks, a line of JSON answers.

What a template or a document costs is not known before: it may loop, or fill the memory, and a thread that does so
cannot be stopped. The process can: the system ends it after so many seconds of computing for one request, and gives it
no more than MEMORY bytes.
"""

import atexit
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from threading import Lock

from datagen.records.record import Row
from datagen.signals import STOP_SIGNALS

MEMORY = 2 << 30
MOST_WORDS = 300
"""Characters of what the work says when it fails."""


class Ended(Exception):
    """The process has ended before it answered.

    Args:
        code: Its exit code, negative for a signal.
    """

    def __init__(self, code: int | None) -> None:
        super().__init__(f"exit code {code}")
        self.code = code
        self.is_slow = code == -signal.SIGPROF
        """It has used up its time."""


class Confined:
    """The process, started by the first request and again after its end; it ends with this one.

    Args:
        module: The module that runs there and calls `serve`.
        cpu_seconds: Of computing, for one request.
    """

    def __init__(self, module: str, cpu_seconds: float) -> None:
        self.module, self.cpu_seconds = module, cpu_seconds
        self.process: subprocess.Popen[str] | None = None
        self._lock = Lock()
        atexit.register(self.close)

    def ask(self, request: Row) -> Row:
        """Return the answer to a request. Raises Ended."""
        line = json.dumps(request)
        with self._lock:
            reply = self._exchange(line)
            if not reply:
                raise Ended(self.close())
        answer: Row = json.loads(reply)
        return answer

    def close(self) -> int | None:
        """End the process; return its exit code."""
        process, self.process = self.process, None
        if process is None:
            return None
        process.communicate()
        return process.returncode

    def _exchange(self, line: str) -> str:
        """Send a line; return the line that comes back, or "" if the process has ended."""
        process = self.process = self.process or self._start()
        assert process.stdin
        assert process.stdout
        try:
            process.stdin.write(line + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            return ""
        return process.stdout.readline()

    def _start(self) -> "subprocess.Popen[str]":
        """Start the process; Ctrl-C is not for it."""
        # -P keeps the working folder off the path, as for the program itself.
        command = [sys.executable, "-P", "-m", self.module, str(self.cpu_seconds)]
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | threads, process_group=0
        )


def serve(work: Callable[[Row], Row]) -> None:
    """Answer requests, a line each, until standard input ends; what fails is answered with {"error"}."""
    import resource

    cpu_seconds = float(sys.argv[1])
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # nobody waits for the reply: the parent was killed
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for number in STOP_SIGNALS:  # a cluster sends them to every process; this one ends with its parent
        signal.signal(number, signal.SIG_IGN)
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)  # its signal ends the process, whatever it computes
        try:
            reply = json.dumps(work(json.loads(line)))
        except MemoryError:
            reply = json.dumps({"error": "it needs too much memory"})
        except Exception as error:  # the work of someone else
            reply = json.dumps({"error": (str(error) or type(error).__name__)[:MOST_WORDS]})
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(reply, flush=True)
