"""Self-contained passages of a document (instruction backtranslation, Humpback, arXiv 2308.06259, appendix E).

A segment is the text under a header, with that of its lower headers if all of it fits; if not, each lower header gets a
segment of its own. A lower header such as "References" ends a segment. A document without headers is split at blank
lines. Spans are positions in the document, so a segment is exactly `text[start:end]`.

`rejection_reason` names the rule that a segment breaks. The paper's rules: length, an empty or all-capitals header,
navigation, repeated sentences. Ours, from reading real pages: mostly links, mostly code, few letters, unfilled
templates, references to other places, unfinished ends.
"""

import re
from collections.abc import Callable, Iterator
from html import unescape
from itertools import combinations, pairwise
from typing import NamedTuple

from markdown_it import MarkdownIt

from datagen.sources.markup import holds_template, links, split_code, without_code, without_markup, without_targets
from datagen.text import CJK

LEAST, MOST = 600, 3000
"""Characters of a segment: appendix E."""
CJK_WEIGHT = 3
"""A Chinese or Japanese character counts for three letters: it says about as much."""
REPEATED, GRAM = 0.8, 3
"""Jaccard similarity of two sentences' word 3-grams from which one repeats the other. The paper gives no numbers."""
MOST_LINKS, MOST_CODE, LEAST_LETTERS = 0.4, 0.7, 0.5
FRONT_MATTER = re.compile(r"\A---[^\S\n]*\n(?:.*?\n)??(?:---|\.\.\.)[^\S\n]*(?:\n|\Z)", re.DOTALL)
LINE = re.compile(r"\r\n?|\n")
BLANK = re.compile(r"(?:\r\n?|\n)[^\S\r\n]*(?:\r\n?|\n)+")
NAVIGATION = re.compile(
    r"\b(?:advert\w*|forum|quick ?links?|newsletter|subscribe|sign ?up|site ?map|table of contents|contents|menu|"
    r"navigation|see also|related (?:links|posts)|references?|bibliography|further reading|copyright|cookies?|"
    r"comments?|share this|changelog|contributors)\b|目录|导航|参考(?:资料|文献)|相关链接|延伸阅读|广告|订阅",
    re.IGNORECASE,
)
ELSEWHERE = re.compile(
    r"\b(?:listing|figure|fig\.|table|chapter|section|appendix) \d|\b(?:see|shown|mentioned|described|discussed|"
    r"listed|introduced) (?:above|below|earlier|previously|in the (?:previous|next|last))|\b(?:click here|read more|"
    r"in (?:this|the (?:next|previous|last)) (?:chapter|section|article|post))\b|(?:如|见)[上下]?[图表]|上一[章节]|"
    r"下一[章节]|上文|下文|本[文章节]",
    re.IGNORECASE,
)
HEADER_ALONE = re.compile(r"#{1,6}[^\n]*")
UNFINISHED = re.compile(r"(?:[:：,，、(（\-–—]|\.\.\.|…|\b(?:and|or|the|a|of|to))\Z", re.IGNORECASE)
SENTENCE = re.compile(r"(?<=[.!?。！？])\s*|\n+")
URL = re.compile(r"https?://\S+|\bwww\.\S+")
TRAILING_BLANKS = re.compile(r"(?<![^\S\n])[^\S\n]++$", re.MULTILINE)
MARKDOWN = MarkdownIt("commonmark").disable("inline")
"""Finds headers. What stands inside a line is not parsed: nothing needs it, and it may take long."""


class Segment(NamedTuple):
    """A passage of a document: `text[start:end]`."""

    header: str | None
    """The headers above it, the highest first; None if the document has no headers."""
    start: int
    end: int


class Heading(NamedTuple):
    """A header: its level, its words, where its line begins and where the text under it does."""

    level: int
    title: str
    at: int
    body: int


def headings(text: str) -> list[Heading]:
    """Return the headers of a Markdown text, without those in code."""
    front = FRONT_MATTER.match(text)
    begin = front.end() if front else 0
    lines = [begin, *(begin + end.end() for end in LINE.finditer(text[begin:])), len(text)]
    tokens = MARKDOWN.parse(text[begin:])
    headers = []
    for token, inline in pairwise(tokens):
        if token.type == "heading_open" and token.map and token.level == 0:
            title = unescape(without_targets(inline.content)).strip(" *_`#")
            headers.append(Heading(int(token.tag[1]), title, lines[token.map[0]], lines[token.map[1]]))
    return headers


def segments(text: str, *, plain: bool = False) -> Iterator[Segment]:
    """Yield the segments of a Markdown text, or of a plain one, in order; none is blank."""
    headers = [] if plain else headings(text)
    front = FRONT_MATTER.match(text)
    begin = front.end() if front and not plain else 0
    passages = _under_headers(text, headers, begin) if headers else _paragraphs(text, begin)
    yield from (passage for passage in (_stripped(text, one) for one in passages) if passage.start < passage.end)


def _under_headers(text: str, headers: list[Heading], begin: int) -> Iterator[Segment]:
    """Yield the text under each header, with its lower headers where all of that fits."""
    yield Segment("", begin, headers[0].at)
    path: list[Heading] = []
    ends = [*(header.at for header in headers), len(text)]
    number = 0
    while number < len(headers):
        header = headers[number]
        path = [*(above for above in path if above.level < header.level), header]
        after = number + 1
        while after < len(headers) and headers[after].level > header.level:
            if NAVIGATION.search(headers[after].title):
                break
            after += 1
        fits = effective_length(text[header.body : ends[after]]) <= MOST
        after = after if fits else number + 1
        yield Segment(" / ".join(above.title for above in path), header.body, ends[after])
        number = after


