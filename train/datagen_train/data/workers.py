"""Encoding in several processes: each takes every N-th part, and the parts come back in order.

The processes are forked, so that rows, tokenizer and whatever a method of a user's own refers to are there at once;
they use no device. A process that writes to a reader that is gone ends: none outlives this one.
"""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from multiprocessing.connection import Connection
from traceback import format_exc
from typing import Any

from datagen.errors import DatagenError
from datagen.signals import STOP_SIGNALS
from datagen_train.data.table import EncodeJob, Part

ROWS_OF_PROCESS = 2_000
"""With fewer rows to encode, a process takes longer to start than it saves."""


def process_count(workers: int | None, rows: int) -> int:
    """Return the number of processes to encode with: `workers`, or as many as there are cores and as pay; 1 is this.

    On macOS it is 1 unless asked for: libraries of the system do not survive a fork.
    """
    if workers is None and sys.platform != "linux":
        return 1
    return max(1, min(workers or len(os.sched_getaffinity(0)), rows // ROWS_OF_PROCESS))


def encode_parts(job: EncodeJob[Any, Any], processes: int, count: Callable[[int, int], None]) -> Iterator[Part]:
    """Yield the parts in order; `count` gets how many rows there are so far, and how many in all."""
    parts = map(job.encode_part, range(job.parts)) if processes == 1 else in_processes(job, processes)
    for number, part in enumerate(parts):
        yield part
        count(job.end(number), len(job.rows))


def in_processes(job: EncodeJob[Any, Any], processes: int) -> Iterator[Part]:
    """Yield the parts in order, encoded by several processes.

    Raises:
        DatagenError: One of them has ended, as when the system takes its memory.
    """
    context = multiprocessing.get_context("fork")
    with ExitStack() as stack:
        readers: list[Connection] = []
        for number in range(processes):
            reader, writer = context.Pipe(duplex=False)
            readers.append(stack.enter_context(reader))
            process = context.Process(target=work, args=(job, number, processes, writer, readers), daemon=True)
            process.start()
            stack.callback(process.join)
            stack.callback(process.kill)
            writer.close()
        for number in range(job.parts):
            try:
                part = readers[number % processes].recv()
            except EOFError:
                raise DatagenError(
                    "a process that encodes rows has ended; where memory is short, use fewer: --encode-workers 1"
                ) from None
            if isinstance(part, BaseException):
                raise part
            yield part


def work(
    job: EncodeJob[Any, Any], first: int, step: int, writer: "Connection[Any, Any]", readers: list[Connection]
) -> None:
    """Encode every `step`-th part from the `first` on, and send it; an error is sent as well."""
    for number in STOP_SIGNALS:  # the process that reads ends this one
        signal.signal(number, signal.SIG_IGN)
    for reader in readers:  # else this process would write to itself when the other has ended
        reader.close()
    sys.stdout = sys.stderr = open(os.devnull, "w")  # a lock of the terminal may be held for ever
    try:
        for part in range(first, job.parts, step):
            writer.send(job.encode_part(part))
    except BrokenPipeError:
        os._exit(0)
    except DatagenError as error:
        writer.send(error)
    except Exception as error:
        error.add_note(format_exc())
        writer.send(error)
