"""Ctrl-C, SIGTERM and SIGHUP: the first drains, the second ends at once, whatever the process does meanwhile."""

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from datagen.signals import on_stop
from tests.jobs import rows, write_seeds
from tests.server import Server, running

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SCRIPT = """
import asyncio, ctypes, re, sys, time
from datagen import signals

def drain(number):
    print("draining", flush=True)
    return True

async def run():
    print("ready", flush=True)
    {work}

signals.listen()
with signals.on_stop(drain):
    asyncio.run(run())
print("over", flush=True)
"""
PATTERN = 're.match(r"(a+)+$", "a" * 60 + "b")'
FOREIGN = "mutex = bytes(64); [ctypes.CDLL(None).pthread_mutex_lock(mutex) for _ in range(2)]"
PYTHON = "while True: pass"


def start(code: str, *options: str) -> "subprocess.Popen[str]":
    """Start a script, and wait for its first line."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stdout.readline() == "ready\n"
    return process


def send(process: "subprocess.Popen[str]", *numbers: signal.Signals, pause: float = 0.4) -> tuple[int, str, str]:
    for number in numbers:
        time.sleep(pause)
        process.send_signal(number)
    stdout, stderr = process.communicate(timeout=300)
    return process.returncode, stdout, stderr


BLOCKED = """
import os, signal
from datagen import signals
signals.listen()
signal.pthread_sigmask(signal.SIG_BLOCK, signals.STOP_SIGNALS)
print("ready", flush=True)
try:
    with signals.on_stop(signals.interrupt):
        os.read(os.pipe()[0], 1)
except KeyboardInterrupt:
    print("interrupted")
"""
"""Another thread gets the signal, as when it comes just before the system call: the call does not end by itself."""


def test_a_signal_just_before_a_system_call_ends_the_call() -> None:
    assert send(start(BLOCKED), signal.SIGINT) == (0, "interrupted\n", "")


@pytest.mark.parametrize("work", [PATTERN, FOREIGN, PYTHON])
@pytest.mark.parametrize("number", SIGNALS)
def test_the_second_signal_ends_a_process_whose_event_loop_is_blocked(number: signal.Signals, work: str) -> None:
    code, _, stderr = send(start(SCRIPT.format(work=work)), number, number)
    assert (code, stderr) == (130, "Interrupted.\n")


def test_the_first_signal_is_heard_while_the_event_loop_is_blocked() -> None:
    process = start(SCRIPT.format(work="time.sleep(1.2)"))
    assert send(process, signal.SIGTERM) == (0, "draining\nover\n", "")


def test_two_signals_at_once_are_one_request() -> None:
    """A terminal that closes sends two, and a launcher passes on what the process got as well."""
    process = start(SCRIPT.format(work="time.sleep(1.2)"))
    time.sleep(0.3)
    process.send_signal(signal.SIGHUP)
    assert send(process, signal.SIGTERM, pause=0.02) == (0, "draining\nover\n", "")


def test_in_a_thread_no_handler_is_set() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    seen: list[Any] = []

    def work() -> None:
        with on_stop(lambda number: True):
            seen.extend(signal.getsignal(number) for number in SIGNALS)

    thread = Thread(target=work)
    thread.start()
    thread.join()
    assert seen == before


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[Any]") -> None:
    while not condition():
        assert process.poll() is None
        time.sleep(0.02)


def evolve(server: Server, *options: str) -> list[str]:
    seeds = str(write_seeds(60))
    model = ["--model", f"m@{server.url}", "--concurrency", "8"]
    return [sys.executable, "-m", "datagen", "evolve", seeds, *model, *options]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_sigterm_and_sighup_drain_as_ctrl_c_does(number: signal.Signals) -> None:
    with running(Server(latency=0.03)) as server:
        process = subprocess.Popen(evolve(server), stderr=subprocess.PIPE, text=True)
        wait_for(lambda: server.requests >= 50, process)
        code, _, stderr = send(process, number, pause=0)
        assert code == 130
        assert "Stopping: waiting for" in stderr and "Interrupted. What was paid for is recorded." in stderr
        assert subprocess.run(evolve(server, "-q")).returncode == 0
        assert server.paid_twice() == []
    assert len(rows("seeds.evolve.jsonl")) > 200


def test_a_run_whose_terminal_closes_drains() -> None:
    """Writing to the terminal fails from then on."""
    with running(Server(latency=0.05)) as server:
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            evolve(server), stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),  # the terminal of the session
        )  # fmt: skip
        os.close(theirs)
        wait_for(lambda: server.requests >= 50, process)
        os.close(ours)
        assert process.wait(20) == 130
    assert b'"ended":"interrupted"' in Path("seeds.evolve.meta.json").read_bytes().replace(b" ", b"")


def ignoring(number: signal.Signals) -> Callable[[], None]:
    def ignore() -> None:
        signal.signal(number, signal.SIG_IGN)

    return ignore


@pytest.mark.parametrize("name", ["SIGINT", "SIGHUP"])
def test_what_the_shell_lets_a_command_ignore_stays_ignored(name: str) -> None:
    """A job in the background ignores Ctrl-C, one under nohup SIGHUP; SIGTERM ends both."""
    number = signal.Signals[name]
    with running(Server(latency=0.05)) as server:
        command = evolve(server, "-o", "out.jsonl")
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=ignoring(number))
        wait_for(lambda: server.requests >= 20, process)
        process.send_signal(number)
        process.send_signal(number)
        before = server.requests
        wait_for(lambda: server.requests >= before + 20, process)
        assert send(process, signal.SIGTERM, pause=0)[0] == 130


@pytest.mark.parametrize("number", SIGNALS)
def test_at_any_import_a_command_ends_with_one_line_at_most(number: signal.Signals) -> None:
    """At each moment from its first line on: what has begun is a process that imports."""
    seeds = str(write_seeds(3))
    for delay in (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6):
        code = "from datagen.__main__ import main; print(flush=True); main()"
        command = [sys.executable, "-c", code, "filter", seeds, "-o", f"{delay}.jsonl"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout
        process.stdout.readline()
        time.sleep(delay + 0.01)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=300)
        assert "Traceback" not in stderr
        assert process.returncode in (130, 0, -number), stderr
        assert stderr == "Interrupted.\n" or process.returncode != 130 or "Stopping" in stderr