def _paragraphs(text: str, begin: int) -> Iterator[Segment]:
    """Join as many paragraphs as fit into each segment."""
    ends = [*(gap.end() for gap in BLANK.finditer(text, begin)), len(text)]
    start = end = begin
    for stop in ends:
        if end > start and effective_length(text[start:stop]) > MOST:
            yield Segment(None, start, end)
            start = end
        end = stop
    yield Segment(None, start, end)


def _stripped(text: str, segment: Segment) -> Segment:
    """Return a segment without the white space around it."""
    body = text[segment.start : segment.end]
    start = segment.start + len(body) - len(body.lstrip())
    return segment._replace(start=start, end=max(start, segment.start + len(body.rstrip())))


def without_boilerplate(text: str, segment: Segment, is_boilerplate: Callable[[str], bool]) -> Segment:
    """Leave out the first and the last paragraphs of a segment that are boilerplate, and headers left alone by that."""
    body = text[segment.start : segment.end]
    ends = [(gap.start(), gap.end()) for gap in BLANK.finditer(body)]
    bounds = [*zip([0, *(stop for _, stop in ends)], [*(start for start, _ in ends), len(body)], strict=True)]
    while bounds and (is_boilerplate(last := body[slice(*bounds[-1])]) or HEADER_ALONE.fullmatch(last.strip())):
        bounds.pop()
    while bounds and is_boilerplate(body[slice(*bounds[0])]):
        bounds.pop(0)
    begin, end = (bounds[0][0], bounds[-1][1]) if bounds else (0, 0)
    return _stripped(text, segment._replace(start=segment.start + begin, end=segment.start + end))


def effective_length(text: str) -> int:
    """Return the length of a text in characters; a Chinese or Japanese character counts three times."""
    return len(text) + (CJK_WEIGHT - 1) * len(CJK.findall(text))


def clean(text: str) -> str:
    """Return a segment without the markup of a web page; code is left as it is."""
    joined = "".join(part.text if part.is_code else without_markup(part.text) for part in split_code(text))
    return re.sub(r"\n{3,}", "\n\n", TRAILING_BLANKS.sub("", joined)).strip()


def rejection_reason(header: str | None, raw: str) -> str | None:
    """Return the rule that a segment breaks, or None; `raw` is the segment as it stands in the document."""
    text = clean(raw)
    if reason := header_reason(header):
        return reason
    size = effective_length(text)
    if size < LEAST or size > MOST:
        return "too_short" if size < LEAST else "too_long"
    return content_reason(raw, text)


def header_reason(header: str | None) -> str | None:
    """Return the rule that the lowest header breaks, or None."""
    if header is None:
        return None
    title = header.rpartition(" / ")[2]
    letters = [c for c in title if c.isalpha()]
    if not letters:
        return "no_header"
    if len(letters) > 3 and title.isupper() and not CJK.search(title):
        return "shouting"
    return "navigation" if NAVIGATION.search(title) else None


def content_reason(raw: str, text: str) -> str | None:
    """Return the rule that the content breaks, or None; `text` is the clean segment."""
    prose = without_code(text)
    code = [part.text for part in split_code(raw) if part.is_code]
    addresses = [*links(raw), *URL.findall(raw)]
    if sum(map(len, code)) > MOST_CODE * len(raw):
        return "mostly_code"
    if sum(map(len, addresses)) > MOST_LINKS * len(raw):
        return "mostly_links"
    if sum(c.isalpha() for c in prose) < LEAST_LETTERS * len("".join(prose.split())):
        return "few_letters"
    if any(map(holds_template, code)):
        return "template"
    if ELSEWHERE.search(prose):
        return "refers_elsewhere"
    if UNFINISHED.search(text):
        return "unfinished"
    return "repeats" if has_repeats(prose) else None


def has_repeats(text: str) -> bool:
    """Return whether two sentences of five words or more are nearly the same, by their word 3-grams."""
    sentences = (CJK.sub(lambda match: f" {match[0]} ", part.lower()).split() for part in SENTENCE.split(text))
    grams = [frozenset(zip(*(words[n:] for n in range(GRAM)), strict=False)) for words in sentences if len(words) >= 5]
    return any(len(one & other) >= REPEATED * len(one | other) for one, other in combinations(grams, 2))


REASONS = {
    "too_short": f"The passage has fewer than {LEAST} characters; a Chinese one counts as {CJK_WEIGHT}.",
    "too_long": f"The passage has more than {MOST:,} characters; a Chinese one counts as {CJK_WEIGHT}.",
    "no_header": "The heading has no letter.",
    "shouting": "The heading is in capitals.",
    "navigation": "The heading is that of a menu or of a list of links.",
    "mostly_code": "Most of the passage is code.",
    "mostly_links": "Most of the passage is links.",
    "few_letters": "Few of the characters of the passage are letters.",
    "template": "The passage holds code with places to be filled in.",
    "refers_elsewhere": "The passage refers to a figure, a table or a chapter that it does not hold.",
    "unfinished": "The passage ends in mid-sentence.",
    "repeats": "The passage says something twice.",
}
"""What the rules for a segment mean."""
