"""The text of an HTML page as Markdown, without its menus, forms and footers."""

from html import unescape
from html.parser import HTMLParser

SKIPPED = frozenset(
    "title script style nav header footer aside form button select noscript svg template iframe".split()
)
BLOCKS = frozenset("p div section article main table tr ul ol dl dt dd blockquote figure figcaption br hr".split())
HEADERS = frozenset(("h1", "h2", "h3", "h4", "h5", "h6"))
MOST_BROKEN = 20
"""Tags that are not closed, in one page."""


class _PageText(HTMLParser):
    """Collects the text of a page as Markdown."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._skipped: list[str] = []
        self._verbatim = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in SKIPPED or (self._skipped and tag == self._skipped[-1]):
            self._skipped.append(tag)
        if self._skipped:
            return
        if tag in HEADERS:
            self.parts.append(f"\n\n{'#' * int(tag[1])} ")
        elif tag == "li":
            self.parts.append("\n- ")
        elif tag == "pre":
            self._verbatim += 1
            self.parts.append("\n\n```\n")
        elif tag in BLOCKS:
            self.parts.append("\n\n")

    def handle_endtag(self, tag: str) -> None:
        if self._skipped:
            if tag == self._skipped[-1]:
                self._skipped.pop()
        elif tag == "pre" and self._verbatim:
            self._verbatim -= 1
            self.parts.append("\n```\n\n")
        elif tag in HEADERS or tag in BLOCKS:
            self.parts.append("\n\n")

    def handle_data(self, data: str) -> None:
        if not self._skipped:
            if not self._verbatim:  # fold white space, as a browser does
                words = " ".join(data.split())
                data = f"{' ' * data[:1].isspace()}{words}{' ' * (data[-1:].isspace() and bool(words))}"
            self.parts.append(data)

    def skip_broken_tag(self) -> bool:
        """Take a tag that is not closed for text, and read on; return whether there was one.

        The parser stops at such a tag until more of the page comes, or `close` is called: that takes every such tag
        for text, and looks for the end of each in all the rest of the page.
        """
        rest = self.rawdata
        if not rest.startswith("<"):
            return False
        end = rest.find(">", 1) + 1 or max(rest.find("<", 1), 1)
        self.handle_data(unescape(rest[:end]))
        self.rawdata = rest[end:]
        self.feed("")
        return True


def page_text(page: str) -> str:
    """Return the text of an HTML page as Markdown. After MOST_BROKEN tags that are not closed, the rest is text."""
    parser = _PageText()
    parser.feed(page)
    if all(parser.skip_broken_tag() for _ in range(MOST_BROKEN)):
        parser.handle_data(unescape(parser.rawdata))
        parser.rawdata = ""
    parser.close()
    lines = "".join(parser.parts).split("\n")
    return "\n".join(line.rstrip() for line in lines).strip() + "\n"
