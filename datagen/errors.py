"""Every error that a user can see, with its exit code, and the exceptions that steer a run.

DatagenError            1   one clear line: what happened, where, what to do next
├── InputError          2   a bad option, file or row: nothing was sent
└── Outage              5   the endpoint cannot be reached or refuses the key

Inside a run, never shown to a user:
CallFailed                  a call got no usable answer: its candidate becomes a failed row
ParseError                  a completion is not in the form that the prompt demands: the call is tried again
Stopped                     the run is ending: no further request is sent
Queued                      the answer comes with a batch: a later run goes on with it
"""

from collections.abc import Iterable, Iterator
from difflib import get_close_matches


class DatagenError(Exception):
    """An error to show in one line, without a traceback."""

    exit_code = 1


class InputError(DatagenError):
    """The command line or a file it names is wrong."""

    exit_code = 2


def nothing_usable(name: str, reasons: str = "") -> InputError:
    """Return the error for an input without a row that a command can use."""
    return InputError(f"{name}: no row could be used" + (f": {reasons}" if reasons else ""))


def unknown_value(option: str, value: str, names: Iterable[str]) -> InputError:
    """Return the error for a value of an option that is none of some names: it names all of them, and the nearest."""
    known = list(names)
    near = get_close_matches(value, known, 1)
    return InputError(
        f"{option} {value}: expected one of {', '.join(known)}" + (f". Did you mean {near[0]}?" if near else "")
    )


class Outage(DatagenError):
    """The endpoint cannot be used now: unreachable, key refused, no such model, quota spent."""

    exit_code = 5


CUT_ANSWER = "cut answer"
"""Of an answer that reached the length limit: it does so again, whenever it is asked for."""
UNPARSED = "unparsed answer"
"""The reason of a CallFailed whose replies were read but hold no value: of a judge or a voter, that is no opinion."""


PARSER_ERROR = "parser error"
"""The reason of a CallFailed whose replies made a reader of ours fail: a fault of this program."""


class CallFailed(Exception):
    """A call got no usable answer in all its attempts.

    Args:
        reason: Why, as a name for the funnel: "cut answer".
        stage: The task of the prompt.
        detail: More for a person to read.
        reply: The text of the last answer, if there was one.
    """

    def __init__(self, reason: str, *, stage: str, detail: str = "", reply: str | None = None) -> None:
        super().__init__(f"{stage}: {reason}{': ' if detail else ''}{detail}")
        self.reason, self.stage, self.detail, self.reply = reason, stage, detail, reply


class ParseError(ValueError):
    """A completion is not in the form that its prompt demands."""


class Stopped(Exception):
    """The run is ending; this call was not sent."""


class Queued(Stopped):
    """The call is in a batch, or waits for one; what comes after it waits for a later run."""


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that it came from."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
