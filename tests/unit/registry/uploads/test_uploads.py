"""Uploads in the ways of registries of many kinds."""

import os
import ssl
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from modelpack.content import BlobContent
from modelpack.descriptor import OCI_LAYER_TAR, Descriptor
from modelpack.errors import ModelpackError, NetworkError, SpaceError
from modelpack.registry.errors import UnsafeAddressError
from tests.support.faultregistry import BasicAuth, Fault, FaultRegistry, Features
from tests.support.uploads import ADA, PIECE, USERS, Blob, methods

# The plain ways


def test_small_blobs_go_in_one_put(registry, push, small):
    push(registry, small)
    assert methods(registry) == ["POST", "PUT"]


def test_large_blobs_go_in_pieces(registry, push, blob):
    push(registry, blob)
    assert methods(registry) == ["POST", *["PATCH"] * 5, "PUT"]
    ranges = [record.headers["content-range"] for record in registry.select(method="PATCH")]
    assert ranges[0] == f"0-{PIECE - 1}"
    assert ranges[-1] == f"{4 * PIECE}-{blob.descriptor.size - 1}"
    assert len({record.connection for record in registry.select(method="PATCH")}) == 1


def test_an_empty_blob(registry, push, tmp_path):
    class Empty:
        data = b""
        content = BlobContent(())
        descriptor = Descriptor.of(b"", media_type=OCI_LAYER_TAR)

    push(registry, Empty)


@pytest.mark.parametrize(
    "features",
    [
        Features(absolute_locations=True),
        Features(min_chunk=3 * PIECE),
        Features(single_post=False),
    ],
    ids=["absolute locations", "least chunk", "no single post"],
)
def test_ways_of_registries(registry, push, blob, features):
    registry.features = features
    push(registry, blob)


def test_content_that_only_comes_in_pieces(registry, push, blob):
    class Pieces:
        size = blob.content.size

        def pieces(self, start=0):
            for offset in range(start, self.size, 70_000):
                yield memoryview(blob.data)[offset : offset + 70_000]

    blob.content = Pieces()
    push(registry, blob)


def test_many_at_once(registry, open_repository, tmp_path):
    repository = open_repository(registry)
    blobs = []
    for number in range(6):
        directory = tmp_path / str(number)
        directory.mkdir()
        blobs.append(Blob(directory, 2 * PIECE + number))
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda blob: repository.push_blob(blob.descriptor, blob.content), blobs))
    for blob in blobs:
        assert registry.blob(blob.descriptor.digest) == blob.data


def test_the_same_blob_twice_at_once(registry, open_repository, blob):
    repository = open_repository(registry)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: repository.push_blob(blob.descriptor, blob.content), range(2)))
    assert registry.blob(blob.descriptor.digest) == blob.data


def test_tls(private_ca, push, blob):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*private_ca.issue("upload-test"))
    with FaultRegistry(tls=context) as registry:
        push(registry, blob, plain_http=False, ca_file=private_ca.file)
        assert registry.violations == []


def test_rate_limit(registry, push, small):
    started = time.monotonic()
    push(registry, small, limit_rate=PIECE)
    assert 0.2 < time.monotonic() - started < 3.0


# Registries with manners of their own


@pytest.mark.parametrize("status", [400, 404, 405, 415, 416, 501])
def test_patch_refused(registry, open_repository, blob, tmp_path, status):
    registry.faults.add(Fault.patch_refused(status))
    seen = []
    repository = open_repository(registry, seen.append)
    repository.push_blob(blob.descriptor, blob.content)
    assert registry.blob(blob.descriptor.digest) == blob.data
    assert methods(registry) == ["POST", "PATCH", "POST", "PUT"]
    assert seen == []
    other = tmp_path / "other"
    other.mkdir()
    second = Blob(other)
    registry.clear_records()
    repository.push_blob(second.descriptor, second.content)
    expected = ["POST", "PATCH", "POST", "PUT"] if status == 404 else ["POST", "PUT"]
    assert methods(registry) == expected, "the refusal is remembered"


def test_201_after_patch(registry, push, blob):
    registry.faults.add(Fault.answer_201_after_patch())
    push(registry, blob)


