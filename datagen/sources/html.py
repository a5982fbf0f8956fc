"""The text of an HTML page as Markdown, without its menus, forms and footers."""

from html.parser import HTMLParser

SKIPPED = frozenset(
    "title script style nav header footer aside form button select noscript svg template iframe".split()
)
BLOCKS = frozenset("p div section article main table tr ul ol dl dt dd blockquote figure figcaption br hr".split())
HEADERS = frozenset(("h1", "h2", "h3", "h4", "h5", "h6"))
VOID = frozenset("area base br col embed hr img input link meta source track wbr".split())


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


def page_text(page: str) -> str:
    """Return the text of an HTML page as Markdown."""
    parser = _PageText()
    parser.feed(page)
    parser.close()
    lines = "".join(parser.parts).split("\n")
    return "\n".join(line.rstrip() for line in lines).strip() + "\n"
