"""Text of models, files and servers in a page: never markup, nothing hidden, nothing that steers the lines around it.

The page escapes whatever it prints. Here is what escaping does not do: characters that a reader does not see, or that
change the direction of text, are written by name, as on the page of `datagen review`; a long text is cut.
"""

import re
from typing import NamedTuple

from markupsafe import Markup, escape

HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f]+"
)
"""Control characters, marks of direction, what has no width, tags, halves of characters. Joiners are none of them:
Persian, Indian scripts and emoji are written with them."""
MOST_MARKS = 60
"""Runs of such characters that are set off in one text; more are named all the same."""
MOST_IN_RUN = 8
"""Characters of one run that are named."""
FIRST, REST = 420, 1_600
"""Characters of a text that are shown at once, and those that a click shows."""
UNBROKEN = re.compile(r"[^\s\u3000-\u9fff]{200}")
"""No word of a language."""


class Shown(NamedTuple):
    """A text as the page shows it."""

    first: Markup
    rest: Markup | None
    """What follows, if it is not short."""
    omitted: int
    """The number of characters that are not in the page."""
    lang: str
    """The language whose forms of characters are meant, where the script tells it."""
    unbroken: bool
    """Whether it holds a run of characters so long that a browser must break it anywhere."""


def named(run: str) -> str:
    """Write characters by their numbers."""
    names = " ".join(f"U+{ord(character):04X}" for character in run[:MOST_IN_RUN])
    return f"{names} and {len(run) - MOST_IN_RUN} more" if len(run) > MOST_IN_RUN else names


def visible(text: object) -> str:
    """Return a text of others for one line of the page; it is still to be escaped."""
    return HIDDEN.sub(lambda match: f"[{named(match[0])}]", str(text))


def markup(text: str) -> Markup:
    """Return a text as markup: escaped, its hidden characters set off."""
    parts, end = [], 0
    for count, match in enumerate(HIDDEN.finditer(text)):
        name = escape(named(match[0]))
        mark = Markup('<span class="hidden-character">{}</span>').format(name) if count < MOST_MARKS else name
        parts += [escape(text[end : match.start()]), mark]
        end = match.end()
    return Markup("").join([*parts, escape(text[end:])])


def shown(text: str, first: int = FIRST, rest: int = REST) -> Shown:
    """Return a text of others as the page shows it: the beginning, what a click shows, and how much is left out.

    A text that is a little longer than `first` is not cut.
    """
    text = text.replace("\r\n", "\n")
    place = len(text) if len(text) <= 1.25 * first else cut(text, first)
    end = place + rest if len(text) > place + 1.25 * rest else len(text)
    lang = (
        "ja" if re.search("[\u3040-\u30ff]", text[:end]) else "zh" if re.search("[\u4e00-\u9fff]", text[:end]) else ""
    )
    return Shown(
        markup(text[:place]),
        markup(text[place:end]) if place < len(text) else None,
        len(text) - end,
        lang,
        UNBROKEN.search(text[:end]) is not None,
    )


def cut(text: str, place: int) -> int:
    """Return where to cut a text: behind the last word that ends before a place, if one ends near it."""
    blank = max(text.rfind(" ", 0, place), text.rfind("\n", 0, place))
    return blank + 1 if blank > 0.8 * place else place
