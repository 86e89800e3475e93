import json
import os
import signal
import ssl
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from modelpack.content import BlobContent, FileRegion
from modelpack.descriptor import OCI_LAYER_TAR, Descriptor
from modelpack.errors import AuthError, IntegrityError, ModelpackError, NetworkError, SpaceError
from modelpack.events import Retried
from modelpack.reference import parse_reference
from modelpack.registry.credentials import Credentials
from modelpack.registry.errors import UnsafeAddressError
from modelpack.registry.options import ConnectionOptions
from modelpack.registry.repository import RegistryRepository
from modelpack.registry.uploadstate import UploadState
from tests.support.faultregistry import BasicAuth, BearerAuth, Fault, FaultRegistry, Features

NAME = "team/model"
PIECE = 1024 * 1024
USERS = {"ada": "secret"}
ADA = Credentials(username="ada", password="secret")


class Blob:
    """Content of a head, a file and a tail, four and a half pieces long."""

    def __init__(self, directory, size=4 * PIECE + PIECE // 2):
        self.data = os.urandom(size)
        file = directory / f"weights-{size}"
        file.write_bytes(self.data[100:-50])
        self.content = BlobContent((self.data[:100], FileRegion(file, size - 150), self.data[-50:]))
        self.descriptor = Descriptor.of(self.data, media_type=OCI_LAYER_TAR)
        self.file = file


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr("modelpack.registry.retry._FIRST_DELAY", 0.02)


@pytest.fixture
def blob(tmp_path):
    return Blob(tmp_path)


@pytest.fixture
def small(tmp_path):
    return Blob(tmp_path, PIECE // 2)


@pytest.fixture
def registry():
    with FaultRegistry() as started:
        yield started
        assert started.violations == []


@pytest.fixture
def open_repository(tmp_path):
    opened = []

    def make(registry, observer=None, **options):
        defaults = {
            "auth_file": tmp_path / "none.json",
            "state_directory": tmp_path / "state",
            "patience": 5.0,
        }
        reference = parse_reference(f"{registry.host}/{NAME}:v1")
        made = RegistryRepository(reference, ConnectionOptions(**{**defaults, **options}), observer)
        made._uploader.piece_bytes = PIECE
        opened.append(made)
        return made

    yield make
    for made in opened:
        made.close()


@pytest.fixture
def push(open_repository, tmp_path):
    """Push a blob and return the counts that its progress told."""

    def run(registry, blob, **options):
        moved = []
        open_repository(registry, **options).push_blob(blob.descriptor, blob.content, moved.append)
        assert registry.blob(blob.descriptor.digest) == blob.data
        assert sum(moved) == blob.descriptor.size
        assert not list((tmp_path / "state").glob("uploads/*")), "nothing is left to remember"
        return moved

    return run


def methods(registry):
    return [record.method for record in registry.requests]


def body_bytes(registry):
    return sum(record.body_received for record in registry.requests)


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


# Broken connections


@pytest.mark.parametrize("reset", [True, False], ids=["reset", "closed"])
@pytest.mark.parametrize("keep", [True, False], ids=["kept", "lost"])
@pytest.mark.parametrize("after", [0, 300_000, PIECE])
def test_a_broken_piece_goes_on(registry, push, blob, after, keep, reset):
    cut = Fault.drop_upload(after, reset=reset, keep=keep, method="PATCH", nth={2, 4})
    registry.faults.add(cut)
    push(registry, blob)
    assert registry.faults.fired(cut) == 2
    assert len(registry.select(method="POST")) == 1, "the upload was not begun again"
    # A piece that was lost is sent again, halved; nothing before it is.
    assert body_bytes(registry) <= blob.descriptor.size + 2 * PIECE


@pytest.mark.parametrize("reset", [True, False], ids=["reset", "closed"])
@pytest.mark.parametrize("after", [0, 100_000, PIECE // 2])
def test_a_broken_put_starts_over(registry, push, small, after, reset):
    registry.faults.add(Fault.drop_upload(after, reset=reset, method="PUT", times=2))
    push(registry, small)


def test_a_put_that_always_breaks(registry, open_repository, small):
    cut = Fault.drop_upload(1000, method="PUT")
    registry.faults.add(cut)
    with pytest.raises(NetworkError):
        open_repository(registry).push_blob(small.descriptor, small.content)
    assert registry.faults.fired(cut) <= 5


def test_a_piece_that_always_breaks(registry, open_repository, blob):
    registry.faults.add(Fault.drop_upload(1000, keep=False, method="PATCH"))
    started = time.monotonic()
    with pytest.raises(NetworkError, match="gave up"):
        open_repository(registry, patience=1.0).push_blob(blob.descriptor, blob.content)
    assert time.monotonic() - started < 10


def test_the_answer_to_the_last_put_is_lost(registry, push, blob):
    registry.faults.add(Fault.drop_upload(0, method="PUT", times=1))
    push(registry, blob)


def test_the_registry_forgets_the_upload(registry, open_repository, blob):
    """As CNCF distribution does when a piece broke off in the middle."""
    gone = Fault.status(404, method="GET", kind="upload", times=1)
    registry.faults.add(Fault.drop_upload(1000, method="PATCH", nth=3), gone)
    open_repository(registry).push_blob(blob.descriptor, blob.content)
    assert registry.faults.fired(gone) == 1
    assert len(registry.select(method="POST")) == 2
    assert registry.blob(blob.descriptor.digest) == blob.data


def test_the_registry_restarts(registry, open_repository, blob):
    repository = open_repository(registry)
    seen = 0

    def progress(count):
        nonlocal seen
        seen += count
        if seen > 2 * PIECE and not restarted:
            restarted.append(True)
            registry.stop()
            registry.start()

    restarted = []
    repository.push_blob(blob.descriptor, blob.content, progress)
    assert seen == blob.descriptor.size
    assert registry.blob(blob.descriptor.digest) == blob.data


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize("early", [True, False], ids=["early", "late"])
def test_trouble_that_passes(registry, push, blob, status, early):
    registry.faults.add(
        Fault.status(status, early=early, method="PATCH", nth={2, 3}),
        Fault.status(status, early=early, method="PUT", nth=1),
        Fault.status(status, method="POST", nth=1),
    )
    push(registry, blob)


def test_retries_are_told(registry, open_repository, blob):
    registry.faults.add(Fault.status(503, retry_after=1, method="PATCH", times=1))
    seen = []
    open_repository(registry, seen.append).push_blob(blob.descriptor, blob.content)
    (event,) = seen
    assert isinstance(event, Retried)
    assert event.delay >= 1.0


# Early refusals


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (413, "SIZE_INVALID", SpaceError),
        (403, "DENIED", AuthError),
        (400, "DIGEST_INVALID", IntegrityError),
    ],
)
def test_an_early_refusal_is_heard(registry, open_repository, blob, small, status, code, kind):
    """The registry answers before it has read the body, and closes."""
    registry.faults.add(Fault.status(status, code=code, early=True, method=("PATCH", "PUT")))
    for one in (blob, small):
        with pytest.raises(kind):
            open_repository(registry).push_blob(one.descriptor, one.content)


def test_a_refusal_is_heard_while_the_registry_reads_nothing(tmp_path, open_repository):
    """A body larger than every socket buffer, to a server that answers and stops reading."""
    with FaultRegistry() as registry:
        registry.faults.add(Fault.status(413, early=True, method="PUT"))
        large = Blob(tmp_path, 40 * PIECE)
        repository = open_repository(registry)
        repository._uploader.piece_bytes = 100 * PIECE
        sent = []
        started = time.monotonic()
        with pytest.raises(SpaceError):
            repository.push_blob(large.descriptor, large.content, sent.append)
        assert time.monotonic() - started < 10


@pytest.mark.parametrize("status", [413, 500])
def test_an_early_refusal_over_tls(private_ca, tmp_path, open_repository, status):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*private_ca.issue("upload-test-3"))
    large = Blob(tmp_path, 20 * PIECE)
    with FaultRegistry(tls=context) as registry:
        registry.faults.add(Fault.status(status, code="QUOTA", early=True, method="PUT"))
        repository = open_repository(registry, plain_http=False, ca_file=private_ca.file)
        repository._uploader.piece_bytes = 100 * PIECE
        with pytest.raises(SpaceError):
            repository.push_blob(large.descriptor, large.content)


def test_a_registry_that_reads_nothing_and_says_nothing(registry, open_repository, tmp_path):
    registry.faults.add(Fault.stall_upload(0, seconds=3.0, method="PATCH", times=1))
    large = Blob(tmp_path, 12 * PIECE)
    repository = open_repository(registry, read_timeout=0.5)
    repository._uploader.piece_bytes = 10 * PIECE
    repository.push_blob(large.descriptor, large.content)
    assert registry.blob(large.descriptor.digest) == large.data


# Credentials


def test_tokens_that_end_while_bytes_go(push, blob):
    with FaultRegistry(auth=BearerAuth(users=USERS, lifetime=0.6)) as registry:
        registry.faults.add(Fault.slow_upload(4 * PIECE, method="PATCH"))
        push(registry, blob, credentials=ADA)
        assert len(registry.tokens_issued) > 1
        assert registry.violations == []


def test_tokens_that_end_unannounced(push, blob):
    auth = BearerAuth(users=USERS, lifetime=0.4, announce_expiry=False)
    with FaultRegistry(auth=auth) as registry:
        registry.faults.add(Fault.slow_upload(4 * PIECE, method="PATCH"))
        push(registry, blob, credentials=ADA)


def test_a_token_that_does_not_suffice(open_repository, blob):
    auth = BearerAuth(users=USERS, allow=lambda user, repo, action: action == "pull")
    with FaultRegistry(auth=auth) as registry, pytest.raises(AuthError, match="modelpack login"):
        open_repository(registry, credentials=ADA).push_blob(blob.descriptor, blob.content)


# The content


def test_wrong_content(registry, open_repository, blob):
    wrong = Descriptor.of(b"x" * blob.descriptor.size, media_type=OCI_LAYER_TAR)
    with pytest.raises(IntegrityError, match="DIGEST_INVALID"):
        open_repository(registry).push_blob(wrong, blob.content)
    registry.clear_records()


def test_wrong_size(registry, open_repository, blob):
    wrong = Descriptor.of(b"x", media_type=OCI_LAYER_TAR)
    with pytest.raises(IntegrityError, match="its descriptor says 1"):
        open_repository(registry).push_blob(wrong, blob.content)
    assert registry.requests == []


def test_the_registry_stores_another_digest(registry, open_repository, small):
    registry.faults.add(Fault.wrong_digest_header(method="PUT"))
    with pytest.raises(IntegrityError, match="stored it as"):
        open_repository(registry).push_blob(small.descriptor, small.content)


@pytest.mark.parametrize("change", ["shorter", "gone", "longer"])
def test_a_file_that_changes(registry, open_repository, blob, change):
    if change == "gone":
        blob.file.unlink()
    elif change == "longer":
        with blob.file.open("ab") as file:
            file.write(b"x")
    else:
        os.truncate(blob.file, 10)
    with pytest.raises(IntegrityError, match="weights"):
        open_repository(registry).push_blob(blob.descriptor, blob.content)


def test_a_file_that_shrinks_while_it_is_sent(registry, open_repository, blob):
    def progress(_):
        os.truncate(blob.file, 10)

    with pytest.raises(IntegrityError, match="weights"):
        open_repository(registry).push_blob(blob.descriptor, blob.content, progress)


# Between runs


def interrupted(registry, repository, blob, after):
    """Push until so many bytes have gone, then stop as an interrupt would.

    Returns once the registry has taken what was on its way: until then it may say that it has less.
    """
    seen = 0

    def progress(count):
        nonlocal seen
        seen += count
        if seen >= after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        repository.push_blob(blob.descriptor, blob.content, progress)
    taken = -1
    while taken != (taken := sum(record.body_received for record in registry.requests)):
        time.sleep(0.5)


def test_an_interrupted_push_goes_on(registry, open_repository, push, blob):
    interrupted(registry, open_repository(registry), blob, 3 * PIECE + PIECE // 2)
    registry.clear_records()
    moved = push(registry, blob)
    assert moved[0] >= 3 * PIECE
    assert "POST" not in methods(registry)
    asked = methods(registry).index("GET")
    assert sum(record.body_received for record in registry.requests[asked:]) <= (
        blob.descriptor.size - 3 * PIECE
    )


def test_a_killed_push_goes_on(registry, push, blob, tmp_path):
    script = """
import sys
from pathlib import Path
from modelpack.content import BlobContent, FileRegion
from modelpack.descriptor import Descriptor
from modelpack.reference import parse_reference
from modelpack.registry.options import ConnectionOptions
from modelpack.registry.repository import RegistryRepository
host, name, data, state = sys.argv[1:]
raw = Path(data).read_bytes()
options = ConnectionOptions(state_directory=Path(state), auth_file=Path(state, "none"))
repository = RegistryRepository(parse_reference(f"{host}/{name}:v1"), options)
repository._uploader.piece_bytes = 1024 * 1024
repository.push_blob(
    Descriptor.of(raw, media_type="a/b"), BlobContent((FileRegion(Path(data), len(raw)),))
)
"""
    whole = tmp_path / "whole"
    whole.write_bytes(blob.data)
    registry.faults.add(Fault.stall_upload(1000, seconds=60, method="PATCH", nth=4))
    child = subprocess.Popen(
        [sys.executable, "-c", script, registry.host, NAME, whole, tmp_path / "state"]
    )
    try:
        deadline = time.monotonic() + 30
        while len(registry.select(method="PATCH")) < 4:
            assert time.monotonic() < deadline
            assert child.poll() is None
            time.sleep(0.02)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    registry.clear_records()
    registry.faults.clear()
    push(registry, blob)
    assert body_bytes(registry) <= blob.descriptor.size - 3 * PIECE


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(b"\xff{"),
        lambda file: file.write_text("[]"),
        lambda file: file.write_text(json.dumps({**json.loads(file.read_text()), "time": 0})),
        lambda file: file.write_text(json.dumps({**json.loads(file.read_text()), "digest": "x"})),
        lambda file: file.write_text(
            json.dumps({**json.loads(file.read_text()), "location": "file:///etc/passwd"})
        ),
        lambda file: file.write_text(
            json.dumps({**json.loads(file.read_text()), "location": "http://127.0.0.1:1/x"})
        ),
    ],
    ids=["empty", "binary", "list", "old", "other blob", "no URL", "dead"],
)
def test_a_damaged_state_costs_only_time(registry, open_repository, push, blob, tmp_path, damage):
    interrupted(registry, open_repository(registry), blob, 3 * PIECE)
    (file,) = (tmp_path / "state/uploads").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    damage(file)
    registry.clear_records()
    push(registry, blob, patience=0.5)


