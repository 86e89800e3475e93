import io
import struct
import zipfile
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.errors import FormatError
from modelpack.unsafe import ziparchive
from modelpack.unsafe.finding import BytesReader
from modelpack.unsafe.ziparchive import content, entries, has_directory


def packed(files, compression=zipfile.ZIP_STORED, **options):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression, **options) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


FILES = {"a/data.pkl": b"pickle", "a/data/0": bytes(500), "a/version": b"3\n"}
PLAIN = packed(FILES)


def read(data):
    reader = BytesReader(data)
    return {entry.name: content(reader, entry) for entry in entries(reader)}


class Pipe(io.RawIOBase):
    """An output that cannot be rewound, so that zipfile streams its entries."""

    def __init__(self):
        self.data = bytearray()

    def writable(self):
        return True

    def write(self, data):
        self.data += data
        return len(data)


def streamed(files):
    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return bytes(pipe.data)


@pytest.mark.parametrize(
    "data",
    [PLAIN, packed(FILES, zipfile.ZIP_DEFLATED), streamed(FILES), PLAIN[:-2] + b"\x05\x00hello"],
    ids=["stored", "deflated", "streamed", "with-comment"],
)
def test_archives_are_read(data):
    assert read(data) == FILES


def test_64_bit_archives_are_read():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive, archive.open("a", "w", force_zip64=True) as file:
        file.write(b"data")
    assert read(out.getvalue()) == {"a": b"data"}


def test_an_empty_archive():
    assert read(packed({})) == {}


def central(data, number=0):
    position = data.index(b"PK\x01\x02")
    for _ in range(number):
        position = data.index(b"PK\x01\x02", position + 1)
    return position


def patched(offset, value, base=PLAIN):
    return base[:offset] + value + base[offset + len(value) :]


def both(local_offset, central_offset, value):
    return patched(central(PLAIN) + central_offset, value, patched(local_offset, value))


END = len(PLAIN) - 22
SHIFTED = b"MZ prefix" + PLAIN

TRICKS = {
    "not-a-zip": b"hello",
    "no-end-record": PLAIN[:-22],
    "end-record-cut-off": PLAIN[:-1],
    "data-behind-the-end": PLAIN + b"more",
    "data-before-the-start": SHIFTED,
    "name-differs": patched(30, b"b"),
    "only-local-encrypted": patched(6, b"\x01"),
    "only-central-encrypted": patched(central(PLAIN) + 8, b"\x01"),
    "both-encrypted": both(6, 8, b"\x01"),
    "both-patched": both(6, 8, b"\x20"),
    "method-differs": patched(8, b"\x08"),
    "unknown-method": both(8, 10, b"\x63"),
    "crc-differs": patched(14, b"\xff"),
    "size-differs": patched(22, b"\xff"),
    "compressed-size-differs": patched(18, b"\xff"),
    "stored-with-two-sizes": both(22, 24, b"\x07"),
    "local-magic": patched(0, b"XX"),
    "central-magic": patched(central(PLAIN), b"XX"),
    "version-of-the-future": patched(central(PLAIN) + 6, b"\x40"),
    "header-elsewhere": patched(central(PLAIN) + 42, b"\xff\xff"),
    "two-entries-one-header": patched(central(PLAIN, 1) + 42, b"\0\0\0\0"),
    "count-too-low": patched(END + 8, b"\x02\0\x02\0"),
    "count-too-high": patched(END + 8, b"\x04\0\x04\0"),
    "several-disks": patched(END + 4, b"\x01"),
    "directory-elsewhere": patched(END + 16, b"\xff\xff\xff"),
    "sizes-in-missing-field": both(22, 24, b"\xff\xff\xff\xff"),
    "64-bit-record-missing": patched(END + 8, b"\xff\xff\xff\xff"),
    "backslash": packed({"aXb": b""}).replace(b"aXb", b"a\\b"),
    "parent": packed({"../x": b""}),
    "absolute": packed({"/etc/x": b""}),
    "undeclared-utf8": packed({"axb": b""}).replace(b"axb", b"a\xc3b"),
}


@pytest.mark.parametrize("data", TRICKS.values(), ids=TRICKS)
def test_what_readers_could_read_differently(data):
    with pytest.raises(FormatError):
        read(data)


def test_two_entries_of_one_name():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a", b"1")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a", b"2")
    with pytest.raises(FormatError, match="two entries of one name"):
        read(out.getvalue())


def test_a_bad_crc_is_seen_where_it_matters():
    position = PLAIN.index(b"pickle")
    data = patched(position, b"P")
    [first, *_] = entries(BytesReader(data))
    with pytest.raises(FormatError, match="wrong CRC"):
        content(BytesReader(data), first)


def test_a_bomb_is_not_inflated(monkeypatch):
    data = packed({"a": bytes(10_000_000)}, zipfile.ZIP_DEFLATED)
    [entry] = entries(BytesReader(data))
    monkeypatch.setattr(ziparchive, "MAX_CONTENT_BYTES", 1_000_000)
    with pytest.raises(FormatError, match="too many to judge"):
        content(BytesReader(data), entry)


def test_a_lie_about_the_size_of_a_bomb():
    data = packed({"a": bytes(100_000)}, zipfile.ZIP_DEFLATED)
    smaller = struct.pack("<I", 10)
    data = patched(22, smaller, patched(central(data) + 24, smaller, data))
    [entry] = entries(BytesReader(data))
    with pytest.raises(FormatError):
        content(BytesReader(data), entry)


def test_too_many_entries(monkeypatch):
    monkeypatch.setattr(ziparchive, "MAX_ENTRIES", 2)
    with pytest.raises(FormatError, match="too many to judge"):
        read(PLAIN)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(PLAIN) - 1), st.binary(min_size=1, max_size=4))
def test_any_change_is_refused_or_reads_as_python_reads_it(position, noise):
    data = patched(position, noise)[: len(PLAIN)]
    try:
        ours = read(data)
    except FormatError:
        return
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert ours == {info.filename: archive.read(info) for info in archive.infolist()}


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=120))
def test_any_bytes_are_refused_with_an_error_of_ours(data):
    for raw in (data, b"PK\x03\x04" + data, data + b"PK\x05\x06" + bytes(18)):
        try:
            entries(BytesReader(raw))
        except FormatError:
            continue


def test_the_crc_is_the_usual_one():
    [first, *_] = entries(BytesReader(PLAIN))
    assert first.crc == zlib.crc32(b"pickle")


def test_many_end_records_are_not_all_followed():
    asked = []

    class Watched(BytesReader):
        def read(self, offset, length, /):
            asked.append(offset)
            return super().read(offset, length)

    end = b"PK\x05\x06" + struct.pack("<8xIIH", 40, 0, 0)
    assert has_directory(Watched(b"x" * 100 + end * 1000))
    assert len(asked) < 30
    assert not has_directory(BytesReader(b"x" * 100 + end * 3))
