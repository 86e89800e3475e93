import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.errors import UsageError
from modelpack.signing.patterns import check_pattern, matches

NAME = "registry.example/team/llama"


@pytest.mark.parametrize(
    ("pattern", "name", "tag", "expected"),
    [
        ("registry.example/team/**", NAME, "v1", True),
        ("registry.example/team/**", "registry.example/team/a/b/c", None, True),
        ("registry.example/team/**", "registry.example/team", "v1", False),
        ("registry.example/team/**", "registry.example/teamx/llama", "v1", False),
        ("registry.example/team/**", "xregistry.example/team/llama", "v1", False),
        ("registry.example/team/**", "evil.example/registry.example/team/llama", "v1", False),
        ("registry.example/*/llama", NAME, None, True),
        ("registry.example/*/llama", "registry.example/a/b/llama", None, False),
        ("registry.example/**/llama", "registry.example/a/b/llama", None, True),
        ("registry.example/**/llama", "registry.example/llama", None, False),
        ("**", NAME, "v1", True),
        ("**", "oci:/srv/models", "v1", True),
        ("*", NAME, "v1", False),
        ("*/**", NAME, "v1", True),
        ("*/**", "oci:/srv/models", "v1", False),
        (NAME, NAME, "v1", True),
        (NAME, NAME, None, True),
        (f"{NAME}:v1", NAME, "v1", True),
        (f"{NAME}:v1", NAME, "v10", False),
        (f"{NAME}:v1", NAME, None, False),
        (f"{NAME}:v*", NAME, "v10", True),
        (f"{NAME}:*", NAME, None, False),
        ("localhost:5000/**", "localhost:5000/m/x", "v1", True),
        ("localhost:5000/**", "localhost:5001/m/x", "v1", False),
        ("localhost:*/**", "localhost:5001/m/x", "v1", True),
        ("localhost:5000/m/*:v1", "localhost:5000/m/x", "v1", True),
        ("oci:**", "oci:/srv/models", None, True),
        ("oci:**", "oci:models", "v1", True),
        ("oci:**", NAME, "v1", False),
        ("oci:/srv/**", "oci:/srv/models", "v1", True),
        ("oci:/srv/**", "oci:/srv/../etc", "v1", False),
        ("oci:/srv/**", "oci:/srvx/models", "v1", False),
        ("oci:/srv/models:v1", "oci:/srv/models", "v1", True),
        ("oci:/srv/models:v1", "oci:/srv/models", "v2", False),
        ("registry.example/a*b*c", "registry.example/aXbYc", None, True),
        ("registry.example/a*b*c", "registry.example/abc", None, True),
        ("registry.example/a*b*c", "registry.example/ac", None, False),
        ("registry.example/ab*ba", "registry.example/aba", None, False),
        ("Registry.example/**", NAME, None, True),
        ("registry.example/**", "REGISTRY.Example/team/llama", None, True),
        ("registry.example/Team/**", NAME, None, False),
        ("registry.example/team/**", "registry.example:443/team/llama", None, True),
        ("registry.example:443/team/**", NAME, None, True),
        ("registry.example/team/**", "registry.example:00443/team/llama", None, True),
        ("registry.example/team/**", "registry.example:4433/team/llama", None, False),
        ("localhost:5000/**", "localhost:05000/m/x", None, True),
        ("docker.io/**", "registry-1.docker.io/m/x", None, True),
        ("docker.io/**", "index.docker.io/m/x", None, True),
        ("oci:/srv/bad", "oci:/srv/./bad", None, True),
        ("oci:/srv/bad", "oci://srv//bad/", None, True),
        ("oci:./store", "oci:store", None, True),
        ("oci:store", "oci:/store", None, False),
        ("registry.example/team/lla?a", NAME, None, False),
        ("registry.example/team/[l]lama", NAME, None, False),
    ],
)
def test_matches(pattern, name, tag, expected):
    assert matches(check_pattern(pattern), name, tag) is expected


@pytest.mark.parametrize(
    "pattern",
    [
        *("", "x" * 600, "a b/c", "a\n/b", "host/a@sha256:00"),
        *("host/te**", "host/a:**", "host/a:", "/".join("a" * 70)),
    ],
)
def test_what_is_no_pattern(pattern):
    with pytest.raises(UsageError):
        check_pattern(pattern)


def test_no_pattern_takes_long():
    stars, name = "*a" * 250, "a" * 400
    many = "/".join(["**", "*"] * 30)
    start = time.monotonic()
    assert not matches(stars + "b", name, None)
    assert not matches(many + "/b", "/".join("a" * 200), None)
    assert time.monotonic() - start < 1


SEGMENTS = st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=4)


@settings(max_examples=150, deadline=None)
@given(SEGMENTS, st.data())
def test_replacing_segments_by_stars_still_matches(segments, data):
    name = "/".join(segments)
    pattern = [data.draw(st.sampled_from([segment, "*", "**"])) for segment in segments]
    assert matches("/".join(pattern), name, None)
    assert not matches("/".join([*pattern, "x"]), name, None)