def test_an_upload_that_the_registry_has_dropped(registry, open_repository, push, blob):
    interrupted(registry, open_repository(registry), blob, 3 * PIECE)
    for upload in registry.store.uploads():
        registry.store.end_upload(upload)
    push(registry, blob)


def test_one_upload_has_one_state(tmp_path, blob):
    digest = blob.descriptor.digest
    with UploadState.claim("r.example", NAME, digest, home=tmp_path) as first:
        first.save("https://r.example/u/1", 5)
        with UploadState.claim("r.example", NAME, digest, home=tmp_path) as second:
            second.save("https://r.example/u/2", 9)
            assert second.load() is None
        assert first.load() == "https://r.example/u/1"
    with UploadState.claim("r.example", NAME, digest, home=tmp_path) as later:
        assert later.load() == "https://r.example/u/1"
        later.forget()
    with UploadState.claim("r.example", "team/other", digest, home=tmp_path) as other:
        assert other.load() is None


def test_state_that_cannot_be_kept_is_done_without(registry, open_repository, blob, tmp_path):
    (tmp_path / "state").write_text("a file where a directory should be")
    open_repository(registry).push_blob(blob.descriptor, blob.content)
    assert registry.blob(blob.descriptor.digest) == blob.data


def test_old_states_are_removed(tmp_path, blob):
    directory = tmp_path / "uploads"
    directory.mkdir()
    old = directory / "old"
    old.write_text("x")
    os.utime(old, (0, 0))
    with UploadState.claim("r.example", NAME, blob.descriptor.digest, home=tmp_path):
        assert not old.exists()


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
