"""The test server in a separate process, so that its work is not measured."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection

from tests.meter import Meter
from tests.server import Answer, Faults, LogEntry, Message, Server, lognormal, running

FILLER = " ".join(["The reply is as long as one of a model \u2013 and it isn\u2019t dear to make."] * 21)
"""About 1,450 characters; as in most texts of models, some of them are not ASCII."""


def echo(model: str, messages: list[Message], sample: int, task: str) -> str:
    """Answer at once with the prompt and a filler text, about 1,500 characters together."""
    return f"{messages[-1]['content']} {FILLER}"


@dataclass(frozen=True)
class Remote:
    """A server in another process."""

    url: str
    pipe: Connection

    @property
    def model(self) -> str:
        return f"local@{self.url}"

    def record(self) -> Server:
        """Return an idle server that holds the log so far; its times are comparable with `time.monotonic` here."""
        self.pipe.send("log")
        copy = Server()
        copy.log = self.pipe.recv()
        return copy


@contextmanager
def serving(
    answer: Answer = echo,
    latency: float | tuple[float, float] = 0.0,
    faults: Faults = Faults(),  # noqa: B008 (frozen)
    limit: int | None = None,
    meter: Meter | None = None,
) -> Iterator[Remote]:
    """Run a server in a separate process; latency: seconds, or (median, sigma) of a log-normal distribution."""
    ours, theirs = get_context("spawn").Pipe()
    process = get_context("spawn").Process(
        target=_serve, args=(theirs, answer, latency, faults, limit, meter), daemon=True
    )
    process.start()
    theirs.close()
    try:
        yield Remote(ours.recv(), ours)
    finally:
        ours.close()
        process.join()


def _serve(
    pipe: Connection,
    answer: Answer,
    latency: float | tuple[float, float],
    faults: Faults,
    limit: int | None,
    meter: Meter | None,
) -> None:
    waits = lognormal(*latency) if isinstance(latency, tuple) else latency
    gc.disable()  # the log holds no cycles, and would be gone through again and again
    with running(Server(answer=answer, latency=waits, faults=faults, limit=limit, meter=meter)) as server:
        pipe.send(server.url)
        while True:
            try:
                pipe.recv()
            except EOFError:  # whoever started this has left
                return
            pipe.send(list[LogEntry](server.log))
