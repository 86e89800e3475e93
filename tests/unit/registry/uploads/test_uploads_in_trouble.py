"""Uploads on lines that break, to registries that refuse, with tokens that end."""

import os
import ssl
import time

import pytest

from modelpack.descriptor import OCI_LAYER_TAR, Descriptor
from modelpack.errors import AuthError, IntegrityError, NetworkError, SpaceError
from modelpack.events import Retried
from tests.support.faultregistry import BearerAuth, Fault, FaultRegistry
from tests.support.uploads import ADA, PIECE, USERS, Blob, body_bytes

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
