"""The control plane against the CNCF distribution: what the fault registry cannot vouch for."""

import os

import pytest

from modelpack.content import BlobContent, FileRegion
from modelpack.descriptor import EMPTY_CONFIG, OCI_LAYER_TAR, Descriptor
from modelpack.errors import AuthError, IntegrityError, NotFoundError
from modelpack.manifest import Manifest
from modelpack.reference import parse_reference
from modelpack.registry.credentials import Credentials
from modelpack.registry.login import login, logout
from modelpack.registry.options import ConnectionOptions
from modelpack.registry.repository import RegistryRepository
from modelpack.storage import VerifyingStream, iterate
from tests.support.registries import PASSWORD, USERNAME

pytestmark = pytest.mark.real("docker-registry")

CONFIG = Descriptor.of(b"{}", media_type=EMPTY_CONFIG)
PIECE = 1024 * 1024


@pytest.fixture
def options(tmp_path):
    return ConnectionOptions(
        auth_file=tmp_path / "auth.json", state_directory=tmp_path / "state", patience=10.0
    )


@pytest.fixture
def open_repository(options):
    opened = []

    def make(registry, name, with_options=options):
        reference = parse_reference(f"{registry.host}/{name}:v1")
        opened.append(RegistryRepository(reference, with_options))
        opened[-1]._uploader.piece_bytes = PIECE
        return opened[-1]

    yield make
    for made in opened:
        made.close()


@pytest.fixture
def layer(tmp_path):
    data = os.urandom(3 * PIECE + 5)
    file = tmp_path / "layer"
    file.write_bytes(data)
    content = BlobContent((b"head", FileRegion(file, len(data))))
    return Descriptor.of(b"head" + data, media_type=OCI_LAYER_TAR), content


def push_all(repository, layer):
    descriptor, content = layer
    assert not repository.has_blob(descriptor)
    repository.push_blob(descriptor, content)
    repository.push_blob(CONFIG, BlobContent((b"{}",)))
    assert repository.has_blob(descriptor)
    manifest = Manifest.build(config=CONFIG, layers=[descriptor])
    repository.push_manifest(manifest, "v1")
    return manifest


def test_round_trip(docker_registry, open_repository, layer):
    repository = open_repository(docker_registry, "control/round")
    manifest = push_all(repository, layer)
    assert repository.resolve("v1") == manifest.descriptor()
    assert repository.fetch_manifest(manifest.digest) == manifest
    assert repository.tags() == ["v1"]
    with repository.open_blob(layer[0]) as stream:
        verified = VerifyingStream(stream, layer[0])
        assert sum(len(piece) for piece in iterate(verified, 65536)) == layer[0].size
    with pytest.raises(NotFoundError):
        repository.resolve("v2")


def test_mount(docker_registry, open_repository, layer):
    push_all(open_repository(docker_registry, "control/source"), layer)
    target = open_repository(docker_registry, "control/target")
    source = parse_reference(f"{docker_registry.host}/control/source:v1")
    assert target.mount_blob(layer[0], source)
    assert target.has_blob(layer[0])
    missing = Descriptor.of(b"not there", media_type=OCI_LAYER_TAR)
    assert not target.mount_blob(missing, source)
    target.push_blob(missing, BlobContent((b"not there",)))
    assert target.has_blob(missing)


def test_referrers_without_an_api(docker_registry, open_repository, layer):
    repository = open_repository(docker_registry, "control/referrers")
    manifest = push_all(repository, layer)
    signature = Manifest.build(
        config=CONFIG, layers=[], artifact_type="a/sig", subject=manifest.descriptor()
    )
    repository.push_manifest(signature)
    (found,) = repository.referrers(manifest.digest, "a/sig")
    assert found.digest == signature.digest
    assert repository.referrers(manifest.digest, "a/other") == []


def test_wrong_bytes_are_refused(docker_registry, open_repository, layer):
    wrong = Descriptor.of(b"x" * layer[0].size, media_type=OCI_LAYER_TAR)
    with pytest.raises(IntegrityError, match="DIGEST_INVALID"):
        open_repository(docker_registry, "control/wrong").push_blob(wrong, layer[1])


def test_delete(docker_registry, open_repository, layer):
    repository = open_repository(docker_registry, "control/delete")
    manifest = push_all(repository, layer)
    repository.delete_manifest(manifest.digest)
    with pytest.raises(NotFoundError):
        repository.fetch_manifest("v1")


def test_an_upload_goes_on_between_two_pieces(docker_registry, open_repository, layer):
    descriptor, content = layer
    seen = 0

    def stop(count):
        nonlocal seen
        seen += count

    first = open_repository(docker_registry, "control/resume")
    send = first.client.request

    def interrupt(method, *arguments, **more):
        if method == "PUT":
            raise KeyboardInterrupt
        return send(method, *arguments, **more)

    first.client.request = interrupt
    with pytest.raises(KeyboardInterrupt):
        first.push_blob(descriptor, content, stop)
    moved = []
    second = open_repository(docker_registry, "control/resume")
    second.push_blob(descriptor, content, moved.append)
    assert moved == [descriptor.size], "all of it was there already"
    assert second.has_blob(descriptor)


def test_an_upload_broken_in_a_piece_starts_over(docker_registry, open_repository, layer):
    descriptor, content = layer
    seen = 0

    def stop(count):
        nonlocal seen
        seen += count
        if seen > PIECE + PIECE // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_repository(docker_registry, "control/broken").push_blob(descriptor, content, stop)
    again = open_repository(docker_registry, "control/broken")
    again.push_blob(descriptor, content)
    assert again.has_blob(descriptor)


def test_basic_auth(basic_auth_registry, open_repository, options, layer):
    host = basic_auth_registry.host
    with pytest.raises(AuthError, match=f"modelpack login {host}"):
        open_repository(basic_auth_registry, "control/basic").tags()
    with pytest.raises(AuthError):
        login(host, Credentials(username=USERNAME, password="wrong"), options)
    login(host, Credentials(username=USERNAME, password=PASSWORD), options)
    push_all(open_repository(basic_auth_registry, "control/basic"), layer)
    logout(host, options)


def test_token_auth(start_token_server, start_registry, open_repository, options, layer):
    tokens = start_token_server(lifetime=5, users={USERNAME: PASSWORD})
    registry = start_registry(auth=tokens)
    with pytest.raises(AuthError):
        open_repository(registry, "control/token").tags()
    login(registry.host, Credentials(username=USERNAME, password=PASSWORD), options)
    repository = open_repository(registry, "control/token")
    push_all(repository, layer)
    assert tokens.requests[-1].username == USERNAME


def test_tls(tls_registry, private_ca, options, open_repository, layer):
    secure = ConnectionOptions(
        plain_http=False,
        ca_file=private_ca.file,
        auth_file=options.auth_file,
        state_directory=options.state_directory,
    )
    push_all(open_repository(tls_registry, "control/tls", secure), layer)
