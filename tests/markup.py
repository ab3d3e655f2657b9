"""What HTML is: its elements and what is read, and names that would change it if they could."""

import re
from html import unescape
from html.parser import HTMLParser

HOSTILE = (
    "<script>alert(1)</script>",
    '"\' onmouseover=\'alert(1)" x="',
    "</span></style>--><img src=x onerror=alert(1)>",
    "{braces} {0} {0.__class__} {first.__init__.__globals__} %s %(a)s",
    "; background: url(//evil) } { {{}} & &lt;b&gt; $\\frac{1}{2}$ \\",
)


class Shape(HTMLParser):
    """The markup of a page: its elements with the names of their attributes, its texts, and all attributes' values."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple] = []
        self.texts: list[str] = []
        self.values: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, *(name for name, _ in attrs)))
        self.values += [value or "" for _, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        self.elements.append((f"/{tag}",))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def handle_comment(self, data: str) -> None:
        self.elements.append(("comment", data))


def words(html: str) -> str:
    """What a reader sees of HTML, in one line."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", "", html))).strip()
