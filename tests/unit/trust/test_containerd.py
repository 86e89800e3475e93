import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.digest import Digest
from modelpack.errors import ModelpackError
from modelpack.trust.containerd import parse_request

DIGEST = Digest.of(b"manifest")
NAME = "registry.example/team/llama:v1"
TYPE = "application/vnd.oci.descriptor.v1+json"
STDIN = json.dumps(
    {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": str(DIGEST), "size": 7}
).encode()
CALL = ["-name", NAME, "-digest", str(DIGEST), "-stdin-media-type", TYPE]


@pytest.mark.parametrize(
    "arguments",
    [
        CALL,
        ["--name", NAME, "--digest", str(DIGEST), "--stdin-media-type", TYPE],
        [f"-stdin-media-type={TYPE}", f"-digest={DIGEST}", f"--name={NAME}"],
        CALL[:4],
    ],
    ids=["containerd's", "two dashes", "joined, in another order", "without a type"],
)
@pytest.mark.parametrize("stdin", [STDIN, b"", b"\n"], ids=["descriptor", "empty", "newline"])
def test_calls(arguments, stdin):
    request = parse_request(arguments, stdin)
    assert str(request.reference) == NAME
    assert request.digest == DIGEST


@pytest.mark.parametrize(
    ("arguments", "stdin", "words"),
    [
        ([], STDIN, "-name"),
        (CALL[:2], STDIN, "-digest"),
        ([*CALL, "-name", NAME], STDIN, "-name"),
        ([*CALL, "-verbose"], STDIN, "-verbose"),
        ([*CALL[:3], "sha256:12"], STDIN, "sha256"),
        (CALL[:3], STDIN, "no value"),
        (["-name", "nohost", *CALL[2:]], STDIN, "registry host"),
        ([*CALL[:5], "text/plain"], STDIN, "text/plain"),
        (CALL, b"{}", "stdin"),
        (CALL, b"\xff", "stdin"),
        (CALL, STDIN.replace(DIGEST.hex.encode(), b"0" * 64), "stdin"),
        (["name", NAME], STDIN, "name"),
    ],
)
def test_what_is_not_understood_is_refused(arguments, stdin, words):
    with pytest.raises(ModelpackError, match=words):
        parse_request(arguments, stdin)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([*CALL, "-x", "--", "-", "-name=", "="]) | st.text(), max_size=8),
       st.binary(max_size=200) | st.just(STDIN))  # fmt: skip
def test_any_call_is_a_request_or_an_error_of_our_own(arguments, stdin):
    try:
        request = parse_request(arguments, stdin)
    except ModelpackError:
        return
    assert str(request.digest) in " ".join(arguments)
