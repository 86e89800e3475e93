import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.content import PIECE_BYTES, BlobContent, FileRegion, segment_size
from modelpack.errors import IntegrityError


def joined(content, start=0):
    return b"".join(bytes(piece) for piece in content.pieces(start))


@pytest.fixture
def region(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 10)
    return FileRegion(path, 2560)


@given(
    segments=st.lists(st.one_of(st.binary(max_size=40), st.integers(0, 40)), max_size=6),
    start=st.integers(0, 250),
)
@settings(deadline=None)
def test_any_offset_of_any_segments(tmp_path_factory, segments, start):
    directory = tmp_path_factory.mktemp("content")
    parts, expected = [], b""
    for number, segment in enumerate(segments):
        data = segment if isinstance(segment, bytes) else os.urandom(segment)
        if isinstance(segment, int):
            (directory / str(number)).write_bytes(data)
            segment = FileRegion(directory / str(number), len(data))  # noqa: PLW2901
        parts.append(segment)
        expected += data
        assert segment_size(segment) == len(data)
    content = BlobContent(tuple(parts))
    assert content.size == len(expected)
    assert joined(content) == expected
    assert joined(content, start) == expected[start:]
    assert joined(content, start) == expected[start:]  # again and again


def test_pieces_are_bounded(tmp_path):
    data = os.urandom(2 * PIECE_BYTES + 3)
    (tmp_path / "file").write_bytes(data)
    content = BlobContent((data, FileRegion(tmp_path / "file", len(data))))
    sizes = [len(piece) for piece in content.pieces()]
    assert sizes == [PIECE_BYTES, PIECE_BYTES, 3] * 2
    assert joined(content) == data + data
    assert joined(content, len(data) - 1) == data[-1:] + data
    assert joined(content, len(data) + 5) == data[5:]


def test_a_file_that_is_gone(region):
    region.path.unlink()
    with pytest.raises(IntegrityError, match="cannot be read: No such file"):
        joined(BlobContent((region,)))


@pytest.mark.parametrize("size", [0, 2559, 2561])
def test_a_file_of_another_length(region, size):
    os.truncate(region.path, size)
    with pytest.raises(IntegrityError, match="changed while it was being read"):
        joined(BlobContent((region,)))


def test_a_file_that_became_a_link(region, tmp_path):
    region.path.rename(tmp_path / "other")
    region.path.symlink_to(tmp_path / "other")
    with pytest.raises(IntegrityError, match="cannot be read"):
        joined(BlobContent((region,)))


def test_a_file_that_became_a_fifo(region):
    region.path.unlink()
    os.mkfifo(region.path)
    with pytest.raises(IntegrityError, match="changed while it was being read"):
        joined(BlobContent((region,)))


def test_a_file_that_shrinks_while_it_is_read(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(3 * PIECE_BYTES))
    pieces = BlobContent((FileRegion(path, 3 * PIECE_BYTES),)).pieces()
    assert len(next(pieces)) == PIECE_BYTES
    os.truncate(path, PIECE_BYTES)
    with pytest.raises(IntegrityError, match="became shorter"):
        list(pieces)


def test_descriptors_are_closed(region):
    def open_files():
        return len(os.listdir("/proc/self/fd"))

    before = open_files()
    content = BlobContent((region, region))
    joined(content)
    pieces = content.pieces()
    next(pieces)
    pieces.close()
    assert open_files() == before
