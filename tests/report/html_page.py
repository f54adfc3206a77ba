"""A page as a test sees it."""

import re
from html.parser import HTMLParser

VOID = {"meta", "link", "br", "img", "hr", "path", "use", "image", "rect"}


class Page(HTMLParser):
    """Text of a page, its elements, and whether every element is closed by its own tag."""

    def __init__(self, html):
        super().__init__()
        self.text, self.tags, self.urls, self.open = "", [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.urls += [value for name, value in attrs if name in ("src", "href", "xlink:href", "action", "data")]
        self.text += " " if tag == "br" else ""
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.urls += [value for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag):
        self.text += " " if tag in ("td", "th", "dt", "dd", "li") else ""
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.text += data


def words_of(html):
    """The text of a page, with single spaces."""
    return " ".join(Page(html).text.split())


def assert_self_contained(html):
    """Nothing is loaded from elsewhere, and nothing runs."""
    page = Page(html)
    assert page.open == []
    assert "script" not in page.tags
    assert all(url.startswith(("data:", "#")) for url in page.urls)
    assert not re.search(r"@import|url\((?!#)", html)
    assert not re.search(r"https?:", html)
    assert 'name="viewport"' in html
