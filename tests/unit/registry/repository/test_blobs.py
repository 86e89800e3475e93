"""Blobs as a whole and as streams."""

from dataclasses import replace

import pytest

from modelpack.errors import (
    IntegrityError,
    ModelpackError,
    NotFoundError,
)
from modelpack.storage import VerifyingStream, read_all
from tests.support.faultregistry import BlobHost, Fault
from tests.support.onemodel import ABSENT, LAYER, LAYER_BYTES


def test_fetch_blob(repository):
    assert repository.fetch_blob(LAYER, max_bytes=LAYER.size) == LAYER_BYTES


def test_fetch_blob_bounds_before_asking(repository, registry):
    with pytest.raises(IntegrityError, match="at most 10"):
        repository.fetch_blob(LAYER, max_bytes=10)
    assert registry.requests == []


@pytest.mark.parametrize(
    "fault",
    [
        Fault.corrupt(17),
        Fault.extra_bytes(),
        Fault.short_body(100),
        Fault.empty_200(announce=False),
        Fault.oversize(None),
        Fault.replace_body(b"x" * LAYER.size),
    ],
    ids=lambda fault: fault.name,
)
def test_wrong_blob_bytes(repository, registry, fault):
    registry.faults.add(fault)
    with pytest.raises(IntegrityError):
        repository.fetch_blob(LAYER, max_bytes=LAYER.size)


def test_missing_blob(repository):
    absent = replace(LAYER, digest=ABSENT)
    assert not repository.has_blob(absent)
    with pytest.raises(NotFoundError):
        repository.fetch_blob(absent, max_bytes=LAYER.size)


def test_has_blob(repository, registry):
    assert repository.has_blob(LAYER)
    with pytest.raises(IntegrityError, match="256000 bytes"):
        repository.has_blob(replace(LAYER, size=5))


def test_has_blob_where_blobs_lie_elsewhere(repository, registry):
    """A signed URL good for GET alone: HEAD would be refused there."""
    with BlobHost(registry.store) as blobs:
        registry.faults.add(
            Fault.redirect(blobs, method=("GET", "HEAD"), kind="blob", digest=LAYER.digest)
        )
        assert repository.has_blob(LAYER)
        assert blobs.requests == []
    assert not repository.has_blob(replace(LAYER, digest=ABSENT))


def test_range_connection(repository, registry):
    connection = repository.range_connection()
    try:
        with connection.open_range(LAYER, 1000, 500) as stream:
            assert read_all(stream, 500) == LAYER_BYTES[1000:1500]
    finally:
        connection.close()


def stream_bytes(repository, start=0, length=None):
    size = (LAYER.size if length is None else start + length) - start
    with repository.open_blob(LAYER, start, length) as stream:
        return read_all(stream, size)


@pytest.mark.parametrize(
    ("start", "length"),
    [
        (0, None),
        (0, 10),
        (5, None),
        (100_000, 100_000),
        (LAYER.size, None),
        (7, 0),
        (0, LAYER.size),
    ],
)
def test_open_blob(repository, start, length):
    end = LAYER.size if length is None else start + length
    assert stream_bytes(repository, start, length) == LAYER_BYTES[start:end]


@pytest.mark.parametrize(
    ("start", "length"), [(-1, 5), (0, LAYER.size + 1), (LAYER.size + 1, None)]
)
def test_open_blob_outside(repository, start, length):
    with pytest.raises(ValueError, match="bytes"):
        repository.open_blob(LAYER, start, length)


def test_a_range_where_ranges_are_ignored(repository, registry):
    registry.faults.add(Fault.ignore_range())
    assert stream_bytes(repository, 1000, 50) == LAYER_BYTES[1000:1050]
    assert stream_bytes(repository, 0, 50) == LAYER_BYTES[:50]


@pytest.mark.parametrize(
    "fault",
    [Fault.truncate(100_000, times=2), Fault.reset(60_000, times=3), Fault.status(503, nth=2)],
    ids=lambda fault: fault.name,
)
def test_a_broken_stream_goes_on(repository, registry, fault):
    registry.faults.add(fault, Fault.truncate(50_000, nth=1))
    assert stream_bytes(repository) == LAYER_BYTES
    # What was in flight when the connection was reset may come twice.
    assert registry.repeated_bytes(LAYER.digest) < 200_000


def test_a_stream_that_never_moves(registry, open_repository):
    registry.faults.add(Fault.truncate(0))
    with pytest.raises(ModelpackError, match="gave up"):
        stream_bytes(open_repository(registry, patience=1.0))


@pytest.mark.parametrize(
    "fault",
    [
        Fault.wrong_content_range(),
        Fault.other_range(5),
        Fault.shorter_range(10),
        Fault.header("Content-Range", "nonsense", method="GET"),
    ],
    ids=lambda fault: fault.name,
)
def test_another_range_than_asked_for(repository, registry, fault):
    registry.faults.add(fault)
    with pytest.raises(IntegrityError):
        stream_bytes(repository, 100, 50)


def test_wrong_bytes_are_found_by_the_verifying_stream(repository, registry):
    registry.faults.add(Fault.corrupt(200_000))
    with (
        repository.open_blob(LAYER) as stream,
        pytest.raises(IntegrityError, match="other bytes"),
    ):
        read_all(VerifyingStream(stream, LAYER), LAYER.size)


def test_a_longer_blob_than_described(repository, registry):
    registry.faults.add(Fault.extra_bytes(5))
    with pytest.raises(IntegrityError):
        stream_bytes(repository)


def test_a_missing_blob_is_known_when_opened(repository):
    with pytest.raises(NotFoundError), repository.open_blob(replace(LAYER, digest=ABSENT)):
        pass


def test_a_stream_over_a_redirect(registry, open_repository):
    with BlobHost(registry.store) as blobs:
        registry.faults.add(Fault.redirect(blobs))
        assert stream_bytes(open_repository(registry)) == LAYER_BYTES
        assert blobs.violations == []
