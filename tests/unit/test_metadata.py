import io
import tarfile

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelpack import tarformat
from modelpack.errors import FormatError
from modelpack.metadata import (
    LOCAL_NAMES,
    MAX_FILES,
    build_metadata_layer,
    is_name,
    read_metadata_layer,
)
from modelpack.stores import destination
from tests.support import secondreader

FILES = {"chunks.bin": b"x" * 700, "model.json": b"{}\n", "sbom.cdx.json": b""}
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)


def header(path, size, mode=0o644):
    return tarformat.file_header(path, size=size, mode=mode)


@given(st.dictionaries(NAMES, st.binary(max_size=1200), max_size=6))
@example({})
@example({"a" * 64: bytes(512)})
@settings(deadline=None)
def test_round_trip(files):
    raw = build_metadata_layer(files)
    assert read_metadata_layer(raw) == files == secondreader.read_metadata(raw)
    assert build_metadata_layer(dict(reversed(files.items()))) == raw
    with tarfile.open(fileobj=io.BytesIO(raw), mode="r:") as tar:
        entries = tar.getmembers()
        assert [entry.name for entry in entries] == [
            ".modelpack",
            *(f".modelpack/{name}" for name in sorted(files)),
        ]
        assert {entry.mode for entry in entries[1:]} <= {0o644}


def test_most_files():
    files = {f"{number:02}": b"" for number in range(MAX_FILES)}
    assert read_metadata_layer(build_metadata_layer(files)) == files
    with pytest.raises(FormatError):
        read_metadata_layer(build_metadata_layer({**files, "more": b""}))


END = tarformat.END_OF_ARCHIVE
TOP = tarformat.directory_header(".modelpack")
ONE = header(".modelpack/a", 1) + b"1" + bytes(511)
TWO = header(".modelpack/b", 1) + b"2" + bytes(511)


def patched(raw, at, value):
    """A header with other bytes, and a checksum that is right for them."""
    block = bytearray(raw)
    block[at : at + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block[:512])
    return bytes(block)


ODD = {
    "nothing": b"",
    "a-byte": b"x",
    "zeros": bytes(2048),
    "no-end": TOP + ONE,
    "half-an-end": TOP + ONE + bytes(512),
    "more-after-the-end": TOP + ONE + END + bytes(512),
    "another-file-after-the-end": TOP + ONE + END + ONE + END,
    "padded-to-10-kib": TOP + ONE + END + bytes(10240 - 512 - 1024 - 1024),
    "no-directory": ONE + END,
    "directory-twice": TOP + TOP + ONE + END,
    "another-directory": TOP + tarformat.directory_header(".modelpack/d") + END,
    "out-of-order": TOP + TWO + ONE + END,
    "twice": TOP + ONE + ONE + END,
    "elsewhere": TOP + header("a", 1) + b"1" + bytes(511) + END,
    "above": TOP + header(".modelpack/../a", 1) + b"1" + bytes(511) + END,
    "below": TOP + header(".modelpack/a/b", 1) + b"1" + bytes(511) + END,
    "no-name": TOP + header(".modelpack/", 1) + b"1" + bytes(511) + END,
    "odd-name": TOP + header(".modelpack/-a", 1) + b"1" + bytes(511) + END,
    "dot-name": TOP + header(".modelpack/.a", 1) + b"1" + bytes(511) + END,
    "long-name": TOP + header(".modelpack/" + "a" * 65, 1) + b"1" + bytes(511) + END,
    "pax-name": TOP + header(".modelpack/" + "a" * 90, 1) + b"1" + bytes(511) + END,
    "not-ascii": TOP + header(".modelpack/é", 1) + b"1" + bytes(511) + END,
    "name-after-nul": TOP + patched(ONE, 20, b"hidden") + END,
    "mode": TOP + header(".modelpack/a", 1, mode=0o755) + b"1" + bytes(511) + END,
    "symlink": TOP + patched(ONE, 156, b"2") + END,
    "hardlink": TOP + patched(ONE, 156, b"1") + END,
    "sparse": TOP + patched(ONE, 156, b"S") + END,
    "gnu-long-name": TOP + patched(ONE, 156, b"L") + END,
    "device": TOP + patched(ONE, 156, b"4") + END,
    "owner": TOP + patched(ONE, 108, b"0001750") + END,
    "user-name": TOP + patched(ONE, 265, b"root") + END,
    "time": TOP + patched(ONE, 136, b"14777777777") + END,
    "negative-size": TOP + patched(ONE, 124, b"-0000000001") + END,
    "base-256-size": TOP + patched(ONE, 124, b"\x80" + bytes(10) + b"\x01") + END,
    "negative-base-256-size": TOP + patched(ONE, 124, b"\xff" * 12) + END,
    "largest-size": TOP + patched(ONE, 124, b"77777777777") + END,
    "size-with-spaces": TOP + patched(ONE, 124, b"          1") + END,
    "checksum": TOP + ONE.replace(b"\0ustar", b"\1ustar", 1) + END,
    "padding": TOP + ONE[:-1] + b"x" + END,
    "in-the-end": TOP + ONE + END[:-1] + b"x",
    "gzip": b"\x1f\x8b\x08" + bytes(600),
}


@pytest.mark.parametrize("raw", ODD.values(), ids=ODD)
def test_anything_but_the_one_form_is_refused(raw):
    with pytest.raises(FormatError, match="metadata layer") as caught:
        read_metadata_layer(raw)
    assert str(caught.value).isprintable()
    with pytest.raises((secondreader.RefusedError, ValueError)):
        secondreader.read_metadata(raw)


RAW = build_metadata_layer(FILES)


@given(
    st.lists(st.tuples(st.integers(0, len(RAW) - 1), st.integers(0, 255)), max_size=3),
    st.integers(0, len(RAW)),
    st.binary(max_size=8),
)
@settings(max_examples=300, deadline=None)
def test_damage_gives_our_error_or_files_that_rebuild_it(changes, cut, tail):
    raw = bytearray(RAW)
    for at, value in changes:
        raw[at] = value
    raw = bytes(raw[:cut]) + tail
    try:
        files = read_metadata_layer(raw)
    except FormatError:
        return
    assert build_metadata_layer(files) == raw


@given(st.binary(max_size=3000))
@settings(deadline=None)
def test_any_bytes_give_our_error(raw):
    with pytest.raises(FormatError):
        read_metadata_layer(raw)


@pytest.mark.parametrize("name", sorted(LOCAL_NAMES))
def test_what_a_destination_keeps_for_itself_is_refused(name):
    """An artifact must not bring a receipt, or a lock, of its own."""
    with pytest.raises(FormatError, match=f"'{name}', which only a pull may write"):
        read_metadata_layer(build_metadata_layer({**FILES, name: b"x"}))
    assert not is_name(name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("chunks.bin", True), ("from.the.future", True), ("a" * 64, True), ("a" * 65, False),
     ("", False), (".lock.0a1b2c3d", False), ("a/b", False), ("a\n", False), ("é", False)],
)  # fmt: skip
def test_names(name, expected):
    assert is_name(name) is expected


def test_the_names_are_those_that_a_destination_uses():
    assert {
        destination.RECEIPT,
        destination.MANIFEST,
        destination.STAGING,
        destination._LOCK,
    } == LOCAL_NAMES
