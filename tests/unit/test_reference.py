import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.digest import Digest
from modelpack.errors import UsageError
from modelpack.reference import (
    LayoutReference,
    RegistryReference,
    check_tag,
    is_loopback_host,
    parse_reference,
    split_host_port,
)

D = Digest.of(b"")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("localhost/m", RegistryReference("localhost", "m", "latest")),
        ("localhost:5000/m", RegistryReference("localhost:5000", "m", "latest")),
        ("localhost:5000/m:v1", RegistryReference("localhost:5000", "m", "v1")),
        ("registry.example/a/b/c:v1", RegistryReference("registry.example", "a/b/c", "v1")),
        (f"registry.example/a@{D}", RegistryReference("registry.example", "a", None, D)),
        (f"registry.example/a:v1@{D}", RegistryReference("registry.example", "a", "v1", D)),
        ("127.0.0.1:1/a", RegistryReference("127.0.0.1:1", "a", "latest")),
        ("[::1]:5000/a:v", RegistryReference("[::1]:5000", "a", "v")),
        ("a:1/a", RegistryReference("a:1", "a", "latest")),
        ("r.example/a__b/c-d.e---f", RegistryReference("r.example", "a__b/c-d.e---f", "latest")),
        ("r.example/a:" + "t" * 128, RegistryReference("r.example", "a", "t" * 128)),
        ("r.example/a:_v1.0-RC", RegistryReference("r.example", "a", "_v1.0-RC")),
        ("r.example/" + "a" * 255, RegistryReference("r.example", "a" * 255, "latest")),
        ("oci:store", LayoutReference("store", "latest")),
        ("oci:./store:v1", LayoutReference("./store", "v1")),
        ("oci:/a/b c/d", LayoutReference("/a/b c/d", "latest")),
        (f"oci:store@{D}", LayoutReference("store", None, D)),
        (f"oci:store:v1@{D}", LayoutReference("store", "v1", D)),
        ("oci:a:b/c", LayoutReference("a:b/c", "latest")),
        ("oci:a@b/c:v1", LayoutReference("a@b/c", "v1")),
        ("oci:a@b:v1", LayoutReference("a@b", "v1")),
        ("oci:@:v1", LayoutReference("@", "v1")),
        ("oci://store", LayoutReference("//store", "latest")),
        ("oci:.", LayoutReference(".", "latest")),
        ("oci:наука:v1", LayoutReference("наука", "v1")),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_good(text, expected):
    assert parse_reference(text) == expected
    assert parse_reference(str(expected)) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "does not start with a registry host"),
        ("model", "does not start with a registry host"),
        ("model:v1", "does not start with a registry host"),
        ("team/model:v1", "does not start with a registry host"),
        ("/a", "does not start with a registry host"),
        ("-a.example/a", "does not start with a registry host"),
        ("a..example/a", "does not start with a registry host"),
        ("user@host.example/a", "does not start with a registry host"),
        ("user:pw@host.example/a", "does not start with a registry host"),
        ("http://r.example/a", "is a URL"),
        ("localhost", "does not start with a registry host"),
        ("r.example/", "is not a repository name"),
        ("r.example/A", "is not a repository name"),
        ("r.example/a//b", "is not a repository name"),
        ("r.example/a/", "is not a repository name"),
        ("r.example/../a", "is not a repository name"),
        ("r.example/a_-b", "is not a repository name"),
        ("r.example/a___b", "is not a repository name"),
        ("r.example/.a", "is not a repository name"),
        ("r.example/a b", "is not a repository name"),
        ("r.example/é", "is not a repository name"),
        ("r.example/" + "a" * 256, "is not a repository name"),
        ("r.example/a@b", "is not a repository name"),
        ("r.example/a:", "is not a tag"),
        ("r.example/a:-v", "is not a tag"),
        ("r.example/a:.v", "is not a tag"),
        ("r.example/a:v/b", "is not a tag"),
        ("r.example/a:v:w", "is not a tag"),
        ("r.example/a:" + "t" * 129, "is not a tag"),
        ("r.example/a:v\u0661", "is not a tag"),
        ("r.example:0/a", "out of range"),
        ("r.example:65536/a", "out of range"),
        ("r.example:123456/a", "does not start with a registry host"),
        ("r.example:/a", "does not start with a registry host"),
        ("r.example/a@sha256:abc", "does not hold 64"),
        ("r.example/a@md5:" + "0" * 32, "does not start with sha256"),
        ("r.example/a@sha256:" + "0" * 64 + "\n", "control characters"),
        ("r.example/a\n", "control characters"),
        ("r.example/a:v\x7f", "control characters"),
        ("oci:", "has no path"),
        ("oci::v1", "has no path"),
        ("oci:store:", "is not a tag"),
        ("oci:store:a b", "is not a tag"),
        ("oci:store\0", "control characters"),
        ("oci:store@sha256:0", "does not hold 64"),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_bad(text, said):
    with pytest.raises(UsageError, match=said) as caught:
        parse_reference(text)
    assert len(str(caught.value)) < 700
    assert "\n" not in str(caught.value)


