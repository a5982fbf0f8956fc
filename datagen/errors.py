"""Every error a user can meet, and the exit code that it ends in.

DatagenError            1   one clear line: what happened, where, what to do next
├── InputError          2   a bad option, file or row: nothing was sent
└── Outage              5   the endpoint cannot be reached or refuses the key

Not for users' eyes, these steer a run:
CallFailed                  a call got no good answer: its candidate becomes a failed row
ParseError                  a reply lacks what was asked for: the next attempt is made
Stopped                     the run is ending: no further request is sent
"""


class DatagenError(Exception):
    """A problem to show in one line, without a traceback."""

    exit_code = 1


class InputError(DatagenError):
    """The command line or a file it names is wrong."""

    exit_code = 2


class Outage(DatagenError):
    """The endpoint cannot be used now: unreachable, key refused, no such model, quota spent."""

    exit_code = 5


class CallFailed(Exception):
    """A call got no good answer in all its attempts."""

    def __init__(self, reason: str, *, stage: str, detail: str = "", reply: str | None = None) -> None:
        super().__init__(f"{stage}: {reason}{': ' if detail else ''}{detail}")
        self.reason, self.stage, self.detail, self.reply = reason, stage, detail, reply


class ParseError(ValueError):
    """A reply does not hold what its prompt asked for."""


class Stopped(Exception):
    """The run is ending and this call was not sent."""
