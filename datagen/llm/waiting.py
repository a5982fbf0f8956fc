"""The calls that wait at one address: first come, first served; a model at a limit of its own holds no other back."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from datagen.errors import Stopped
from datagen.llm.call import Call
from datagen.llm.quota import Ticket


class Place(NamedTuple):
    """A call in its line."""

    number: int
    """Lower ones go first."""
    call: Call
    turn: asyncio.Future[Ticket]


class WaitingCalls:
    """A line for each model.

    Args:
        models: Their identities.
    """

    def __init__(self, models: Iterable[str]) -> None:
        self._lines = {model: deque[Place]() for model in models}
        self._number = 0

    def join(self, call: Call, *, in_front: bool) -> asyncio.Future[Ticket]:
        """Let a call wait; return what its turn will set. It is cancelled by `Stopped`."""
        self._number += 1
        line, turn = self._lines[call.model], asyncio.get_running_loop().create_future()
        if in_front:
            line.appendleft(Place(-self._number, call, turn))
        else:
            line.append(Place(self._number, call, turn))
        return turn

    def is_waiting(self, model: str) -> bool:
        """Check whether a call to a model waits."""
        return bool(self._lines[model])

    def next(self, has_room: Callable[[Call], bool]) -> Place | None:
        """Take the first call that has room; None if there is none. A call behind another of its model has none."""
        ready = [line for line in self._lines.values() if line and has_room(line[0].call)]
        return min(ready, key=lambda line: line[0].number).popleft() if ready else None

    def end(self) -> None:
        """Let every call that waits end with Stopped."""
        for line in self._lines.values():
            while line:
                turn = line.popleft().turn
                if not turn.done():
                    turn.set_exception(Stopped())
