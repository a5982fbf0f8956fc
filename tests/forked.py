"""Commands in processes that have the libraries of training already: a server imports them once, and forks.

A command that is started as a user starts it computes for about six seconds until it begins. The walk from the wheel
(`tests/test_walk.py`), `tests/train/test_processes.py`, the README's own commands and the stops of
`tests/test_stops.py` start it so.
"""

import gc
import json
import os
import shlex
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from multiprocessing import forkserver, get_context
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import DupFd
from pathlib import Path
from subprocess import TimeoutExpired
from tempfile import TemporaryDirectory, TemporaryFile
from threading import Thread
from typing import Any

import pytest

MODULES = (
    *(f"datagen_train.{name}" for name in ("pretrain", "sft", "reward", "classify", "dpo", "distill", "ppo", "grpo")),
    *(f"datagen_train.tools.{name}" for name in ("evaluate", "score", "merge", "chat", "check")),
    *("datagen.llm.local.model", "datagen.llm.endpoint", "datagen.generators.evolve", "datagen.commands.run"),
)
PROGRAM = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    request = json.dumps([sys.argv, os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(server, [len(request).to_bytes(4)], [0, 1, 2])
    server.sendall(request)
    sys.exit(server.recv(1)[0])
"""


@cache
def context() -> ForkServerContext:
    """Return what makes processes that have the libraries; the first call starts to import them."""
    forks = get_context("forkserver")
    forks.set_forkserver_preload(list(MODULES))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("OMP_NUM_THREADS", "HF_HUB_OFFLINE"):  # which the libraries read when they are imported
            patch.setenv(name, "1")
        forkserver.ensure_running()
    return forks


def run_forked(function: Callable[..., Any], *arguments: Any) -> BaseProcess:
    """Start a function in a process that has the libraries."""
    process = context().Process(target=function, args=arguments)
    process.start()
    return process


class Streams:
    """The three standard streams of a process to be: open files here, their copies there."""

    def __init__(self, *files: int) -> None:
        self.files = files

    def __getstate__(self) -> list[Any]:
        return [DupFd(file) for file in self.files]

    def __setstate__(self, copies: list[Any]) -> None:
        self.files = tuple(copy.detach() for copy in copies)

    def take(self) -> None:
        """Make them those of this process."""
        for number, file in enumerate(self.files):
            os.dup2(file, number)
            os.close(file)
        sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)
        sys.stderr = open(2, "w", buffering=1, closefd=False)


def be_datagen(words: Sequence[str], folder: str, environment: Mapping[str, str], streams: Streams) -> None:
    """Run the program in this process; the first word is its name."""
    from datagen.__main__ import main

    gc.freeze()  # what the server has imported is no garbage
    streams.take()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = list(words)
    main()


class Forked:
    """A command in such a process: as much of a Popen as tests use. `communicate` ends each.

    Args:
        line: What would follow `datagen`.
        variables: More of its environment.
    """

    def __init__(self, line: str, variables: Mapping[str, str] | None = None) -> None:
        self._outputs = [TemporaryFile("w+") for _ in range(2)]
        words = ["datagen", *shlex.split(line)]
        with open(os.devnull) as nothing:
            streams = Streams(nothing.fileno(), *(file.fileno() for file in self._outputs))
            self._process = run_forked(be_datagen, words, os.getcwd(), {**os.environ, **(variables or {})}, streams)
        self.pid = self._process.pid or 0

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if (code := self._process.exitcode) is None:
            raise TimeoutExpired("datagen", timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        with suppress(ProcessLookupError):  # it has ended
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for the end; return what was printed on both streams."""
        self.wait(timeout)
        texts = []
        for file in self._outputs:
            with file:
                file.seek(0)
                texts.append(file.read())
        return texts[0], texts[1]


@contextmanager
def program(folder: Path) -> Iterator[None]:
    """Write a program `datagen` into a folder, which runs in such a process, with the caller's streams."""
    with TemporaryDirectory() as place, socket.socket(socket.AF_UNIX) as listening:
        address = f"{place}/socket"
        listening.bind(address)
        listening.listen()
        Thread(target=accept, args=(listening,), daemon=True).start()
        (folder / "datagen").write_text(PROGRAM.format(python=sys.executable, address=address))
        (folder / "datagen").chmod(0o755)
        yield


def accept(listening: socket.socket) -> None:
    """Run what is asked for, until the socket is closed."""
    with suppress(OSError):
        while True:
            connection, _ = listening.accept()
            Thread(target=run_for, args=(connection,), daemon=True).start()


def run_for(connection: socket.socket) -> None:
    """Run one command, and send its exit code."""
    with connection:
        length, files, _, _ = socket.recv_fds(connection, 4, 3)
        with connection.makefile("rb") as stream:
            words, folder, environment = json.loads(stream.read(int.from_bytes(length)))
        process = run_forked(be_datagen, words, folder, environment, Streams(*files))
        for file in files:
            os.close(file)
        process.join()
        code = process.exitcode or 0
        connection.sendall(bytes([code if code >= 0 else 128 - code]))