@given(st.text())
@settings(deadline=None)
def test_any_text_gives_a_reference_or_our_error(text):
    try:
        reference = parse_reference(text)
    except UsageError:
        return
    assert parse_reference(str(reference)) == reference


@pytest.mark.parametrize("lead", ["r.example/", "oci:", ""])
@given(text=st.text(alphabet="aA0.-_/:@ [", max_size=60))
@settings(deadline=None)
def test_nearly_references(lead, text):
    try:
        reference = parse_reference(lead + text)
    except UsageError:
        return
    assert parse_reference(str(reference)) == reference


HOSTS = st.from_regex(r"([a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?\.){1,3}[a-z]{2,3}", fullmatch=True)
NAMES = st.from_regex(
    r"[a-z0-9]{1,5}((\.|_|__|-{1,3})[a-z0-9]{1,5}){0,2}(/[a-z0-9]{1,5}){0,3}", fullmatch=True
)
TAGS = st.none() | st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", fullmatch=True)
DIGESTS = st.none() | st.binary(max_size=4).map(Digest.of)
PATHS = st.from_regex(r"(/|\./)?[a-zA-Zé ]{1,8}(/[a-z.]{1,8}){0,3}", fullmatch=True)
REFERENCES = st.builds(
    RegistryReference,
    st.tuples(HOSTS, st.none() | st.integers(1, 65535)).map(
        lambda pair: pair[0] if pair[1] is None else f"{pair[0]}:{pair[1]}"
    ),
    NAMES,
    TAGS,
    DIGESTS,
) | st.builds(LayoutReference, PATHS, TAGS, DIGESTS)


@given(REFERENCES)
@settings(deadline=None)
def test_round_trip(reference):
    assert parse_reference(str(reference), default_tag=None) == reference
    with_default = parse_reference(str(reference))
    if reference.tag is None and reference.digest is None:
        assert with_default == reference.with_tag("latest")
    else:
        assert with_default == reference
    assert str(reference).startswith(reference.repository_name)


@given(REFERENCES, DIGESTS.filter(bool))
@settings(deadline=None)
def test_other_names_in_the_same_place(reference, digest):
    assert reference.with_tag("v2").digest is None
    assert reference.with_tag("v2").repository_name == reference.repository_name
    assert reference.with_digest(digest).tag == reference.tag
    assert reference.with_digest(digest).digest == digest
    with pytest.raises(UsageError):
        reference.with_tag("no tag")


@pytest.mark.parametrize(
    ("registry", "host", "port", "loopback"),
    [
        ("localhost", "localhost", None, True),
        ("localhost:5000", "localhost", 5000, True),
        ("reg.localhost:80", "reg.localhost", 80, True),
        ("127.0.0.1", "127.0.0.1", None, True),
        ("127.8.9.1:1", "127.8.9.1", 1, True),
        ("[::1]:5000", "::1", 5000, True),
        ("[::1]", "::1", None, True),
        ("[::2]:5000", "::2", 5000, False),
        ("10.0.0.1", "10.0.0.1", None, False),
        ("0.0.0.0", "0.0.0.0", None, False),
        ("localhost.example", "localhost.example", None, False),
        ("notlocalhost", "notlocalhost", None, False),
        ("127.0.0.1.example", "127.0.0.1.example", None, False),
        ("registry.example:443", "registry.example", 443, False),
    ],
)
def test_hosts(registry, host, port, loopback):
    assert split_host_port(registry) == (host, port)
    assert is_loopback_host(host) is loopback
    assert RegistryReference(registry, "a").is_loopback is loopback


@pytest.mark.parametrize("registry", ["", "a b", "a/b", "a:b", "user@host", "[::1", "a:1:2"])
def test_what_is_no_host(registry):
    with pytest.raises(UsageError, match="is not a registry host"):
        split_host_port(registry)


@pytest.mark.parametrize(
    "text",
    [
        "r.example/" + "a-" * 50_000,
        "r.example/" + "a" + "-" * 100_000,
        "r.example/" + "a_" * 50_000,
        "r.example/" + "a/" * 50_000,
        "a." * 50_000 + "/a",
        "a-" * 50_000 + "/a",
        "r.example/a:" + "t" * 100_000,
        "@" * 100_000,
        "oci:" + ":" * 100_000,
        "r.example/a@" + "0" * 100_000,
    ],
    ids=lambda text: text[:16],
)
def test_long_texts_take_no_time(text):
    started = time.perf_counter()
    with pytest.raises(UsageError):
        parse_reference(text)
    assert time.perf_counter() - started < 2


def test_check_tag():
    assert check_tag("v1") == "v1"
    with pytest.raises(UsageError, match="at most 128"):
        check_tag("")
