"""What a runtime's errors become, and that a restart is waited for."""

import socket
import sys

import pytest

from modelpack.errors import (
    AuthError,
    ModelpackError,
    NetworkError,
    NotFoundError,
    SpaceError,
    UsageError,
)
from modelpack.runtime import grpcapi
from modelpack.runtime.grpcapi import AlreadyExistsError, MissingError
from tests.support.runtimeserver import Failure, RuntimeServer

VERSION = "containerd.services.version.v1.Version"


@pytest.fixture
def server(tmp_path):
    with RuntimeServer(tmp_path / "socket", patience=1.0) as running:
        yield running


def ask(server):
    with server.connect() as connection:
        return connection.call(VERSION, "Version", {}).version


def test_a_call_is_answered(server):
    server.answers["Version"] = [{"version": "2.1.9"}]
    assert ask(server) == "2.1.9"


@pytest.mark.parametrize(
    ("failure", "error", "code"),
    [
        (Failure("NOT_FOUND"), MissingError, 3),
        (Failure("ALREADY_EXISTS"), AlreadyExistsError, 1),
        (Failure("PERMISSION_DENIED"), AuthError, 4),
        (Failure("UNAUTHENTICATED"), AuthError, 4),
        (Failure("INVALID_ARGUMENT", "snapshotter not loaded: x"), UsageError, 2),
        (Failure("UNIMPLEMENTED", "unknown service"), UsageError, 2),
        (Failure("UNKNOWN", "write /x: no space left on device"), SpaceError, 8),
        (Failure("INTERNAL", "write /x: disk quota exceeded"), SpaceError, 8),
        (Failure("UNAVAILABLE"), NetworkError, 7),
        (Failure("DEADLINE_EXCEEDED"), NetworkError, 7),
        (Failure("INTERNAL", "a\nb"), ModelpackError, 1),
    ],
    ids=lambda value: getattr(value, "code", None),
)
def test_errors_become_the_projects(failure, error, code, server):
    server.answers["Version"] = [failure]
    with pytest.raises(error) as caught:
        ask(server)
    assert caught.value.exit_code == code
    assert "\n" not in str(caught.value)
    assert str(server.socket) in str(caught.value)


@pytest.mark.parametrize(
    "failure",
    [
        Failure("UNAVAILABLE", "error reading from server: EOF"),
        Failure("UNKNOWN", "server is not initialized yet"),
        Failure("UNKNOWN", "failed to rename: rename /s/new-1 /s/3: file exists"),
    ],
    ids=["gone", "starting", "orphan-in-the-way"],
)
def test_a_restart_is_waited_for(failure, server):
    server.answers["Version"] = [failure, failure, {"version": "2.2.0"}]
    assert ask(server) == "2.2.0"
    assert len(server.calls) == 3


def test_patience_ends(server):
    server.answers["Version"] = [Failure("UNAVAILABLE")]
    with pytest.raises(NetworkError, match="does not answer"):
        ask(server)
    assert 2 < len(server.calls) < 30


def test_an_error_is_not_tried_again(server):
    server.answers["Version"] = [Failure("INTERNAL", "damaged")]
    with pytest.raises(ModelpackError, match="damaged"):
        ask(server)
    assert len(server.calls) == 1


def test_no_socket_is_there(tmp_path):
    with pytest.raises(NetworkError, match=r"there is no such socket; start it.*--address"):
        grpcapi.Connection(tmp_path / "none")


def test_nobody_listens(tmp_path):
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "socket"))
    with pytest.raises(NetworkError, match="refused"):
        grpcapi.Connection(tmp_path / "socket")


def test_a_path_longer_than_a_sockets(tmp_path):
    with pytest.raises(UsageError, match="socket's path"):
        grpcapi.Connection(tmp_path / ("x" * 200))


@pytest.mark.parametrize("module", ["grpc", "google.protobuf.descriptor_pool"])
def test_without_the_extra_the_hint_names_it(module, server, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    grpcapi._pool.cache_clear()
    grpcapi._service.cache_clear()
    with pytest.raises(UsageError, match=r"pip install modelpack-oci\[node\]"):
        ask(server)


def test_the_errors_are_in_the_tree():
    assert issubclass(MissingError, NotFoundError)
