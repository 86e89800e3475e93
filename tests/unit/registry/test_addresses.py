import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpack.errors import FormatError, ModelpackError
from modelpack.registry import addresses
from modelpack.registry.addresses import Origin
from modelpack.registry.errors import UnsafeAddressError

BASE = "https://r.example/v2/team/model/blobs/uploads/"


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://r.example/x", Origin("https", "r.example", 443)),
        ("HTTPS://R.Example./x", Origin("https", "r.example", 443)),
        ("http://r.example:5000", Origin("http", "r.example", 5000)),
        ("http://[::1]:5000/", Origin("http", "::1", 5000)),
    ],
    ids=["default port", "case and final dot", "port", "IPv6"],
)
def test_origin(url, origin):
    assert addresses.origin_of(url) == origin


@pytest.mark.parametrize(
    ("origin", "url"),
    [
        (Origin("https", "r.example", 443), "https://r.example"),
        (Origin("http", "r.example", 443), "http://r.example:443"),
        (Origin("http", "::1", 80), "http://[::1]"),
    ],
    ids=["default port", "other port", "IPv6"],
)
def test_origin_as_url(origin, url):
    assert origin.url == url
    assert addresses.origin_of(url) == origin


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("https://a.example/x", "https://a.example:443/y", True),
        ("https://a.example", "https://A.example", True),
        ("https://a.example", "http://a.example", False),
        ("https://a.example", "https://a.example:8443", False),
        ("https://a.example", "https://a.example.evil.example", False),
    ],
    ids=["default port", "case", "scheme", "port", "suffix"],
)
def test_same_origin(first, second, same):
    assert addresses.same_origin(first, second) is same


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("/v2/x?_state=a%2Fb&y=1", "https://r.example/v2/x?_state=a%2Fb&y=1"),
        ("1234", "https://r.example/v2/team/model/blobs/uploads/1234"),
        ("https://store.example/u?sig=1#frag", "https://store.example/u?sig=1"),
        ("//store.example/u", "https://store.example/u"),
    ],
    ids=["absolute path keeps its query", "relative", "other host", "other host, same scheme"],
)
def test_location(location, expected):
    assert addresses.resolve_location(BASE, location) == expected


@pytest.mark.parametrize(
    "location",
    [
        "http://r.example/v2/x",
        "file:///etc/passwd",
        "ftp://r.example/",
        "https://user:secret@r.example/",
        "https://r.example:99999/",
        "https://[::1/",
        "https://r.example\\@evil.example/",
        "/v2/x\r\nHost: evil",
        "/v2/ü",
        "",
        "/" + "x" * addresses.MAX_URL,
    ],
)
def test_unsafe_location(location):
    with pytest.raises(UnsafeAddressError) as caught:
        addresses.resolve_location(BASE, location)
    assert caught.value.exit_code == 5
    assert "secret" not in str(caught.value)


def test_plain_http_may_lead_to_plain_http():
    assert addresses.resolve_location("http://a.example/", "http://b.example/x") == (
        "http://b.example/x"
    )


def test_refusal_shows_no_query():
    with pytest.raises(UnsafeAddressError) as caught:
        addresses.resolve_location(BASE, "http://store.example/u?signature=hidden")
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://r.example/u", "https://r.example/u?digest=sha256:ab"),
        ("https://r.example/u?_state=x", "https://r.example/u?_state=x&digest=sha256:ab"),
    ],
)
def test_add_query(url, expected):
    assert addresses.add_query(url, "digest=sha256:ab") == expected


@pytest.mark.parametrize(
    ("header", "target"),
    [
        ("", None),
        ('</v2/m/tags/list?last=b&n=2>; rel="next"', "/v2/m/tags/list?last=b&n=2"),
        ("</x>; rel=next", "/x"),
        ('</a>; rel="prev", </b>; title="t"; rel="first next"', "/b"),
        ('</a>; rel="prev"', None),
        ('</a>; title="rel=next"', None),
        ('</a,b>; REL="NEXT"', "/a,b"),
    ],
    ids=["none", "quoted", "token", "second of two", "other", "inside a value", "comma, case"],
)
def test_next_link(header, target):
    assert addresses.next_link(header) == target


@pytest.mark.parametrize("header", ["next", "</a; rel=next", "b, <a>; rel=next"])
def test_malformed_link(header):
    with pytest.raises(FormatError):
        addresses.next_link(header)


@given(st.text(st.characters(codec="latin-1"), max_size=200))
def test_any_link_header_gives_a_value_or_an_error(header):
    try:
        target = addresses.next_link(header)
    except FormatError:
        return
    assert target is None or f"<{target}>" in header


@given(
    st.text(st.sampled_from("abc/?=&%,;:.-_~"), min_size=1, max_size=50),
    st.sampled_from(['rel="next"', "rel=next", 'a="b"; rel="x next"']),
)
def test_link_round_trip(target, parameters):
    assert addresses.next_link(f"<{target}>; {parameters}") == target


@pytest.mark.parametrize(
    ("header", "count"), [("0-0", 0), ("0-99", 100), ("bytes=0-4", 5), (" 0-7 ", 8)]
)
def test_uploaded_bytes(header, count):
    assert addresses.uploaded_bytes(header) == count


@pytest.mark.parametrize(
    "header", ["", "1-5", "0-", "-5", "0-1-2", "0-\u0661", "0--1", "0-" + "9" * 20]
)
def test_malformed_upload_range(header):
    with pytest.raises(FormatError):
        addresses.uploaded_bytes(header)


@given(st.integers(1, 2**63 - 1))
def test_uploaded_bytes_round_trip(last):
    assert addresses.uploaded_bytes(f"0-{last}") == last + 1


@pytest.mark.parametrize(
    ("header", "value"),
    [("bytes 0-9/100", (0, 10, 100)), ("BYTES 5-5/6", (5, 1, 6)), ("bytes 2-3/*", (2, 2, None))],
)
def test_content_range(header, value):
    assert addresses.content_range(header) == value


@pytest.mark.parametrize(
    "header",
    [
        "",
        "bytes 9-0/100",
        "bytes 0-100/100",
        "bytes */100",
        "items 0-1/2",
        "bytes 0-1",
        "bytes 0-1/2,",
    ],
)
def test_bad_content_range(header):
    with pytest.raises(FormatError):
        addresses.content_range(header)


@given(st.integers(0, 2**60), st.integers(1, 2**60), st.integers(0, 2**60))
def test_content_range_round_trip(first, length, after):
    total = first + length + after
    header = f"bytes {first}-{first + length - 1}/{total}"
    assert addresses.content_range(header) == (first, length, total)


@given(st.text(max_size=80))
def test_any_text_is_a_value_or_our_own_error(text):
    for parse in (
        addresses.content_range,
        addresses.uploaded_bytes,
        addresses.origin_of,
        lambda value: addresses.resolve_location(BASE, value),
    ):
        try:
            parse(text)
        except ModelpackError:
            continue
