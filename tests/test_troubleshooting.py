"""Each message that the troubleshooting page quotes is one that the program prints."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from datagen.commands.table import COMMANDS, load_methods
from datagen.engine.reasons import COMMON_REASONS

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
ENTRIES = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if re.match(r"\| (?!you see|---)", line)]
MARKS = {"<think>", "response", "--dedup", "-o"}
"""Quoted on the left, and no messages."""
QUOTED = [text for entry in ENTRIES for text in re.findall(r"`([^`]+)`", entry[0]) if text not in MARKS]
VALUE = "\0"
"""Stands for a formatted value in a message."""


def messages() -> Iterator[str]:
    """Yield the texts in the sources, as the program would print them."""
    for path in [*(ROOT / "datagen").rglob("*.py"), *(ROOT / "train").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else VALUE for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


MESSAGES = "\n\n".join(messages())
REASONS = {
    reason
    for name, command in COMMANDS.items()
    if command.methods
    for method in load_methods(name).values()
    for reason in method.reasons
} | set(COMMON_REASONS)


def test_the_page_has_many_entries_with_a_cause_or_a_way_out() -> None:
    assert len(ENTRIES) >= 25
    assert [entry for entry in ENTRIES if len(entry) < 3 and not entry[-1].strip()] == []


@pytest.mark.parametrize("quoted", QUOTED)
def test_each_quoted_message_is_one_of_the_program(quoted: str) -> None:
    if re.fullmatch(r"[a-z_]+", quoted):
        assert quoted in REASONS
    else:
        words = r"[^\n]*?".join(map(re.escape, quoted.split("...")))
        assert re.search(words, MESSAGES), f"no message of the program has the words {quoted!r}"
