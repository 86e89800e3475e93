"""The page's one document, looked at without a browser: what it may load, run and do."""

import base64
import hashlib
import re
from html.parser import HTMLParser

from modelpack.prefetch.web import page

# One request of a person's browser; far below what the limits on a connection allow.
MOST_BYTES = 64 * 1024


class Reader(HTMLParser):
    """Collects what could load or run something."""

    def __init__(self):
        super().__init__()
        self.inside = None
        self.inline = {"script": [], "style": []}
        self.addresses = []
        self.attributes = set()

    def handle_starttag(self, tag, attrs):
        self.inside = tag if tag in self.inline else None
        self.attributes |= {name for name, _ in attrs}
        self.addresses += [value for name, value in attrs if name in {"src", "href"}]

    def handle_data(self, data):
        if self.inside:
            self.inline[self.inside].append(data)

    def handle_endtag(self, tag):
        self.inside = None


def read():
    reader = Reader()
    reader.feed(page.HTML)
    reader.close()
    return reader


def directives():
    parts = (part.split() for part in page.POLICY.split(";"))
    return {name: sources for name, *sources in parts}


def digest(text):
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_the_policy_names_exactly_the_pages_own_script_and_style():
    inline = read().inline
    assert [len(inline["script"]), len(inline["style"])] == [1, 1]
    assert directives() == {
        "default-src": ["'none'"],
        "script-src": [digest(inline["script"][0])],
        "style-src": [digest(inline["style"][0])],
        "connect-src": ["'self'"],
        "img-src": ["data:"],
        "base-uri": ["'none'"],
        "form-action": ["'none'"],
        "frame-ancestors": ["'none'"],
    }


def test_nothing_comes_from_elsewhere():
    for address in read().addresses:
        assert address.startswith(("data:image/svg+xml,", "#", "v1/", "metrics", "readyz")), address
    assert not re.search(r"@import|url\(|https?://(?!www\.w3\.org/2000/svg)", page.HTML)


def test_nothing_is_made_of_markup_or_code():
    reader = read()
    assert not {name for name in reader.attributes if name.startswith("on") or name == "style"}
    script = reader.inline["script"][0]
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert way not in script
    assert "new Function" not in script


def test_it_is_small():
    assert len(page.HTML.encode()) < MOST_BYTES
