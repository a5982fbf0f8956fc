"""Text of models, files and servers in Markdown: never markup, and never the end of what it stands in."""

import re
from collections.abc import Iterable, Sequence

from datagen.printing import printable
from datagen.report.tables import PageTable
from datagen.report.text import visible

MARKUP = re.compile(r"[\\`*_{}\[\]<>#|!&~]")
"""What Markdown does not take for text."""
FENCE = re.compile("`{3,}")


def plain(text: object) -> str:
    """Write a text of others so that Markdown shows it as it is, in one line."""
    return MARKUP.sub(r"\\\g<0>", printable(text).replace("\n", " "))


def code(text: object) -> str:
    """Write a name of others as code."""
    return f"`{printable(text).replace(chr(10), ' ').replace('`', chr(39))}`"


def fenced(text: str, most: int, language: str = "text") -> str:
    """Write a text of others as a block of code; its fence is longer than any in the text.

    Args:
        text: Of any length.
        most: The characters that are shown.
        language: How the block is to be coloured.
    """
    rest = len(text) - most
    lines = "\n".join(map(visible, text[:most].replace("\r\n", "\n").split("\n")))
    if rest > 0:
        lines += f"\n[{rest:,} more characters]"
    fence = "`" * max(3, *(len(run) + 1 for run in FENCE.findall(lines)), 3)
    return f"{fence}{language}\n{lines}\n{fence}"


def table(head: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    """Write a table; every cell is a text of others."""
    rows = [head, *lines]
    body = [f"| {' | '.join(plain(cell) for cell in row)} |" for row in rows]
    return "\n".join([body[0], f"|{'---|' * len(head)}", *body[1:]])


def page_table(one: PageTable) -> str:
    """Write a table of the report, with its title above."""
    more = f"\n\n{one.omitted:,} more lines are left out." if one.omitted else ""
    title = f"**{plain(one.title)}**\n\n" if one.title else ""
    return f"{title}{table(one.head, one.lines)}{more}"
