"""One run in several processes on this machine: the first one prints, the others are quiet.

torchrun sets the same variables, but turns every exit code into 1 and every one-line error into a report of its own.
"""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from socket import socket
from tempfile import TemporaryFile

from datagen.errors import InputError
from datagen.printing import printable
from datagen.signals import INTERRUPTED, LIFELINE, on_stop

LAUNCHED = "LOCAL_RANK"
"""Set in every process of a run, by this module or by torchrun."""
POLL, GRACE = 0.1, 10.0
"""Seconds between looks at the processes; seconds that the others get to end after one has failed."""
Process = subprocess.Popen[bytes]


def is_main() -> bool:
    """Is this the process that prints and writes?"""
    return os.environ.get("RANK", "0") == "0"


def process_count(nproc: int) -> int:
    """Return the number of processes of this run: that of --nproc, or of the launcher that has started them.

    Raises:
        InputError: --nproc names another number than the launcher.
    """
    started = os.environ.get("WORLD_SIZE", "1") if LAUNCHED in os.environ else ""
    if not started.isdecimal():
        return nproc
    if nproc not in (1, int(started)):
        raise InputError(f"--nproc {nproc}: the launcher has started {started} processes; leave --nproc out")
    return int(started)


def check_devices(processes: int) -> None:
    """Raise InputError if this machine has fewer devices than processes; others may run on another machine."""
    import torch

    here = int(os.environ.get("LOCAL_WORLD_SIZE") or processes)
    if torch.cuda.is_available() and here > torch.cuda.device_count():
        raise InputError(f"--nproc {here}: this machine has {torch.cuda.device_count()} devices")


def leave_group() -> None:
    """Leave the process group: one that is still open when Python ends can abort the process."""
    if not sys.modules.get("torch"):
        return
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def launch(processes: int, command: Sequence[str]) -> int:
    """Run a command in several processes, which find each other by environment variables.

    They are no part of the terminal's group, and hear of a stop from this process alone: from the pipe that is their
    standard input. It closes when this process ends in any way, and they end with it.

    Returns:
        The exit code of the first process that fails (128 + signal number if it was killed), or 0.
    """
    shared = shared_variables(processes)
    with ExitStack() as stack:
        stderr_files = [stack.enter_context(TemporaryFile()) for _ in range(1, processes)]
        ranks: list[Process] = []

        def pass_on(number: int) -> bool:
            for rank in ranks:
                if rank.stdin:
                    with suppress(OSError):  # it has ended
                        os.write(rank.stdin.fileno(), bytes([number]))
            return len(ranks) == processes

        stack.enter_context(on_stop(pass_on))
        for rank, file in enumerate([None, *stderr_files]):
            process = subprocess.Popen(
                command,
                env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdin=subprocess.PIPE,
                stdout=None if file is None else subprocess.DEVNULL,
                stderr=file,
                start_new_session=True,
            )
            ranks.append(process)
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
    return {"OMP_NUM_THREADS": threads, **os.environ, **group, "LOCAL_WORLD_SIZE": str(processes), LIFELINE: "0"}


def wait(ranks: Sequence[Process]) -> int | None:
    """Wait for all processes; return the number of the first that fails, whose failure ends the others.

    Where it has stopped as it was asked to, the others get the time to write the checkpoint.
    """
    while any(rank.poll() is None for rank in ranks) and not any(rank.poll() for rank in ranks):
        time.sleep(POLL)
    failed = next((number for number, rank in enumerate(ranks) if rank.poll()), None)
    for rank in ranks:
        try:
            rank.wait(None if failed is None or ranks[failed].returncode == INTERRUPTED else GRACE)
        except subprocess.TimeoutExpired:
            rank.kill()
            rank.wait()
    return failed
