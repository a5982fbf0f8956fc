"""The console blocks of a page: what a reader types, and what the page shows as its output.

A line that starts with `$ ` begins a command. A line that ends in a backslash goes on, and a here-document ends at its
word. All other lines are output. `# exit 3` in a command states its exit code, `# until Ctrl-C` that it runs until it
is interrupted; `...` stands for output that is not shown.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOT_RUN = {"commands.md", "reasons.md", "README.zh.md"}
"""Made from the help, with files of the reader in examples; and a translation, with the blocks of its original."""
PAGES = [page for page in (*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md"))) if page.name not in NOT_RUN]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HERE_DOCUMENT = re.compile(r"<<'?(\w+)'?")


@dataclass(frozen=True)
class Command:
    """One command of a page."""

    place: str
    """Page and line."""
    text: str
    shown: tuple[str, ...]
    """The output on the page."""

    @property
    def exit_code(self) -> int:
        stated = re.search(r"# exit (\d+)", self.text)
        return int(stated[1]) if stated else 0

    @property
    def is_interrupted(self) -> bool:
        return "# until Ctrl-C" in self.text


def blocks(page: Path) -> Iterator[tuple[int, str, str]]:
    """Yield the fenced blocks of a page: the line of the first text, the language, the text."""
    text = page.read_text(encoding="utf-8")
    for fence in FENCE.finditer(text):
        yield text.count("\n", 0, fence.start()) + 2, fence[1], fence[2]


def commands(page: Path) -> list[Command]:
    """Return the commands in the console blocks of a page, in order."""
    consoles = ((line, text) for line, language, text in blocks(page) if language == "console")
    return [command for line, text in consoles for command in split(page, line, text)]


def split(page: Path, first: int, text: str) -> Iterator[Command]:
    """Split a console block, whose text begins at line `first`, into commands."""
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        end = at + 1
        while lines[end - 1].endswith("\\"):
            end += 1
        if here := HERE_DOCUMENT.search(lines[end - 1]):
            end = lines.index(here[1], end) + 1
        output = tuple(takewhile(lambda line: not line.startswith("$ "), lines[end:]))
        typed = "\n".join([lines[at][2:], *lines[at + 1 : end]])
        yield Command(f"{page.relative_to(ROOT)}:{first + at}", typed, output)
        at = end + len(output)


def first_missing(shown: tuple[str, ...], actual: str, *, any_number: bool = False) -> str | None:
    """Return the first shown line that the output lacks, in order.

    `...` stands for anything, and seconds for any seconds; with `any_number` a number stands for any other.
    """
    text, at = " ".join(actual.split()), 0
    number = r"(?:\d|\\\.(?=\d))+" + ("" if any_number else r"(?=\\ss\b)")
    for line in filter(None, map(str.strip, shown)):
        pattern = r"\s".join(map(re.escape, line.split())).replace(r"\.\.\.", ".*?")
        match = re.compile(re.sub(number, r"[\\d.]+", pattern)).search(text, at)
        if not match:
            return line
        at = match.end()
    return None
