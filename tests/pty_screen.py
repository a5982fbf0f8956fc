"""Text that a terminal would obey, and a terminal to see whether it does."""

import os
import pty
import re
import shlex
import subprocess
import sys
from threading import Thread

from datagen.printing import SEQUENCE, UNSAFE

EVIL = "a\x1b]52;c;cm0gLXJm\x07\x1b[2J\x9b2J\x9d0;t\x9c\u202eb\rc\x08\x7f\x1b[1A\x1b[Kspoof\x1b[8m"
"""Writes the clipboard, clears the screen, sets the title, turns the direction, goes back, hides."""
NAME = EVIL.replace("/", "")


def show(line: str) -> str:
    """Run a command on a terminal; return all that the terminal gets."""
    primary, secondary = pty.openpty()
    clean = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")} | {"TERM": "xterm"}
    process = subprocess.Popen(
        [sys.executable, "-m", "datagen", *shlex.split(line)],
        stdin=subprocess.DEVNULL, stdout=secondary, stderr=secondary, env=clean,
    )  # fmt: skip
    os.close(secondary)
    parts: list[bytes] = []

    def read() -> None:
        try:
            while part := os.read(primary, 65536):
                parts.append(part)
        except OSError:
            os.close(primary)

    reader = Thread(target=read)
    reader.start()
    assert process.wait(60) in range(6)
    reader.join(10)
    return b"".join(parts).decode()


def obeyed(text: str) -> list[str]:
    """Return the characters that a terminal obeys, but for line ends and what live lines and colours use."""
    return UNSAFE.findall(re.sub(SEQUENCE, "", text).replace("\r", "").replace("\t", ""))
