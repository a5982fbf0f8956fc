"""One run in several processes on this machine: the first one speaks, the others keep quiet.

torchrun sets the same variables, but turns every exit code into 1 and every clear line into a report of its own.
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
from typing import IO, Any

from datagen.commands.terminal import printable
from datagen.errors import InputError

LAUNCHED = "LOCAL_RANK"
"""Set in every process of a run, by this module or by torchrun."""
POLL, GRACE = 0.1, 10.0
"""Seconds between looks at the processes; seconds that the others get once one has ended badly."""
Process = subprocess.Popen[bytes]


def is_main() -> bool:
    """Is this the process that speaks and writes?"""
    return os.environ.get("RANK", "0") == "0"


def leave_group() -> None:
    """Part from the other processes: a group that is still open when Python ends can abort the process."""
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def launch(processes: int, command: Sequence[str]) -> int:
    """Run a command in so many processes; return the exit code of the first that fails, or 0."""
    refuse_more_than_devices(processes)
    with ExitStack() as stack:
        files = [None, *(stack.enter_context(TemporaryFile()) for _ in range(1, processes))]
        shared = variables(processes)
        ranks = [start(command, shared, rank, file) for rank, file in enumerate(files)]
        with forward_signals(ranks):
            failed = wait(ranks)
        if failed is None:
            return 0
        code = ranks[failed].returncode
        said = read(files[failed])
        if code != ranks[0].returncode or "Traceback" in said:  # else the first process has said the same
            print(f"process {failed} failed:\n{printable(said)}", file=sys.stderr)
        return code if code >= 0 else 128 - code


def read(file: IO[bytes] | None) -> str:
    """Return what a process said that spoke to a file."""
    if file is None:
        return ""
    file.seek(0)
    return file.read().decode(errors="replace")


def refuse_more_than_devices(processes: int) -> None:
    import torch

    if torch.cuda.is_available() and processes > torch.cuda.device_count():
        raise InputError(f"--nproc {processes}: this machine has {torch.cuda.device_count()} devices")


def variables(processes: int) -> dict[str, str]:
    """Return what all processes find each other by; they share the cores."""
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    threads = str(max(1, (os.cpu_count() or 1) // processes))
    found = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    return {"OMP_NUM_THREADS": threads, **os.environ, **found, "LOCAL_WORLD_SIZE": str(processes)}


def start(command: Sequence[str], shared: dict[str, str], rank: int, said: IO[bytes] | None) -> Process:
    """Start one process; `said` takes what it says, if that is not for a person."""
    own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    quiet = None if said is None else subprocess.DEVNULL
    return subprocess.Popen(command, env=shared | own, stdin=subprocess.DEVNULL, stdout=quiet, stderr=said)


def wait(ranks: Sequence[Process]) -> int | None:
    """Wait for all; return the number of the first that failed, which the others would wait for in vain."""
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
    """Leave Ctrl-C, which every process of a terminal gets, to the ranks; end them when this process is to end."""

    def end(*_: Any) -> None:
        for rank in ranks:
            rank.terminate()

    before = signal(SIGINT, lambda *_: None), signal(SIGTERM, end)
    try:
        yield
    finally:
        signal(SIGINT, before[0])
        signal(SIGTERM, before[1])
