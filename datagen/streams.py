"""The three standard streams, as a program needs them: open, and able to print any text."""

import os
import sys


def prepare() -> None:
    """Make the standard streams usable; call before anything is opened.

    One that is closed (`2>&-`) leads nowhere from then on. Else the next file that is opened gets its number, and what
    a library prints lands in that file: the journal, or the rows. What an encoding cannot hold is printed as an escape.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # opened as the lowest free number: this one
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
