"""The markup of a page: code, links and images, templates, comments; and a text without it.

Every search takes time linear in the length of the text, whatever is left open in it: a link, comment or template that
is never closed is matched to the place where its end was looked for, and left as it is.
"""

import re
from collections.abc import Iterator
from html import unescape
from typing import NamedTuple

FENCES = {mark: re.compile(rf"^{mark}[^\S\n]*+$", re.MULTILINE) for mark in ("```", "~~~")}
"""Each mark of fenced code, and the line that ends it."""
CODE_START = re.compile(r"^(```|~~~)|`", re.MULTILINE)
INLINE_CODE = re.compile(r"`[^`\n]*+`")
TARGET = r"\[[^\]\n]*+(?:\](?:\([^)\n]*+(\))?|\[[^\]\n]*+(\])?)?)?"
"""`[text](address)` or `[text][name]`. Of this and all patterns below, a match without a group is not closed."""
LINK, IMAGE = re.compile(rf"(?<!!){TARGET}"), re.compile(f"!{TARGET}")
COMMENT = re.compile(r"<!--.*?(?:(-->)|\Z)", re.DOTALL)
TEMPLATES = (re.compile(r"\{%.*?(?:(%\})|\Z)", re.DOTALL), re.compile(r"\{\{.*?(?:(\}\})|\Z)", re.DOTALL))
LINK_TARGET = re.compile(r"^\[[^\]\n]+\]:\s*\S+.*$", re.MULTILINE)
TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
ATTRIBUTES = re.compile(r"\{:[^}\n]*+(\})?")


class Part(NamedTuple):
    """A part of a text: code, or what stands between two pieces of it."""

    text: str
    is_code: bool


def split_code(text: str) -> Iterator[Part]:
    """Split a text into code, fenced or inline, and what stands between."""
    at = end = 0
    open_marks = set(FENCES)
    """The marks that still have an end."""
    while start := CODE_START.search(text, at):
        mark = start[1]
        close = FENCES[mark].search(text, start.end()) if mark in open_marks else None
        if mark and close is None:
            open_marks.discard(mark)
        code = close or INLINE_CODE.match(text, start.start())
        if code is None:
            at = start.start() + 1
            continue
        yield Part(text[end : start.start()], False)
        yield Part(text[start.start() : code.end()], True)
        at = end = code.end()
    yield Part(text[end:], False)


def without_code(text: str) -> str:
    """Return a text without its code."""
    return "".join(part.text for part in split_code(text) if not part.is_code)


def links(text: str) -> Iterator[str]:
    """Yield the links of a text, without images."""
    return (match[0] for match in LINK.finditer(text) if match.lastindex)


def without_targets(text: str) -> str:
    """Write the links of a text as their words alone."""
    return LINK.sub(lambda link: link[0][1 : link[0].index("]")] if link.lastindex else link[0], text)


def without_markup(text: str) -> str:
    """Return a text without comments, images, link targets, tags and templates, which no answer needs."""
    text = without_targets(drop_closed(IMAGE, drop_closed(COMMENT, text)))
    text = TAG.sub("", LINK_TARGET.sub("", text))
    for pattern in (*TEMPLATES, ATTRIBUTES):
        text = drop_closed(pattern, text)
    return unescape(text)


def holds_template(text: str) -> bool:
    """Return whether a text has a place to be filled in: `{{ name }}` or `{% if %}`."""
    return any(match.lastindex for pattern in TEMPLATES for match in pattern.finditer(text))


def drop_closed(pattern: re.Pattern[str], text: str) -> str:
    """Remove the matches of a pattern that are closed."""
    return pattern.sub(lambda match: "" if match.lastindex else match[0], text)
