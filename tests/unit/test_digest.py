import hashlib

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.digest import Digest, chunk_hash, chunk_hasher
from modelpack.errors import FormatError, IntegrityError

# SHA-256 and BLAKE3 of nothing, from their specifications.
EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
EMPTY_BLAKE3 = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"


def test_known_values():
    assert str(Digest.of(b"")) == f"sha256:{EMPTY_SHA256}"
    assert chunk_hash(b"").hex() == EMPTY_BLAKE3
    assert chunk_hasher().digest() == chunk_hash(b"")
    assert Digest.of(b"").short == EMPTY_SHA256[:12]


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_registered_algorithms_parse_and_hash(algorithm):
    text = f"{algorithm}:{hashlib.new(algorithm, b'data').hexdigest()}"
    digest = Digest.parse(text)
    assert str(digest) == text
    digest.check(b"data", "it")
    with pytest.raises(IntegrityError, match=r"it: expected .*, got"):
        digest.check(b"date", "it")


@pytest.mark.parametrize(
    "value",
    [
        None,
        7,
        b"sha256:" + b"0" * 64,
        ["sha256:" + "0" * 64],
        "",
        "sha256",
        "sha256:",
        ":" + "0" * 64,
        "0" * 64,
        "sha256:" + "0" * 63,
        "sha256:" + "0" * 65,
        "sha256:" + "A" * 64,
        "sha256:" + "g" * 64,
        "SHA256:" + "0" * 64,
        " sha256:" + "0" * 64,
        "sha256:" + "0" * 64 + "\n",
        "sha256:" + "0" * 63 + "\n",
        "sha256: " + "0" * 63,
        "sha512:" + "0" * 64,
        "md5:" + "0" * 32,
        "sha1:" + "0" * 40,
        "blake3:" + "0" * 64,
        "sha256+b64:" + "0" * 64,
        "sha256:" + "\u0660" * 64,  # digits of another script
        # CVE-2024-3727: digests that are paths
        "sha256:../../../etc/passwd",
        "../../etc/passwd:" + "0" * 64,
        "sha256:" + "../" * 21 + "a",
    ],
    ids=lambda value: repr(value)[:40],
)
def test_anything_else_is_refused(value):
    with pytest.raises(FormatError):
        Digest.parse(value)


@given(st.text())
@settings(deadline=None)
def test_any_text_is_a_digest_or_our_error(text):
    try:
        said = str(Digest.parse(text))
    except FormatError as error:
        said = str(error)
    assert said == text or (said.startswith("digest ") and len(said) < 300 and "\n" not in said)


@given(st.binary(max_size=200), st.integers(0, 200))
@settings(deadline=None)
def test_hashing_in_pieces_is_hashing(data, cut):
    hasher, blake = Digest.of(data).hasher(), chunk_hasher()
    for piece in (data[:cut], data[cut:]):
        hasher.update(piece)
        blake.update(piece)
    assert hasher.hexdigest() == hashlib.sha256(data).hexdigest()
    assert blake.digest() == chunk_hash(data) == blake3(data).digest()


def test_digests_are_ordered_and_hashable():
    digests = [Digest("sha512", "1"), Digest("sha256", "2"), Digest("sha256", "1")]
    assert sorted(digests) == digests[::-1]
    assert len({*digests, Digest("sha256", "1")}) == 3