def test_a_registry_that_takes_less_than_was_sent(registry, push, blob):
    registry.faults.add(Fault.lose_upload_bytes(PIECE // 3, nth={1, 3}))
    push(registry, blob)


def test_a_registry_that_claims_more_than_was_sent(registry, open_repository, blob):
    registry.faults.add(Fault.header("Range", f"0-{10 * PIECE}", method="PATCH"))
    with pytest.raises(NetworkError, match="not sent"):
        open_repository(registry).push_blob(blob.descriptor, blob.content)


@pytest.mark.parametrize("value", [None, "0-99/100", "nonsense"])
def test_a_patch_answer_without_a_range(registry, push, blob, value):
    registry.faults.add(Fault.header("Range", value, method="PATCH"))
    push(registry, blob)


def test_a_patch_answer_without_a_location(registry, open_repository, blob):
    """The old one is used again; this registry's change with every piece, so it refuses."""
    registry.faults.add(Fault.header("Location", None, method="PATCH"))
    with pytest.raises(ModelpackError):
        open_repository(registry).push_blob(blob.descriptor, blob.content)
    registry.clear_records()


def test_a_full_registry_is_no_refusal_of_pieces(registry, open_repository, blob):
    registry.faults.add(Fault.status(400, code="QUOTA_EXCEEDED", method="PATCH"))
    with pytest.raises(SpaceError):
        open_repository(registry).push_blob(blob.descriptor, blob.content)
    assert methods(registry) == ["POST", "PATCH"]


def test_an_upload_without_a_location(registry, open_repository, small):
    registry.faults.add(Fault.header("Location", None, kind="uploads"))
    with pytest.raises(NetworkError, match="without saying where"):
        open_repository(registry).push_blob(small.descriptor, small.content)


# Other hosts


def test_an_upload_elsewhere_gets_no_credentials(push, open_repository, blob, small):
    with (
        FaultRegistry(auth=BasicAuth(USERS)) as registry,
        FaultRegistry(address="127.0.0.2", store=registry.store) as other,
    ):
        registry.faults.add(Fault.upload_elsewhere(other))
        for one in (blob, small):
            push(registry, one, credentials=ADA)
        assert registry.credentials_seen
        assert other.requests
        assert other.credentials_seen == []
        assert other.requests_with("secret") == []
        assert other.violations == registry.violations == []


def test_no_upload_from_https_to_http(private_ca, open_repository, blob):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*private_ca.issue("upload-test-2"))
    with FaultRegistry(tls=context) as registry, FaultRegistry(store=registry.store) as plain:
        registry.faults.add(Fault.upload_elsewhere(plain))
        with pytest.raises(UnsafeAddressError):
            open_repository(registry, plain_http=False, ca_file=private_ca.file).push_blob(
                blob.descriptor, blob.content
            )
        assert plain.requests == []


def test_memory_stays_small(tmp_path):
    """A sparse file of 256 MiB goes to a server that throws it away."""
    script = """
import resource, sys
from pathlib import Path
from modelpack.content import BlobContent, FileRegion
from modelpack.registry import bodies
from modelpack.registry.addresses import Origin
from modelpack.registry.connections import connect
from modelpack.registry.options import ConnectionOptions
from modelpack.ratelimit import RateLimiter
options = ConnectionOptions()
port, path = int(sys.argv[1]), Path(sys.argv[2])
size = path.stat().st_size
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
connection = connect(Origin("http", "127.0.0.1", port), options, options.ssl_context())
answer = bodies.send(
    connection, "PUT", f"http://127.0.0.1:{port}/x", {}, BlobContent((FileRegion(path, size),)),
    start=0, length=size, timeout=20, answer_timeout=20, limiter=RateLimiter(None),
    sent=lambda count: None,
)
assert answer.status == 200, answer
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    sink = """
import socket
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
peer, _ = server.accept()
head = b""
while b"\\r\\n\\r\\n" not in head:
    head += peer.recv(65536)
head, _, rest = head.partition(b"\\r\\n\\r\\n")
left = int(head.lower().partition(b"content-length: ")[2].split(b"\\r\\n")[0]) - len(rest)
buffer = bytearray(1 << 20)
while left:
    left -= peer.recv_into(buffer)
peer.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")
"""
    large = tmp_path / "sparse"
    large.touch()
    os.truncate(large, 256 * PIECE)
    server = subprocess.Popen([sys.executable, "-c", sink], stdout=subprocess.PIPE, text=True)
    try:
        port = server.stdout.readline().strip()
        done = subprocess.run(
            [sys.executable, "-c", script, port, large], capture_output=True, text=True, timeout=120
        )
    finally:
        server.kill()
        server.wait()
        server.stdout.close()
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 20_000, "kilobytes"


def test_header_injection_is_impossible(registry, open_repository, small):
    repository = open_repository(registry)
    repository._uploader._offered[small.descriptor.digest] = "http://h.example/\r\nX: 1"
    with pytest.raises(ModelpackError):
        repository.push_blob(small.descriptor, small.content)
    assert registry.requests == []
