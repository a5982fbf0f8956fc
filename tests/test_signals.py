"""A signal that no handler of Python hears in time still ends what blocks the main thread."""

import signal
import subprocess
import sys
import time

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
    process = subprocess.Popen(
        [sys.executable, "-c", BLOCKED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.5)  # until it is in the call
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, output) == (0, "interrupted\n")
