"""Text for a terminal, which obeys control characters: what files, models and servers write must not be obeyed.

`printable` escapes one text; what is printed by us goes through it. The standard streams are guarded, too: then nothing
that a library prints, such as a warning with the name of a file, reaches the clipboard or the title of the window.
"""

import json
import re
import sys
from collections.abc import Iterable
from typing import Any, TextIO

FORBIDDEN = "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff"
UNSAFE = re.compile(rf"[{FORBIDDEN}\t\r]")
"""Control and direction characters, as for the text of others; a line end is none."""
SEQUENCE = r"\x1b\[[\d;]*[AJKm]"
"""What live lines, progress bars and colours need: a line up, erase, colour."""
GUARDED = re.compile(rf"({SEQUENCE})|[{FORBIDDEN}]")


def printable(text: object) -> str:
    """Make text safe to print: control and direction characters become escapes."""
    return UNSAFE.sub(lambda match: escaped(match[0]), str(text))


def printable_json(value: object) -> str:
    """Encode a JSON value so that people can read it: text in any script, what a terminal would obey as escapes."""
    is_unicode = (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
    text = json.dumps(value, indent=2, ensure_ascii=not is_unicode)
    return UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def escaped(character: str) -> str:
    """Write a character as Python does in a string."""
    return character.encode("unicode_escape", "surrogatepass").decode()


def guard_streams() -> None:
    """Let nothing through the standard streams of this process that a terminal should not obey."""
    sys.stdout, sys.stderr = (stream and GuardedStream(stream) for stream in (sys.stdout, sys.stderr))


class GuardedStream:
    """A text stream that escapes control characters, but for line ends, tabs and SEQUENCE.

    Its `buffer` is the stream's own: rows go there, as JSON, which escapes for itself.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(GUARDED.sub(lambda match: match[1] or escaped(match[0]), text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
