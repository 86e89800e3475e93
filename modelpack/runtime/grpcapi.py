"""Calls over a runtime's Unix socket, with gRPC's errors turned into the project's.

Owns the message classes, made from ``protos/*.proto`` in a descriptor pool of their own (another
library's containerd stubs in the same process cannot clash with them, and no version of protobuf
is prescribed as generated code would), the connection, retries and the mapping of errors. Leaves
out what the calls mean (``client.py``).

    with Connection(Path("/run/containerd/containerd.sock")) as connection:
        answer = connection.call("containerd.services.version.v1.Version", "Version", {})
"""

import errno
import functools
import importlib
import importlib.resources
import logging
import os
import random
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from modelpack.errors import (
    AuthError,
    ModelpackError,
    NetworkError,
    NotFoundError,
    SpaceError,
    UsageError,
)

_logger = logging.getLogger(__name__)

INSTALL_HINT = "it needs gRPC: pip install modelpack-oci[node]"
# What containerd's own server and client allow.
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
# Removing the files of a large image holds other calls up.
CALL_SECONDS = 120.0
# A restart of containerd on a busy node; longer than that and someone should hear of it.
PATIENCE_SECONDS = 60.0
_FIRST_DELAY = 0.1
_LONGEST_DELAY = 2.0
_CONNECT_SECONDS = 10.0
# CRI answers with this until it has read its images back.
_STARTING = "not initialized yet"
# overlayfs makes a snapshot's directory before it records the number. Killed in between, it takes
# the same number again, finds the directory in its way, and removes that as it fails.
_ORPHAN_IN_THE_WAY = ("failed to rename", "file exists")


class AlreadyExistsError(ModelpackError):
    """The runtime has a thing of that name."""


class MissingError(NotFoundError):
    """The runtime has no thing of that name."""


class HeldError(ModelpackError):
    """The runtime refuses because something else still builds on the thing."""


class Connection:
    """A connection to a runtime's socket; thread-safe."""

    def __init__(self, address: Path, *, patience: float = PATIENCE_SECONDS) -> None:
        """Check that something listens at ``address``.

        Raises:
            UsageError: gRPC is not installed.
            NetworkError: nothing listens there.
            AuthError: this user may not connect.
        """
        # gRPC's own log would go to stderr, where it says no more than the exceptions do.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        self._grpc = _load("grpc")
        self._address = address
        self._patience = patience
        _probe(address)
        self._channel = self._grpc.insecure_channel(
            f"unix://{address}",
            options=[
                ("grpc.default_authority", "localhost"),
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_reconnect_backoff_ms", int(1000 * _LONGEST_DELAY)),
            ],
        )

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def call(
        self,
        service: str,
        method: str,
        fields: Mapping[str, Any],
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = CALL_SECONDS,
    ) -> Any:
        """Make a call and return the answer's message, or a list of messages if it streams.

        ``fields`` are the request's, with mappings for messages. A call that did not get through
        is made again until patience ends, so it must be one that may be made twice.

        Raises:
            MissingError, AlreadyExistsError, HeldError: as the runtime says.
            UsageError: the runtime has no such service, or does not accept the arguments.
            AuthError: this user may not.
            SpaceError: the runtime has no space left.
            NetworkError: it does not answer.
            ModelpackError: anything else that it reports.
        """
        until = time.monotonic() + self._patience
        delay = _FIRST_DELAY
        while True:
            try:
                return self._call(service, method, fields, headers, timeout)
            except self._grpc.RpcError as error:
                if not self._is_transient(error) or time.monotonic() + delay > until:
                    raise self._mapped(error, f"{service.rpartition('.')[2]}.{method}") from error
                _logger.debug("%s.%s: trying again", service, method)
                time.sleep(delay * (0.5 + random.random()))  # noqa: S311 - jitter, not a secret
                delay = min(2 * delay, _LONGEST_DELAY)

    def _call(
        self,
        service: str,
        method: str,
        fields: Mapping[str, Any],
        headers: Mapping[str, str] | None,
        timeout: float,
    ) -> Any:
        described = _service(service).methods_by_name[method]
        request_class, answer_class = _classes(described.input_type, described.output_type)
        request = request_class(**fields)
        options = {"metadata": tuple((headers or {}).items()), "timeout": timeout}
        path = f"/{service}/{method}"
        codecs = {
            "request_serializer": request_class.SerializeToString,
            "response_deserializer": answer_class.FromString,
        }
        if described.client_streaming:
            return list(self._channel.stream_stream(path, **codecs)(iter([request]), **options))
        if described.server_streaming:
            return list(self._channel.unary_stream(path, **codecs)(request, **options))
        return self._channel.unary_unary(path, **codecs)(request, **options)

    def _is_transient(self, error: Any) -> bool:
        code, details = error.code(), error.details() or ""
        return code == self._grpc.StatusCode.UNAVAILABLE or (
            code == self._grpc.StatusCode.UNKNOWN
            and (_STARTING in details or all(part in details for part in _ORPHAN_IN_THE_WAY))
        )

    def _mapped(self, error: Any, what: str) -> ModelpackError:
        code, details = error.code().name, " ".join((error.details() or "").split())
        message = f"containerd at {self._address}: {what}: {details}"
        if "no space left on device" in details or "disk quota exceeded" in details:
            return SpaceError(f"{message}; free some space and run again")
        match code:
            case "NOT_FOUND":
                return MissingError(message)
            case "ALREADY_EXISTS":
                return AlreadyExistsError(message)
            case "FAILED_PRECONDITION":
                return HeldError(message)
            case "PERMISSION_DENIED" | "UNAUTHENTICATED":
                return AuthError(message)
            case "UNIMPLEMENTED":
                return UsageError(f"{message}; the runtime lacks this service or it is disabled")
            case "INVALID_ARGUMENT":
                return UsageError(message)
            case "UNAVAILABLE" | "DEADLINE_EXCEEDED" | "CANCELLED":
                return NetworkError(
                    f"containerd at {self._address} does not answer ({what}); see whether it "
                    "runs, then run again to continue"
                )
        return ModelpackError(message)


def _probe(address: Path) -> None:
    """Connect once, because gRPC does not tell why it cannot."""
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(_CONNECT_SECONDS)
            probe.connect(str(address))
    except PermissionError as error:
        raise AuthError(f"no permission to connect to {address}; run as root") from error
    except OSError as error:
        if error.errno is None:  # the path is longer than a socket's may be
            raise UsageError(f"{address} cannot be a socket's path: {error}") from error
        reason = "there is no such socket" if error.errno == errno.ENOENT else error.strerror
        raise NetworkError(
            f"cannot reach containerd at {address}: {reason}; start it, or name its socket with "
            "--address"
        ) from error


def _load(name: str) -> Any:
    """Import a module of the optional extra, untyped.

    Raises:
        UsageError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(f"containerd cannot be talked to: {INSTALL_HINT}") from error


@functools.cache
def _pool() -> Any:
    compiled = importlib.resources.files("modelpack.runtime").joinpath("protos", "api.binpb")
    descriptors = _load("google.protobuf.descriptor_pb2")
    pool = _load("google.protobuf.descriptor_pool").DescriptorPool()
    for file in descriptors.FileDescriptorSet.FromString(compiled.read_bytes()).file:
        pool.Add(file)
    return pool


@functools.cache
def _service(name: str) -> Any:
    return _pool().FindServiceByName(name)


def _classes(*described: Any) -> Iterator[Any]:
    factory = _load("google.protobuf.message_factory")
    return (factory.GetMessageClass(item) for item in described)
