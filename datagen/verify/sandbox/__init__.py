"""A sandbox for Python programs of a model: no network, no files, no keys, little memory, and an end.

It is made of Linux namespaces (user, mount, process, network, IPC), as containers are: the program sees the libraries
of Python, read only, and an empty folder in memory; its environment is empty, it has no capability, and it runs as
nobody where this process is root's. Limits hold for computing, memory, disk, processes and open files, and a clock ends
the whole group. Where the system has no such namespaces nothing is run: `sandbox_problem` says why.

Departure from HumanEval's and MBPP's harness, which call `exec` behind a few patched functions. As there, program and
tests share an interpreter: a program that sets out to find the harness in its own memory can pass, so a verdict is one
about honest programs. `sys.exit`, `os._exit` and printed words pass nothing.
"""

import json
import os
import secrets
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Timer

from datagen.verify.sandbox.launcher import END, READY, UNREAD

LAUNCHER = Path(__file__).with_name("launcher.py")
CPU_SECONDS, WALL_SECONDS = 5, 30
"""Of the program. The clock is longer: a busy machine is no fault of the program."""
MEMORY, DISK = 512 << 20, 16 << 20
"""Bytes, of each process; of all files together."""
LIMITS = {
    "RLIMIT_CPU": CPU_SECONDS,
    "RLIMIT_AS": MEMORY,
    "RLIMIT_FSIZE": DISK,
    "RLIMIT_NPROC": 16,
    "RLIMIT_NOFILE": 64,
    "RLIMIT_CORE": 0,
}
MAX_REPLY = 4_096
"""Bytes that are read from the sandbox; the program may write into its pipe."""
MAX_PROGRAM = 200_000
"""Characters of a program, and of its tests."""
WAY_OUT = (
    "Code is run in a sandbox of Linux namespaces only. Allow user namespaces (sysctl user.max_user_namespaces, "
    "kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0; in Docker a security profile "
    "that allows unshare and mount), or run this command on a Linux machine that has them"
)


@cache
def sandbox_problem() -> str | None:
    """Return why programs cannot be run here, and what to do; None if they can."""
    if not sys.platform.startswith("linux"):
        return f"this system is {sys.platform}. {WAY_OUT}"
    reply = run_launcher("x = 1", "assert x == 1", is_fenced=True)[1]
    problem = next(iter(reply.splitlines()), "it did not start")
    return None if problem == READY else f"{problem}. {WAY_OUT}"


@cache
def sandbox_threads() -> ThreadPoolExecutor:
    """Return the threads that wait for programs: one for each processor, so that none is starved until its clock
    ends."""
    return ThreadPoolExecutor(len(os.sched_getaffinity(0)), "sandbox")


def run_tests(program: str, tests: str, *, is_fenced: bool = True) -> bool | None:
    """Run a program and its tests in the sandbox.

    Args:
        program: Python.
        tests: Python that runs after it, in the same names; it raises where a test fails.
        is_fenced: Whether the text is surely meant as code; else one that is not Python is no program.

    Returns:
        True: all tests pass. False: a test fails, the program raises, or it takes more computing or memory than
        LIMITS. None: it cannot be told, since the clock ended it, the tests are not Python, or a library is missing.
    """
    if max(len(program), len(tests)) > MAX_PROGRAM:
        return None
    token, reply = run_launcher(program, tests, is_fenced=is_fenced)
    lines = reply.splitlines()
    if token in lines:
        return True
    is_over = any(line.startswith(END) for line in lines[1:])
    return False if lines[:1] == [READY] and is_over and UNREAD not in lines else None


def run_launcher(program: str, tests: str, *, is_fenced: bool) -> tuple[str, str]:
    """Return the token that stands for success, and what came out of the sandbox."""
    token = secrets.token_hex(16)
    request = {
        "program": program,
        "tests": tests,
        "is_fenced": is_fenced,
        "token": token,
        "limits": LIMITS,
        "disk": DISK,
    }
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-B", str(LAUNCHER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={},
        cwd="/",
        start_new_session=True,
    )
    clock = Timer(WALL_SECONDS, end_group, [process])
    clock.start()
    try:
        assert process.stdin and process.stdout
        with suppress(BrokenPipeError):
            process.stdin.write(json.dumps(request).encode())
            process.stdin.close()
        reply = process.stdout.read(MAX_REPLY)
    finally:
        clock.cancel()
        end_group(process)
        process.stdout.close() if process.stdout else None
        process.wait()
    return token, reply.decode("utf-8", "replace")


def end_group(process: "subprocess.Popen[bytes]") -> None:
    """End the launcher; all that it has started ends with it."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
