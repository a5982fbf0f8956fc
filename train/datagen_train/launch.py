"""One run in several processes on this machine: the first one prints, the others are quiet.

torchrun sets the same variables, but turns every exit code into 1 and every one-line error into a report of its own.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from signal import SIGINT, SIGTERM, signal
from socket import socket
from tempfile import TemporaryFile
from typing import Any

from datagen.commands.terminal import printable
from datagen.errors import InputError

LAUNCHED = "LOCAL_RANK"
"""Set in every process of a run, by this module or by torchrun."""
POLL, GRACE = 0.1, 10.0
"""Seconds between looks at the processes; seconds that the others get to end after one has failed."""
Process = subprocess.Popen[bytes]


def is_main() -> bool:
    """Is this the process that prints and writes?"""
    return os.environ.get("RANK", "0") == "0"


def leave_group() -> None:
    """Leave the process group: one that is still open when Python ends can abort the process."""
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def launch(processes: int, command: Sequence[str]) -> int:
    """Run a command in several processes, which find each other by environment variables.

    Returns:
        The exit code of the first process that fails (128 + signal number if it was killed), or 0.

    Raises:
        InputError: there are fewer devices than processes.
    """
    import torch

    if torch.cuda.is_available() and processes > torch.cuda.device_count():
        raise InputError(f"--nproc {processes}: this machine has {torch.cuda.device_count()} devices")
    shared = shared_variables(processes)
    with ExitStack() as stack:
        stderr_files = [stack.enter_context(TemporaryFile()) for _ in range(1, processes)]
        ranks = [
            subprocess.Popen(
                command,
                env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdin=subprocess.DEVNULL,
                stdout=None if file is None else subprocess.DEVNULL,
                stderr=file,
            )
            for rank, file in enumerate([None, *stderr_files])
        ]
        with forward_signals(ranks):
            failed = wait(ranks)
        if failed is None:
            return 0
        code = ranks[failed].returncode
        message = ""
        if failed > 0:
            stderr_files[failed - 1].seek(0)
            message = stderr_files[failed - 1].read().decode(errors="replace")
        if code != ranks[0].returncode or "Traceback" in message:  # else the first process has printed the same
            print(f"process {failed} failed:\n{printable(message)}", file=sys.stderr)
        return code if code >= 0 else 128 - code


def shared_variables(processes: int) -> dict[str, str]:
    """Return the environment of all processes: where they meet, and an equal share of the cores."""
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    threads = str(max(1, (os.cpu_count() or 1) // processes))
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    return {"OMP_NUM_THREADS": threads, **os.environ, **group, "LOCAL_WORLD_SIZE": str(processes)}


def wait(ranks: Sequence[Process]) -> int | None:
    """Wait for all processes; return the number of the first that fails, whose failure ends the others."""
    while any(rank.poll() is None for rank in ranks) and not any(rank.poll() for rank in ranks):
        time.sleep(POLL)
    failed = next((number for number, rank in enumerate(ranks) if rank.poll()), None)
    for rank in ranks:
        try:
            rank.wait(GRACE)
        except subprocess.TimeoutExpired:
            rank.kill()
            rank.wait()
    return failed


@contextmanager
def forward_signals(ranks: Sequence[Process]) -> Iterator[None]:
    """End the processes at SIGTERM, and leave Ctrl-C to them: a terminal sends it to every process."""

    def terminate(*_: Any) -> None:
        for rank in ranks:
            rank.terminate()

    before = signal(SIGINT, lambda *_: None), signal(SIGTERM, terminate)
    try:
        yield
    finally:
        signal(SIGINT, before[0])
        signal(SIGTERM, before[1])
