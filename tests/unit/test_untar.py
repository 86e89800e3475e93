"""Reading other programs' tars: what is in them comes out, what may not be in them does not."""

import gzip
import io
import tarfile
import threading
import time
import zlib

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack import tarformat, untar
from modelpack.errors import FormatError, IntegrityError, ModelpackError
from modelpack.untar import decompressed, entries, is_metadata
from tests.support.indexes import PATHS

MIB = 1024 * 1024


class Source:
    """A byte stream that gives ``step`` bytes at most, counting them."""

    def __init__(self, data, step=10**9):
        self._file = io.BytesIO(data)
        self._step = step
        self.given = 0

    def readinto(self, buffer):
        count = self._file.readinto(buffer[: self._step])
        self.given += count
        return count


def files_in(raw, media_type="tar", step=10**9):
    """What comes out: (path, executable, content)."""
    source = Source(raw, step)
    found = [
        (path, executable, content.read())
        for path, _, executable, content in entries(decompressed(source, media_type))
    ]
    assert source.given == len(raw)  # read to the end, so that its digest was checked
    return found


def tar_of(*members, form=tarfile.GNU_FORMAT):
    """A tar of TarInfo objects or (path, content)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for member in members:
            if isinstance(member, tuple):
                entry = tarfile.TarInfo(member[0])
                entry.size = len(member[1])
                tar.addfile(entry, io.BytesIO(member[1]))
            else:
                tar.addfile(member)
    return out.getvalue()


def special(name, kind, **fields):
    entry = tarfile.TarInfo(name)
    entry.type = kind
    for field, value in fields.items():
        setattr(entry, field, value)
    return entry


def raw_header(kind, size, name="x"):
    header = bytearray(tarformat.file_header(name, size=0, mode=0o644))
    header[156:157] = kind
    header[124:136] = (
        b"%011o\0" % size if size >= 0 else b"\xff" * 8 + size.to_bytes(4, signed=True)
    )
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


PLAIN = tar_of(("a.txt", b"one"), ("b/c.bin", b"x" * 5000), ("empty", b""))
FOUND = [("a.txt", False, b"one"), ("b/c.bin", False, b"x" * 5000), ("empty", False, b"")]


@pytest.mark.parametrize(
    ("media_type", "compress"),
    [
        ("application/vnd.oci.image.layer.v1.tar", bytes),
        ("application/vnd.docker.image.rootfs.diff.tar", bytes),
        ("application/vnd.oci.image.layer.v1.tar+gzip", gzip.compress),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", gzip.compress),
        ("application/tar.gz", gzip.compress),
        ("application/vnd.oci.image.layer.v1.tar+zstd", zstandard.compress),
        ("Application/Tar+ZSTD", zstandard.compress),
        (
            "application/tar+gzip",  # several members, as pigz and estargz write
            lambda raw: b"".join(gzip.compress(raw[at : at + 3000]) for at in range(0, len(raw), 3000)),
        ),
        (
            "application/tar+zstd",  # several frames and one to skip, as zstd:chunked writes
            lambda raw: (
                zstandard.compress(raw[:3000])
                + b"\x50\x2a\x4d\x18\x03\0\0\0abc"
                + zstandard.compress(raw[3000:])
            ),
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("step", [1, 7, 10**9])
def test_any_compression_in_any_pieces(media_type, compress, step):
    assert files_in(compress(PLAIN), media_type, step) == FOUND


@pytest.mark.parametrize(
    "media_type", ["application/x-bzip2", "text/plain", "", "tar+xz", "tar+enc"]
)
def test_unknown_compression(media_type):
    with pytest.raises(FormatError, match="cannot be unpacked"):
        decompressed(Source(PLAIN), media_type)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_any_dialect_of_tar(form):
    directory = special("dir", tarfile.DIRTYPE)
    run = special("run.sh", tarfile.REGTYPE, mode=0o750)
    names = ["dir/" + "n" * 90, "d" * 80 + "/" + "n" * 90]
    if form != tarfile.USTAR_FORMAT:
        names += ["n" * 250, "é" * 70]
    raw = tar_of(directory, run, *((name, b"x") for name in names), form=form)
    assert files_in(raw) == [("run.sh", True, b""), *((name, False, b"x") for name in names)]


def test_own_layers():
    raw = tarformat.directory_header("é") + tarformat.file_header("é/x", size=3, mode=0o755)
    raw += b"abc" + bytes(509) + tarformat.END_OF_ARCHIVE
    assert files_in(raw) == [("é/x", True, b"abc")]


@given(st.lists(st.tuples(PATHS, st.binary(max_size=1000)), max_size=6, unique_by=lambda i: i[0]))
@settings(deadline=None, max_examples=60)
def test_round_trip_through_tarfile(members):
    raw = tar_of(*members, form=tarfile.PAX_FORMAT)
    assert [(path, content) for path, _, content in files_in(raw)] == members


def test_leading_dots_and_directories():
    raw = tar_of(
        special(".", tarfile.DIRTYPE), ("./a", b"1"), ("././b", b"2"), special("./d/", tarfile.DIRTYPE)
    )  # fmt: skip
    assert files_in(raw) == [("a", False, b"1"), ("b", False, b"2")]


def test_what_is_not_read_is_passed_over():
    names = [path for path, *_ in entries(decompressed(Source(PLAIN), "tar"))]
    assert names == [path for path, *_ in FOUND]


def test_content_in_pieces():
    for path, size, _, content in entries(decompressed(Source(PLAIN), "tar")):
        pieces = list(iter(lambda content=content: content.read(999), b""))
        assert sum(map(len, pieces)) == size, path


@pytest.mark.parametrize(
    ("path", "expected"),
    [(".modelpack/chunks.bin", True), (".modelpack", True), (".modelpackx/a", False), ("a", False)],
)
def test_metadata(path, expected):
    assert is_metadata(path) is expected


REFUSED = {
    "symlink": special("a", tarfile.SYMTYPE, linkname="/etc/passwd"),
    "symlink-inside": special("a", tarfile.SYMTYPE, linkname="b"),
    "hardlink": special("a", tarfile.LNKTYPE, linkname="../b"),
    "character-device": special("a", tarfile.CHRTYPE),
    "block-device": special("a", tarfile.BLKTYPE),
    "fifo": special("a", tarfile.FIFOTYPE),
    "unknown-type": special("a", b"Z"),
    "up": ("../a", b""),
    "up-inside": ("a/../../b", b""),
    "absolute": ("/etc/passwd", b""),
    "dot-inside": ("a/./b", b""),
    "backslash": ("..\\a", b""),
    "whiteout": (".wh.a", b""),
    "opaque": ("d/.wh..wh..opq", b""),
    "newline": ("a\nb", b""),
    "long-name": ("n" * 256, b""),
    "many-parts": ("a/" * 200 + "b", b""),
}


@pytest.mark.parametrize("member", REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["gnu", "pax"])
def test_entries_that_are_refused(member, form):
    with pytest.raises(FormatError):
        files_in(tar_of(("good", b""), member, form=form))


def test_a_name_that_is_not_utf_8():
    raw = PLAIN.replace(b"a.txt", b"a.\xffxt", 1)
    raw = bytearray(raw)
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw[:512])
    with pytest.raises(FormatError, match="not valid UTF-8"):
        files_in(bytes(raw))


SPARSE_PAX = (
    b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n"
    b"25 GNU.sparse.name=hidden\n30 GNU.sparse.realsize=1048576\n"
)
SPARSE = {
    "gnu": raw_header(b"S", 0) + bytes(1024),
    "gnu-that-goes-on": raw_header(b"S", 0)[:482] + b"\1" + raw_header(b"S", 0)[483:] + b"\1" * 5120,
    "pax-1.0": raw_header(b"x", len(SPARSE_PAX)) + SPARSE_PAX.ljust(512, b"\0")
    + raw_header(b"0", 512) + b"1\n0\n512\n".ljust(512, b"\0") + bytes(1024),
    "pax-1.0-that-goes-on": raw_header(b"x", len(SPARSE_PAX)) + SPARSE_PAX.ljust(512, b"\0")
    + raw_header(b"0", 512) + b"9" * 12 + b"\n" + b"1\n" * 5000,
}  # fmt: skip


@pytest.mark.parametrize("raw", SPARSE.values(), ids=SPARSE)
def test_sparse_files_are_refused(raw):
    with pytest.raises(ModelpackError):
        files_in(raw)


DAMAGED = {
    "nothing": (b"", "tar"),
    "text": (b"<html>not a tar</html>" * 100, "tar"),
    "cut-in-a-header": (PLAIN[:700], "tar"),
    "cut-in-a-file": (PLAIN[:2500], "tar"),
    "checksum": (PLAIN[:10] + b"x" + PLAIN[11:], "tar"),
    "no-gzip": (PLAIN, "tar+gzip"),
    "no-zstd": (PLAIN, "tar+zstd"),
    "cut-gzip": (gzip.compress(PLAIN)[:-20], "tar+gzip"),
    "cut-zstd": (zstandard.compress(PLAIN)[:40], "tar+zstd"),
    "gzip-crc": (gzip.compress(PLAIN)[:-8] + bytes(8), "tar+gzip"),
    "after-gzip": (gzip.compress(PLAIN) + b"x" * 100, "tar+gzip"),
    "negative-size": (raw_header(b"0", -512) + bytes(1024), "tar"),
    "negative-extension": (raw_header(b"L", -512) + bytes(1024), "tar"),
    "huge-extension": (raw_header(b"x", 8**11 - 1) + bytes(1024), "tar"),
    "chain-of-extensions": (raw_header(b"x", 0) * 3000 + bytes(1024), "tar"),
    "chain-of-long-names": (raw_header(b"L", 0) * 3000 + bytes(1024), "tar"),
    "negative-size-in-pax": (
        raw_header(b"x", 14) + b"14 size=-1024\n".ljust(512, b"\0") + PLAIN,
        "tar",
    ),
}


@pytest.mark.parametrize(("raw", "media_type"), DAMAGED.values(), ids=DAMAGED)
def test_damage(raw, media_type):
    with pytest.raises(IntegrityError) as caught:
        files_in(raw, media_type)
    assert "\n" not in str(caught.value)


@given(
    st.lists(st.tuples(st.integers(0, 2047), st.integers(0, 255)), max_size=4),
    st.integers(0, len(PLAIN)),
    st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_any_damage_gives_files_or_our_error(changes, cut, mend):
    raw = bytearray(PLAIN)
    for at, value in changes:
        raw[at] = value
    if mend:  # a right checksum, so that the change is looked at
        raw[148:156] = b" " * 8
        raw[148:156] = b"%06o\0 " % sum(raw[:512])
    try:
        files_in(bytes(raw[:cut]))
    except ModelpackError:
        return


class Endless:
    """A gzip stream of a header and then zeros, far more than any memory."""

    def __init__(self, header):
        self._deflate = zlib.compressobj(1, zlib.DEFLATED, 31)
        self._waiting = self._deflate.compress(header)
        self._zeros = bytes(MIB)
        self.blocks = 0

    def readinto(self, buffer):
        while not self._waiting:
            assert self.blocks < 4000
            self.blocks += 1
            self._waiting = self._deflate.compress(self._zeros)
        count = min(len(buffer), len(self._waiting))
        buffer[:count] = self._waiting[:count]
        self._waiting = self._waiting[count:]
        return count


@pytest.mark.parametrize("kind", [b"L", b"K", b"x", b"g", b"X"])
def test_a_bomb_in_a_header_extension_is_not_read(kind):
    """tarfile itself would hold all of it in memory."""
    source = Endless(raw_header(kind, 4000 * MIB))
    with pytest.raises(IntegrityError, match="header extension of"):
        list(entries(decompressed(source, "tar+gzip")))
    assert source.blocks < 100


def test_a_bomb_is_read_in_pieces():
    """What is passed over is not held: 300 MiB of zeros from 300 KB."""
    import tracemalloc

    raw = gzip.compress(
        raw_header(b"0", 300 * MIB) + bytes(300 * MIB) + tarformat.END_OF_ARCHIVE, compresslevel=1
    )
    frames = zstandard.compress(
        raw_header(b"0", 300 * MIB) + bytes(300 * MIB) + tarformat.END_OF_ARCHIVE
    )
    tracemalloc.start()
    for data, media_type in ((raw, "tar+gzip"), (frames, "tar+zstd")):
        tracemalloc.clear_traces()
        tracemalloc.reset_peak()
        ((path, size, _, _),) = entries(decompressed(Source(data), media_type))
        assert (path, size) == ("x", 300 * MIB)
        assert tracemalloc.get_traced_memory()[1] < 20 * MIB
    tracemalloc.stop()


def test_headers_are_not_kept(monkeypatch):
    """A million entries would take a gigabyte."""
    seen = []
    original = tarfile.TarFile.next

    def spy(archive):
        seen.append(len(archive.members))
        return original(archive)

    monkeypatch.setattr(tarfile.TarFile, "next", spy)
    files_in(tar_of(*((f"{n}", b"") for n in range(50))))
    assert max(seen) <= 1


def test_too_many_entries(monkeypatch):
    monkeypatch.setattr(untar, "MAX_ENTRIES", 5)
    assert len(files_in(tar_of(*((f"{n}", b"") for n in range(5))))) == 5
    with pytest.raises(FormatError, match="more than 5 entries"):
        files_in(tar_of(*((f"{n}", b"") for n in range(6))))


def test_it_ends():
    """CVE-2025-8194: a negative size once sent tarfile round and round."""
    loops = [
        raw_header(kind, size) + bytes(512 * blocks)
        for kind in (b"0", b"5", b"1", b"2", b"Z", b"x", b"L")
        for size in (-512, -1024, -1536)
        for blocks in (1, 3)
    ]

    def work():
        for raw in loops:
            try:
                files_in(PLAIN[:1024] + raw)
            except ModelpackError:
                continue

    thread = threading.Thread(target=work, daemon=True)
    started = time.monotonic()
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    assert time.monotonic() - started < 20
